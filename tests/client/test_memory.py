"""The memory of large calls: kept from one to the next, and no more of it than needed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlpserve.server.server import Server
from mlpserve.server.settings.config import ServerConfig

# A program that never had a large array before its images, whose calls would pay in full.
PROGRAM = """
import json, resource, sys
from mlpserve.client import Client
import numpy as np
images = np.zeros((60_000, 6), np.float32)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
with Client(sys.argv[1]) as client:
    for _ in range(5):
        client.predict(images, max_images_per_request=60_000)
    before = faults()
    for _ in range(20):
        client.predict(images, max_images_per_request=60_000)
    print(json.dumps((faults() - before) / 20))
"""


@pytest.fixture
def roomy_server(models: Path, tiny_models: None) -> Iterator[Server]:
    """Return a server of the tiny model that takes as many images as make a large message."""
    running = Server(ServerConfig(models=models, port=0, max_batch_images=100_000))
    running.start()
    yield running
    running.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="counts faults as Linux does, with glibc")
def test_a_large_call_maps_no_memory_anew(roomy_server: Server) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, roomy_server.address],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    # A request of 1.4 MB is 350 pages, and gRPC's copy of it as many.
    assert json.loads(done.stdout) < 100
