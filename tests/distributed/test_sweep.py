"""Sweeps by Ray Tune: they learn what those of one machine do, and go on after a kill."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mlpserve.model.folder import versions
from node_cluster import Nodes, running_nodes
from small_data import save_thirds

# One trial is much better than the others, and one fails, as it diverges.
SWEEP = (
    *("--vary", "learning-rate=0.0001|0.0005|0.02|1e38", "--trials", "4", "--parallel", "1"),
    *("--epochs", "3", "--validation-share", "0.2", "--batch-size", "16"),
    *("--log-format", "json", "--checkpoint-every", "0"),
)
CLOCKS = ("elapsed_s", "images_per_s")
TIMEOUT_S = 240


@pytest.fixture(autouse=True)
def no_process_is_left() -> None:
    """Let Ray start processes when it likes; what a run leaves is found at its end."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """Return a cluster with one node that trains."""
    with running_nodes("first") as found:
        yield found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small .npz with three classes that differ in which third of the image is bright."""
    return save_thirds(tmp_path_factory.mktemp("data"))


def command(data: Path, folder: Path, *flags: str) -> list[str]:
    program = [sys.executable, "-m", "mlpserve.trainer", "sweep", "--data", str(data)]
    places = ["--models", str(folder / "models"), "--folder", str(folder / "sweep")]
    return [*program, *places, *SWEEP, *flags]


def run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def told(process: "subprocess.Popen[str]") -> Iterator[dict[str, Any]]:
    """Yield the events that a command tells, as they come."""
    assert process.stdout is not None
    return map(json.loads, process.stdout)


def names(events: Sequence[dict[str, Any]]) -> set[str]:
    return {event["event"] for event in events}


def published(folder: Path) -> dict[str, Any]:
    assert versions(folder / "models", "thirds") == [1]
    found: dict[str, Any] = json.loads(
        (folder / "models" / "thirds" / "1" / "sweep.json").read_text()
    )
    return found


def epochs(document: dict[str, Any]) -> dict[tuple[int, int], dict[str, Any]]:
    """Return what each epoch of each trial found, but for how long it took."""
    return {
        (trial["number"], epoch["epoch"]): {
            name: value for name, value in epoch.items() if name not in CLOCKS
        }
        for trial in document["trials"]
        for epoch in trial["epochs"]
    }


def test_ray_tune_learns_and_chooses_what_one_machine_does(
    nodes: Nodes, data: Path, tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder, flags in ((here, ()), (there, ("--ray-address", nodes.address))):
        done = run(command(data, folder, *flags))
        assert done.returncode == 0, done.stderr
    ours, rays = published(here), published(there)
    assert ours["best"] == rays["best"]
    best = ours["trials"][ours["best"] - 1]
    assert best["values"] == {"learning-rate": "0.02"}
    # Which trials are stopped is up to each scheduler; what a trial learns is not.
    found, expected = epochs(rays), epochs(ours)
    both = found.keys() & expected.keys()
    assert len(both) >= 3 + 1 + 1  # all of the best, and the first of the two that are worse
    assert all(found[epoch] == expected[epoch] for epoch in both)
    failed = [trial for trial in rays["trials"] if trial["state"] == "failed"]
    assert [trial["values"]["learning-rate"] for trial in failed] == ["1e38"]
    assert "try a lower --learning-rate" in failed[0]["failure"]
    assert not (there / "sweep" / "ray").exists()


def test_a_sweep_on_a_cluster_goes_on_after_its_driver_and_the_only_node_were_killed(
    nodes: Nodes, data: Path, tmp_path: Path
) -> None:
    line = command(data, tmp_path, "--ray-address", nodes.address)
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        ended = next(event for event in told(process) if event["event"] == "trial")
        os.kill(process.pid, signal.SIGKILL)
    events: list[dict[str, Any]] = []
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        for event in told(process):
            if event["event"] == "trial-epoch" and "trial-epoch" not in names(events):
                nodes.tell("kill first")
                nodes.tell("add second")
            events.append(event)
    assert process.returncode == 0
    (begin,) = (event for event in events if event["event"] == "sweep")
    assert begin["begun"] >= 1
    again = [
        event["epoch"]
        for event in events
        if event["event"] == "trial-epoch" and event["number"] == ended["number"]
    ]
    assert all(epoch >= ended["epochs"] for epoch in again)
    document = published(tmp_path)
    best = document["trials"][document["best"] - 1]
    assert best["values"] == {"learning-rate": "0.02"}
    assert len(best["epochs"]) == 3


def test_a_cluster_that_is_not_there_is_named_with_what_to_do(data: Path, tmp_path: Path) -> None:
    line = command(data, tmp_path, "--ray-address", "127.0.0.1:9")
    done = run(line)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "mlpserve-train: --ray-address 127.0.0.1:9: no cluster can be reached there: Connection "
        "refused; start one with 'ray start --head', name another, or have one started here with "
        "--ray-address local"
    )
    assert not (tmp_path / "sweep").exists()
