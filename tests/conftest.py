"""Fixtures of many tests: real MNIST, a tiny model, a real server, an ordinary user's rights."""

import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from mlpserve.model.inputs import InputSpec
from mlpserve.model.metadata import Calibration, Metadata, Training
from mlpserve.model.network import Layer, Network
from mlpserve.model.out_of_distribution import fit_detector
from mlpserve.model.versions import publish as publish_model
from mlpserve.model.weights import Model
from mlpserve.server.server import Server
from mlpserve.server.settings.config import ServerConfig

pytest_plugins = ["fault_table", "isolation"]

REPOSITORY = Path(__file__).parents[1]
NOBODY = 65534

# The same examples each time: a test that fails here fails for everybody, and on a slow day too.
hypothesis.settings.register_profile(
    "full",
    derandomize=True,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "quick", hypothesis.settings.get_profile("full"), max_examples=25
)
hypothesis.settings.load_profile("full")


@pytest.fixture(scope="session", autouse=True)
def logs_for_people() -> Iterator[None]:
    """Have servers that tests start log text, though they log to no terminal."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLPSERVE_LOG_FORMAT", "text")
        yield


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
    """Return the folder with the four official MNIST files.

    Tests with real data are left out where there is none; CI sets the variable, so there they run.
    """
    named = os.environ.get("MLPSERVE_DATA_DIR")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data" / "mnist"
    if not folder.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"CI must run the tests with real data, but {folder} is missing")
        pytest.skip("MLPSERVE_DATA_DIR names no folder with the MNIST files")
    return folder


@pytest.fixture(scope="session")
def network() -> Network:
    """Return a network of 6-4-3 in float32 that finds all its classes in random images."""
    rng = np.random.default_rng(100)

    def layer(fan_in: int, fan_out: int, activation: str) -> Layer:
        weights = rng.normal(size=(fan_in, fan_out)).astype(np.float32)
        return Layer(weights, rng.normal(size=fan_out).astype(np.float32), activation)

    return Network((layer(6, 4, "tanh"), layer(4, 3, "softmax")))


@pytest.fixture(scope="session")
def metadata() -> Metadata:
    """Return what describes ``network``, as version 1."""
    return Metadata(
        name="tiny",
        version=1,
        layer_sizes=(6, 4, 3),
        activations=("tanh", "softmax"),
        input=InputSpec((2, 3)),
        class_labels=("cat", "dög", '"bird"'),
        training=Training(
            recipe="fast",
            hyperparameters={"learning_rate": 0.01, "epochs": 3, "schedule": "one-cycle"},
            seed=7,
            data_name="pets",
            data_digest="sha256:0123",
            train_accuracy=0.96875,
            test_accuracy=0.1,
            created_at=datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=UTC),
            library_versions={"numpy": "2.0.0", "python": "3.11.7"},
            validation_accuracy=0.875,
            calibration=Calibration(1.25, 0.0625, 0.03125),
        ),
    )


@pytest.fixture(scope="session")
def model(network: Network, metadata: Metadata) -> Model:
    """Return ``network`` and ``metadata`` together."""
    return Model(network, metadata)


@pytest.fixture(scope="session")
def scored_model(model: Model) -> Model:
    """Return the tiny model with an out-of-distribution score, of one that learned bright images.

    Those of bytes below 60 are beyond its threshold.
    """
    rng = np.random.default_rng(4)
    images, labels = rng.integers(180, 220, (90, 2, 3), np.uint8), np.arange(90) % 3
    spec, held_out = model.metadata.input, images[:30]
    answers = model.network.probabilities(spec.scale(held_out))
    detector = fit_detector(images, labels, (held_out, answers), spec, rng)
    assert detector is not None
    return replace(model, detector=replace(detector, test_share=0.25))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Return where a models folder may be made."""
    return tmp_path / "models"


@pytest.fixture
def publish(models: Path, model: Model) -> Callable[..., None]:
    """Return a function that publishes some versions of the tiny model under a name."""

    def publish_versions(name: str, *, versions: int) -> None:
        named = Model(model.network, replace(model.metadata, name=name))
        for _ in range(versions):
            publish_model(models, named)

    return publish_versions


@pytest.fixture
def tiny_models(publish: Callable[..., None]) -> None:
    """Publish two versions of the tiny model under its own name."""
    publish("tiny", versions=2)


@pytest.fixture
def server(models: Path, tiny_models: None) -> Iterator[Server]:
    """Return a running server of the tiny model that takes up to 64 images a request."""
    running = Server(ServerConfig(models=models, port=0, max_batch_images=64))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """Return a folder that every user can reach; into ``tmp_path`` only its owner can."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def as_ordinary_user() -> Callable[[], AbstractContextManager[None]]:
    """Return what takes root's rights away for a while; root may read and write everything."""

    @contextmanager
    def ordinary_user() -> Iterator[None]:
        own = os.geteuid()
        if own == 0:
            os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(own)

    return ordinary_user


@pytest.fixture
def file_size_limit() -> Callable[[int], AbstractContextManager[None]]:
    """Return what lets no file grow beyond a size for a while, as if the disk were full."""

    @contextmanager
    def limit(size_bytes: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit
