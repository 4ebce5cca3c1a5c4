"""The server for tests of other programs, used as a stranger uses it."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import grpc
import numpy as np
import pytest

from mlpserve.client import (
    Client,
    HealthStatus,
    InvalidRequestError,
    NotFoundError,
    ServerFaultError,
    TimeoutExceededError,
    UnavailableError,
)
from mlpserve.client.testing import FakeServer
from mlpserve.model.network import Network

IMAGES: Final = np.arange(18, dtype=np.uint8).reshape(3, 2, 3)
# A project that has nothing of ours but the installed package.
STRANGERS_SERVICE: Final = '''
from mlpserve.client import Client, UnavailableError


def read_meter(target, images):
    """Return the number that the pictures of digits show, or None where nothing answers."""
    with Client(target) as client:
        try:
            labels = client.predict(images).labels
        except UnavailableError:
            return None
    return int("".join(map(str, labels)))
'''
STRANGERS_TESTS: Final = """
import numpy as np
import pytest

from mlpserve.client import TimeoutExceededError, Client
from service import read_meter

images = np.zeros((3, 28, 28), np.uint8)


def test_the_digits_are_read_from_left_to_right(mlpserve_server):
    mlpserve_server.answer_labels([4, 0, 7])
    assert read_meter(mlpserve_server.target, images) == 407
    [call] = mlpserve_server.calls
    assert call.images.shape == (3, 784)


def test_a_server_that_is_busy_for_a_moment_is_waited_for(mlpserve_server):
    mlpserve_server.fail("UNAVAILABLE", "busy", times=2, retry_after_s=0.01)
    assert read_meter(mlpserve_server.target, images) is not None


def test_a_server_that_is_away_reads_as_nothing(mlpserve_server):
    mlpserve_server.stop()
    assert read_meter(mlpserve_server.target, images) is None


def test_a_slow_server_is_given_up(mlpserve_server):
    mlpserve_server.delay(5)
    with Client(mlpserve_server.target) as client, pytest.raises(TimeoutExceededError):
        client.predict(images, timeout_s=0.1)
"""


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture
def client(fake: FakeServer) -> Iterator[Client]:
    with Client(fake.target) as opened:
        yield opened


def test_a_stranger_tests_a_service_with_the_fixture_alone(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(STRANGERS_SERVICE)
    (tmp_path / "test_service.py").write_text(STRANGERS_TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\npythonpath = .\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    ran = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "4 passed" in ran.stdout


def test_the_plugin_imports_neither_grpc_nor_numpy_until_it_is_used() -> None:
    script = (
        "import sys, mlpserve.pytest_plugin; "
        "print([name for name in ('grpc', 'numpy', 'google.protobuf') if name in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout.strip() == "[]"


def test_a_tiny_network_answers_the_same_each_time(client: Client) -> None:
    found, again = client.predict(IMAGES), client.predict(IMAGES / np.float32(255))
    np.testing.assert_allclose(found.probabilities, again.probabilities, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, rtol=0, atol=1e-5)
    assert (found.model_name, found.model_version) == ("digits", 1)


def test_a_network_of_the_testers_own_answers(network: Network) -> None:
    classes = ("cat", "dog", "bird")
    with (
        FakeServer(network, class_labels=classes, input_shape=(2, 3)) as fake,
        Client(fake.target) as client,
    ):
        found = client.predict(IMAGES)
        expected = network.probabilities(IMAGES.reshape(3, 6).astype(np.float32) / 255)
        np.testing.assert_allclose(found.probabilities, expected, rtol=0, atol=1e-6)
        described = client.model().versions[0]
        assert (described.class_labels, described.input_shape) == (classes, (2, 3))
        with pytest.raises(
            InvalidRequestError, match=r"images.data: expected 1 images of \(2, 3\)"
        ):
            client.predict(np.zeros((1, 5), np.uint8))


def test_fixed_answers_are_given_in_the_order_of_the_images(
    fake: FakeServer, client: Client
) -> None:
    fake.answer_labels([4, 2])
    assert client.predict(IMAGES).labels.tolist() == [4, 2, 4]
    assert [answer.labels.tolist() for answer in client.predict_stream([IMAGES, IMAGES[:1]])] == [
        *([4, 2, 4], [4])
    ]
    fake.answer_probabilities([0.75, 0.25, *[0.0] * 8])
    assert client.predict(IMAGES).probabilities[:, :2].tolist() == [[0.75, 0.25]] * 3
    with pytest.raises(ValueError, match=r"expected 10 of each image.* got shape \(3,\)"):
        fake.answer_probabilities([0.5, 0.25, 0.25])


def test_what_was_asked_is_known(fake: FakeServer) -> None:
    with Client(fake.target, token="secret") as client:  # noqa: S106 - of this test
        client.predict(IMAGES, model="digits", label="canary")
        list(client.predict_stream([IMAGES / np.float32(255)], version=1))
        client.models()
    assert [call.method for call in fake.calls] == ["Predict", "PredictStream", "ListModels"]
    first, second, _ = fake.calls
    np.testing.assert_array_equal(first.images, IMAGES.reshape(3, 6))
    assert (first.model, first.version, first.label) == ("digits", 0, "canary")
    assert first.metadata["authorization"] == "Bearer secret"
    assert second.version == 1
    assert second.images.dtype == np.float32


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("INVALID_ARGUMENT", InvalidRequestError),
        ("NOT_FOUND", NotFoundError),
        (grpc.StatusCode.INTERNAL, ServerFaultError),
    ],
    ids=str,
)
def test_a_failure_is_what_the_test_wants_and_the_call_after_it_is_answered(
    fake: FakeServer, client: Client, status: str, kind: type[Exception]
) -> None:
    fake.fail(status, "because of the test")
    with pytest.raises(kind, match="because of the test"):
        client.predict(IMAGES)
    assert len(client.predict(IMAGES)) == 3


def test_a_refusal_may_say_when_to_try_again(fake: FakeServer, client: Client) -> None:
    fake.fail("UNAVAILABLE", times=5, retry_after_s=0.01)
    with pytest.raises(UnavailableError) as caught:
        client.predict(IMAGES)
    assert caught.value.retry_after_s == 0.01
    assert len(fake.calls) == 5
    fake.fail("UNAVAILABLE", times=1, retry_after_s=0.6)
    started_s = time.monotonic()
    client.predict(IMAGES)
    assert time.monotonic() - started_s > 0.6  # as the client keeps to it


def test_names_that_are_not_served_are_not_found(client: Client) -> None:
    with pytest.raises(NotFoundError, match="model 'others' is not served"):
        client.predict(IMAGES, model="others")
    with pytest.raises(NotFoundError, match="version 9"):
        client.predict(IMAGES, version=9)


def test_a_delay_lets_callers_run_out_of_time(fake: FakeServer, client: Client) -> None:
    fake.delay(30)
    with pytest.raises(TimeoutExceededError):
        client.predict(IMAGES, timeout_s=0.1)
    fake.reset()
    assert len(client.predict(IMAGES)) == 3
    assert len(fake.calls) == 1


def test_it_can_be_stopped_and_started_again_at_its_target(
    fake: FakeServer, client: Client
) -> None:
    client.wait_until_ready(timeout_s=5)
    assert client.health() is HealthStatus.SERVING
    fake.stop()
    with pytest.raises(UnavailableError):
        client.predict(IMAGES)
    fake.start()
    assert len(client.predict(IMAGES)) == 3


def test_clients_that_balance_by_health_use_it(fake: FakeServer) -> None:
    with FakeServer(model="digits") as other, Client(f"ipv4:{fake.target},{other.target}") as both:
        for _ in range(20):
            both.predict(IMAGES)
        assert fake.calls
        assert other.calls
