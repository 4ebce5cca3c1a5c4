"""A server whose models are in an object store."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpserve.client import Client
from mlpserve.server.server import Server
from mlpserve.server.settings.config import ServerConfig
from s3_server import running_s3, s3, upload

__all__ = ["running_s3", "s3", "upload"]

URL = "s3://bucket/models"
IMAGE = np.zeros((1, 6), np.uint8)
TIMEOUT_S = 30.0


@pytest.mark.slow  # the library tries again for some seconds
def test_a_server_follows_a_bucket_and_goes_on_serving_without_it(
    s3: Any,
    upload: Callable[[], None],
    cache: Path,
    publish: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish("tiny", versions=1)
    upload()
    server = Server(ServerConfig(models=URL, cache=cache, store_period_s=0.1, port=0))
    server.start()
    with Client(f"localhost:{server.port}") as client:
        assert client.predict(IMAGE).model_version == 1
        publish("tiny", versions=1)
        upload()
        wait_until(lambda: client.predict(IMAGE).model_version == 2)
        s3.stop()
        wait_until(lambda: "cannot be listed" in caplog.text)
        assert client.predict(IMAGE).model_version == 2
        s3.start()
    server.stop()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline_s


@pytest.mark.slow  # several processes
def test_several_workers_serve_a_bucket_that_is_empty_at_first(
    s3: Any, upload: Callable[[], None], tmp_path: Path, publish: Callable[..., None]
) -> None:
    command = [sys.executable, "-m", "mlpserve.server", "--port", "0", "--workers", "2"]
    flags = ["--models", URL, "--cache", str(tmp_path / "cache"), "--store-period-s", "0.1"]
    variables = os.environ | {"FSSPEC_S3_ENDPOINT_URL": s3.url}
    with subprocess.Popen(
        [*command, *flags], env=variables, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        found = None
        while found is None:
            line = process.stderr.readline()
            assert line
            found = re.search(rf"listening on (\S+), but {URL} has no ", line)
        publish("tiny", versions=1)
        upload()
        with Client(found[1], timeout_s=TIMEOUT_S) as client:
            wait_until(lambda: bool(client.models()))
            assert client.predict(IMAGE).model_version == 1
        process.terminate()
        process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_running_server_shows_no_secret_of_its_store(
    run_server: Callable[..., AbstractContextManager[Any]], tmp_path: Path, workers: str
) -> None:
    models = ("--models", "ftp://somebody:geheim@127.0.0.1:1/models?sig=geheim")
    flags = ("--cache", str(tmp_path), "--log-level", "debug", "--workers", workers)
    with run_server(*models, *flags) as server:
        server.stop()
        said = "".join(server.lines)
    assert "ftp://***@127.0.0.1:1/models?***" in said
    assert "geheim" not in said
    assert "somebody" not in said
