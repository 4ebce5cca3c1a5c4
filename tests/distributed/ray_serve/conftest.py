"""An application on Ray Serve, with the tiny model, that all tests here share."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.model.versions import publish
from mlpserve.model.weights import Model
from ray_application import RayServer, ray_server, wait_until


@pytest.fixture(autouse=True)
def no_process_is_left() -> None:
    """Let Ray start processes when it likes; what a run leaves is found at its end."""


@pytest.fixture
def images() -> npt.NDArray[np.uint8]:
    """Return five images of 2 x 3, where a file of tests has no others."""
    return np.random.default_rng(8).integers(0, 256, (5, 2, 3), np.uint8)


@pytest.fixture(scope="package")
def first_answer() -> list[str]:
    """Return what was answered before there was a model, once there is a server."""
    return []


@pytest.fixture(scope="package")
def server(model: Model, scored_model: Model, first_answer: list[str]) -> Iterator[RayServer]:
    """Return an application that takes up to 64 images a request, and has one to three replicas.

    Version 1 has no out-of-distribution score, version 2 has one.
    """
    with (
        tempfile.TemporaryDirectory(prefix="ray-") as folder,  # its paths are short
        ray_server(
            Path(folder),
            Path(folder, "models"),
            max_batch_images=64,
            max_batch_rows=128,
            num_cpus=0.5,
            max_replicas=3,
            target_ongoing_requests=2,
            upscale_delay_s=0,
            downscale_delay_s=1,
            look_back_period_s=11,
        ) as started,
    ):
        wait_until(lambda: "ready" not in _noted(first_answer, started), "no proxy answers")
        publish(started.models, model)
        publish(started.models, scored_model)
        wait_until(lambda: started.answer() == "OK: tiny", "the model is not served")
        yield started


def _noted(answers: list[str], started: RayServer) -> str:
    answers[:] = [started.answer()]
    return answers[0]
