"""Prometheus reads our metrics, and each query of the dashboard finds something in them."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest

from mlpserve.client import Client, InvalidRequestError
from ports import free_port

REPOSITORY = Path(__file__).parents[3]
DASHBOARD = REPOSITORY / "monitoring" / "grafana" / "dashboards" / "mlpserve.json"
TIMEOUT_S = 60.0
PAUSE_S = 0.2  # it looks once a second
WORKERS = "2"


@pytest.fixture(scope="module")
def tools() -> Path:
    """Return the folder with prometheus and promtool."""
    found = shutil.which("promtool")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("CI must run this with Prometheus: apt-get install prometheus")
        pytest.skip("prometheus is not installed")
    return Path(found).parent


@contextmanager
def running_server(models: Path) -> Iterator[tuple[str, str]]:
    """Start a server; yield its address, and where it tells its metrics."""
    flags = ["--port", "0", "--metrics-port", "0", "--workers", WORKERS]
    command = [sys.executable, "-m", "mlpserve.server", "--models", str(models), *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        log = process.stderr.readline() + process.stderr.readline()
        ready = re.search(r"ready: .* on (\S+)$", log, re.MULTILINE)
        told = re.search(r"metrics: http://(\S+)/metrics$", log, re.MULTILINE)
        assert ready is not None, log
        assert told is not None, log
        yield ready[1], told[1]
        process.terminate()


@contextmanager
def load(address: str) -> Iterator[None]:
    """Send requests, good ones and bad ones, while the block runs."""
    is_over = Event()

    def send() -> None:
        with Client(address) as client:
            while not is_over.wait(0.01):
                client.predict(np.zeros((20, 6), np.uint8))
                with pytest.raises(InvalidRequestError):
                    client.predict(np.zeros((1, 7), np.uint8))

    sender = Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        is_over.set()
        sender.join(TIMEOUT_S)


@contextmanager
def prometheus(tools: Path, folder: Path, target: str) -> Iterator[Callable[[str], Any]]:
    """Start Prometheus, scraping one target each second; yield what runs a query."""
    port = free_port()
    config = folder / "prometheus.yml"
    scrape = {"job_name": "mlpserve", "static_configs": [{"targets": [target]}]}
    # JSON is YAML as well.
    config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [scrape]}))
    command = [
        str(tools / "prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]

    def found(query: str) -> Any:
        asked = urllib.parse.urlencode({"query": query})
        url = f"http://127.0.0.1:{port}/api/v1/query?{asked}"
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
                return json.load(response)["data"]["result"]
        except OSError:  # it is starting
            return []

    with (folder / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            yield found
        finally:
            process.terminate()


def dashboard_queries() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return [expression.replace("$__rate_interval", "10s") for expression in expressions]


@pytest.mark.exhaustive
def test_each_query_of_the_dashboard_finds_numbers_in_the_metrics_of_a_server(
    tools: Path, models: Path, tiny_models: None, tmp_path: Path
) -> None:
    queries = dashboard_queries()
    assert len(queries) > 10
    with (
        running_server(models) as (address, target),
        load(address),
        prometheus(tools, tmp_path, target) as found,
    ):
        without_numbers = set(queries)
        deadline_s = time.monotonic() + TIMEOUT_S
        while without_numbers and time.monotonic() < deadline_s:
            without_numbers = {query for query in without_numbers if not has_numbers(found(query))}
            Event().wait(PAUSE_S)
    assert without_numbers == set()


def has_numbers(result: Any) -> bool:
    return bool(result) and all(sample["value"][1] != "NaN" for sample in result)


@pytest.mark.exhaustive
def test_prometheus_itself_finds_no_fault_with_the_page_or_with_its_settings(
    tools: Path, models: Path, tiny_models: None
) -> None:
    with (
        running_server(models) as (address, target),
        load(address),
        urllib.request.urlopen(f"http://{target}/metrics", timeout=TIMEOUT_S) as response,
    ):
        page = response.read()
    check(tools, "check", "metrics", given=page)
    check(tools, "check", "config", "--syntax-only", REPOSITORY / "monitoring" / "prometheus.yml")


def check(tools: Path, *arguments: object, given: bytes = b"") -> None:
    command = [str(tools / "promtool"), *map(str, arguments)]
    done = subprocess.run(command, input=given, capture_output=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done
