"""``mlpserve-predict --engine ray``: what one machine writes, by a cluster of several nodes."""

import logging
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image

from mlpserve.client import ClientError
from mlpserve.client.predict.ray_cluster import check_nodes, connected, fitting_workers
from node_cluster import Nodes, running_nodes
from ray_client_proxy import deaf_proxy

Done = subprocess.CompletedProcess[str]
IMAGES = np.random.default_rng(7).integers(0, 256, (3000, 2, 3), np.uint8)
LIMIT_S = 240.0
# A driver by ``ray://``, and how long each of its attempts may take.
CONNECTING = """
import logging, sys
import ray
from mlpserve.model.ray_client import connect_client, disconnect_client
limits_s = [float(limit) for limit in sys.argv[2:]]
connect_client(ray, sys.argv[1], limits_s, logging_level=logging.ERROR)
assert sum(node["Alive"] for node in ray.nodes()) >= 3
disconnect_client(ray)
assert not ray.is_initialized()
"""


@pytest.fixture(autouse=True)
def no_process_is_left() -> None:
    """Let Ray start processes when it likes; what a run leaves is found at its end."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with running_nodes("first", "second") as found:
        yield found


@pytest.fixture
def command(models: Path, publish: Callable[..., None]) -> list[str]:
    """Return the command with the tiny model, a thousand rows a part."""
    publish("tiny", versions=1)
    program = [sys.executable, "-m", "mlpserve.client", "--models", str(models)]
    return [*program, "--rows-per-part", "1024"]


def run(command: list[str], folder: Path) -> Done:
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def save_pictures(folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        Image.fromarray(IMAGES[number]).save(folder / f"{number}.png")


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    """Return an array, a file that is none, a table in row groups, one of text, and pictures."""
    np.save(tmp_path / "a.npy", IMAGES)
    (tmp_path / "no.npy").write_bytes(b"\x93NUMPY, it says")
    column = pa.array(IMAGES.reshape(3000, 6).tolist(), pa.list_(pa.uint8()))
    pq.write_table(pa.table({"image": column}), tmp_path / "t.parquet", row_group_size=700)
    lines = [",".join(map(str, image.reshape(-1))) for image in IMAGES[:50]]
    (tmp_path / "c.csv").write_text("\n".join(["a,b,c,d,e,f", *lines]))
    save_pictures(tmp_path / "pictures", 20)
    return ["a.npy", "no.npy", "t.parquet", "c.csv", "pictures"]


@pytest.mark.parametrize("is_client", [False, True], ids=["direct", "ray-client"])
def test_a_cluster_writes_to_the_byte_what_one_machine_writes(
    nodes: Nodes, command: list[str], inputs: list[str], tmp_path: Path, *, is_client: bool
) -> None:
    one = run([*command, *inputs, "--output", "one/"], tmp_path)
    address = nodes.client_address if is_client else nodes.address
    engine = ["--engine", "ray", "--ray-address", address]
    many = run([*command, *inputs, *engine, "--output", "many/"], tmp_path)
    assert (one.returncode, many.returncode) == (3, 3), one.stderr + many.stderr
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    assert len(contents(tmp_path / "one")) == 13  # with _run.json and _manifest.json
    for done in (one, many):
        assert "6,070 rows by tiny version 1" in done.stderr
        assert "no.npy: expected an .npy file" in done.stderr
        assert "1 of 24 inputs could not be read" in done.stderr


def test_a_driver_and_a_node_that_are_killed_lose_nothing_and_nothing_is_done_twice(
    nodes: Nodes, command: list[str], tmp_path: Path
) -> None:
    for number in range(60):
        np.save(tmp_path / f"{number}.npy", IMAGES)
    job = [*command, *(f"{number}.npy" for number in range(60)), "--output"]
    one = run([*job, "one/"], tmp_path)
    assert one.returncode == 0, one.stderr
    folder = tmp_path / "many"
    cluster_job = [*job, "many/", "--engine", "ray", "--ray-address", nodes.address]

    def parts() -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in folder.glob("part-*")}

    with started(cluster_job, tmp_path) as driver:
        wait_until(lambda: len(parts()) >= 10, driver)
        driver.send_signal(signal.SIGKILL)
        driver.wait(LIMIT_S)
    kept = settled(parts)
    assert 10 <= len(kept) < 180
    nodes.tell("add lost")
    with started([*cluster_job, "--resume"], tmp_path) as driver:
        wait_until(lambda: len(parts()) >= len(kept) + 20, driver)
        nodes.tell("kill lost")
        _, said = driver.communicate(timeout=LIMIT_S)
    assert driver.returncode == 0, said
    assert "180,000 rows by tiny version 1" in said
    assert {name: number for name, number in parts().items() if name in kept} == kept
    assert contents(folder) == contents(tmp_path / "one")


@contextmanager
def started(command: list[str], folder: Path) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(is_so: Callable[[], bool], driver: "subprocess.Popen[str]") -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not is_so():
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def settled(parts: Callable[[], dict[str, int]]) -> dict[str, int]:
    """Return the parts once no worker of a driver that was killed writes any more."""
    deadline_s = time.monotonic() + LIMIT_S
    before, quiet_since_s = parts(), time.monotonic()
    while time.monotonic() - quiet_since_s < 3:
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
        if (now := parts()) != before:
            before, quiet_since_s = now, time.monotonic()
    return before


@pytest.fixture
def session(nodes: Nodes) -> Iterator[Any]:
    with connected(nodes.address) as found:
        yield found


def test_a_node_that_cannot_do_the_job_is_named_before_it_begins(
    nodes: Nodes, session: Any, tmp_path: Path
) -> None:
    alive = [node for node in session.nodes() if node["Alive"]]
    check_nodes(session, alive, [str(tmp_path)])
    with pytest.raises(ClientError, match=f"{tmp_path}/none is not there; inputs and output have"):
        check_nodes(session, alive, [str(tmp_path / "none")])
    with pytest.raises(ClientError, match="--ray-cpus 7: no node of the cluster has so many"):
        fitting_workers(alive, 7)
    assert fitting_workers(alive, 0.5) == 4


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"mlpserve-9.9.dist-info/METADATA": "Name: mlpserve\nVersion: 9.9\n"},
            r"expected mlpserve \S+, which runs here, got 9\.9; install the same on all nodes",
        ),
        (
            {"mlpserve/__init__.py": ""},
            r"mlpserve\.client is not installed there; install what runs here: pip install",
        ),
    ],
    ids=["another-release", "no-package"],
)
def test_a_worker_without_the_right_package_is_named(
    nodes: Nodes, tmp_path: Path, files: dict[str, str], message: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(content)
    ray.init(
        nodes.address,
        runtime_env={"env_vars": {"PYTHONPATH": str(tmp_path)}},
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    try:
        with pytest.raises(ClientError, match=rf"^node \S+ of the cluster: {message}"):
            check_nodes(ray, ray.nodes()[:1], [])
    finally:
        ray.shutdown()


@pytest.mark.parametrize(
    ("unanswered", "limits", "said"),
    [(1, ("5", f"{LIMIT_S}"), ""), (2, ("1", "2"), "it did not start within 2 s")],
    ids=["another-starts", "none-starts"],
)
def test_a_driver_whose_server_does_not_start_has_another_started(
    nodes: Nodes, tmp_path: Path, unanswered: int, limits: tuple[str, ...], said: str
) -> None:
    target = nodes.client_address.removeprefix("ray://")
    with deaf_proxy(target, unanswered=unanswered) as address:
        done = run([sys.executable, "-c", CONNECTING, address, *limits], tmp_path)
    assert done.returncode == bool(said), done.stderr
    assert said in done.stderr


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "--ray-address 127.0.0.1:1: no cluster can be reached there: .*refused"),
        ("ray://127.0.0.1:1", "no cluster can be reached there: .*refused; start one with 'ray st"),
        (
            "somewhere",
            "--ray-address: expected ray://HOST:PORT, HOST:PORT, auto or local, got",
        ),
    ],
)
def test_no_cluster_at_the_address_is_said_and_leaves_nothing(
    command: list[str], inputs: list[str], tmp_path: Path, address: str, message: str
) -> None:
    job = [*command, "a.npy", "--output", "many/"]
    done = run([*job, "--engine", "ray", "--ray-address", address], tmp_path)
    assert done.returncode == 1
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert contents(tmp_path / "many") == {}


def test_a_job_waits_for_another_node_where_the_last_is_lost_and_ends_where_its_head_is(
    nodes: Nodes, command: list[str], tmp_path: Path
) -> None:
    for number in range(60):
        np.save(tmp_path / f"{number}.npy", IMAGES)
    job = [*command, *(f"{number}.npy" for number in range(60)), "--output", "many/"]
    folder = tmp_path / "many"
    with started([*job, "--engine", "ray", "--ray-address", nodes.address], tmp_path) as driver:
        wait_until(lambda: len(list(folder.glob("part-*"))) >= 3, driver)
        nodes.tell("kill first")
        nodes.tell("kill second")
        assert driver.stderr is not None
        assert any("no node of the cluster has 1 CPUs" in line for line in driver.stderr)
        before = len(list(folder.glob("part-*")))
        nodes.tell("add third")
        wait_until(lambda: len(list(folder.glob("part-*"))) > before, driver)
        nodes.kill_coordinator()
        _, said = driver.communicate(timeout=LIMIT_S)
    assert driver.returncode == 1
    assert re.search("the cluster was lost: .*; --resume goes on", said), said
    assert "Traceback" not in said
