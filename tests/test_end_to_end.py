"""The whole path as its users run it: train, publish, serve, predict; on the real MNIST."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from threadpoolctl import threadpool_limits

from mlpserve.client import Client
from mlpserve.datasets import load_test_split
from mlpserve.model.folder import weights_path
from mlpserve.model.weights import Model, load_model

COUNT = 300  # images in one request


def command(part: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"mlpserve.{part}", *map(str, arguments)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, mnist_folder: Path) -> Path:
    """Return the models folder after one short training."""
    folder = tmp_path_factory.mktemp("models")
    flags = ("--data", "mnist", "--data-dir", mnist_folder, "--recipe", "fast", "--epochs", 1)
    subprocess.run(
        command("trainer", "--models", folder, *flags), check=True, timeout=120, capture_output=True
    )
    return folder


@pytest.fixture(scope="module")
def target(models: Path) -> Iterator[str]:
    """Return where a server of that folder answers."""
    serve = command("server", "--models", models, "--port", 0)
    with subprocess.Popen(serve, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            ready = re.search(r"ready: serving .* on (\S+)$", process.stderr.readline())
            assert ready is not None
            yield ready[1]
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.fixture(scope="module")
def model(models: Path) -> Model:
    """Return what was published, read from its file."""
    return load_model(weights_path(models, "mnist", 1))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_client_gets_what_the_published_network_says_in_process(
    target: str, model: Model, mnist_folder: Path, dtype: str
) -> None:
    images: npt.NDArray[Any] = load_test_split("mnist", data_dir=mnist_folder).images[:COUNT]
    if dtype == "float32":
        images = images / np.float32(255)
    with Client(target) as client:
        found = client.predict(images)
    with threadpool_limits(1):
        expected = model.network.probabilities(model.metadata.input.scale(images))
    np.testing.assert_allclose(found.probabilities, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found.labels, expected.argmax(axis=1))
    assert found.probabilities.shape == (COUNT, 10)
    assert (found.model_name, found.model_version) == ("mnist", 1)


def test_the_client_describes_what_was_trained(target: str, model: Model) -> None:
    with Client(target) as client:
        (version,) = client.model().versions
    assert version.layer_sizes == model.network.layer_sizes
    assert version.input_shape == model.metadata.input.shape
    assert version.training.data_name == "mnist"
    assert version.training.test_accuracy == model.metadata.training.test_accuracy
    assert version.training.created_at == model.metadata.training.created_at


@pytest.mark.parametrize("data", ["mnist", "auto"])
def test_the_command_finds_the_accuracy_that_the_trainer_found(
    target: str, model: Model, mnist_folder: Path, data: str
) -> None:
    flags = ("--target", target, "--data", data, "--data-dir", mnist_folder)
    done = subprocess.run(
        command("client", *flags), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    accuracy = model.metadata.training.test_accuracy
    assert accuracy > 0.9
    assert (
        f"mnist version 1 on the test images of mnist: accuracy {100 * accuracy:.2f} % "
        f"({round(10_000 * accuracy)} of 10000), "
    ) in done.stdout
