"""Sweeps that are killed, stopped, or lose a worker: nothing is lost."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpserve.model.folder import versions, weights_path

pytestmark = pytest.mark.exhaustive

STOPPED = 75
CLOCKS = ("elapsed_s", "images_per_s")
# A checkpoint after each step, so that a trial can be stopped anywhere.
SWEEP = (
    *("--vary", "learning-rate=0.001..0.02:log", "--vary", "layers=8|16", "--trials", "4"),
    *("--epochs", "18", "--min-epochs", "6", "--batch-size", "32", "--validation-share", "0.2"),
    *("--parallel", "1", "--checkpoint-every", "0", "--log-format", "json"),
)

Event = dict[str, Any]


class Job:
    """A sweep that is started again and again."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.models = folder / "models"
        self.folder = folder / "sweep"
        program = [sys.executable, "-m", "mlpserve.trainer", "sweep", "--data", str(data)]
        places = ["--models", str(self.models), "--folder", str(self.folder)]
        self.command = [*program, *places, *SWEEP]

    def run_until(
        self, is_so: Callable[[Event], bool], end: Callable[[int], None]
    ) -> tuple[int, list[Event]]:
        """Run until something was told, then do something; return the exit code, and all told."""
        told: list[Event] = []
        with subprocess.Popen(
            self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            for event in lines(process):
                told.append(event)
                if is_so(event):
                    end(process.pid)
                    break
            told += lines(process)
        return process.returncode, told

    def run(self) -> list[Event]:
        code, told = self.run_until(lambda _: False, lambda _: None)
        assert code == 0
        return told

    def result(self) -> tuple[Event, dict[str, bytes]]:
        """Return the sweep that was published, but for its times, and the network's arrays."""
        assert versions(self.models, "thirds") == [1]
        path = weights_path(self.models, "thirds", 1)
        document: Event = json.loads(path.with_name("sweep.json").read_text())
        for trial in document["trials"]:
            for epoch in trial["epochs"]:
                for clock in CLOCKS:
                    del epoch[clock]
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name].tobytes() for name in file if name != "metadata"}
        return document, arrays


def lines(process: "subprocess.Popen[str]") -> Iterator[Event]:
    assert process.stdout is not None
    yield from map(json.loads, process.stdout)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def interrupt(pid: int) -> None:
    os.kill(pid, signal.SIGINT)


def is_epoch(number: int, epoch: int) -> Callable[[Event], bool]:
    return lambda event: (
        event["event"] == "trial-epoch" and (event["number"], event["epoch"]) == (number, epoch)
    )


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    job = Job(data, tmp_path_factory.mktemp("undisturbed"))
    job.run()
    return job


def test_a_sweep_that_was_killed_and_stopped_publishes_what_one_does_that_was_not(
    undisturbed: Job, data: Path, tmp_path: Path
) -> None:
    job = Job(data, tmp_path)
    code, _ = job.run_until(is_epoch(2, 2), kill)
    assert code == -signal.SIGKILL
    code, told = job.run_until(is_epoch(3, 0), interrupt)
    assert code == STOPPED
    # Trial 1 had come to its rung, and trial 2 went on from where it was.
    epochs = [(each["number"], each["epoch"]) for each in told if each["event"] == "trial-epoch"]
    assert epochs[0] >= (2, 2)
    assert told[-1]["event"] == "trial"
    assert told[-1]["state"] == "stopped"
    job.run()
    assert job.result() == undisturbed.result()
    assert not (job.folder / "trials").exists()


def test_a_trial_that_takes_its_process_with_it_is_lost_alone(data: Path, tmp_path: Path) -> None:
    def kill_worker(pid: int) -> None:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        (worker,) = (
            child
            for child in children
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
        )
        os.kill(int(worker), signal.SIGKILL)

    job = Job(data, tmp_path)
    code, told = job.run_until(is_epoch(2, 1), kill_worker)
    assert code == 0
    failed = [event for event in told if event["event"] == "trial" and event["state"] == "failed"]
    assert [event["number"] for event in failed] == [2]
    assert failed[0]["failure"] == (
        "its process was killed by SIGKILL, as the system does where memory runs out"
    )
    page = weights_path(job.models, "thirds", 1).with_name("report.html").read_text()
    assert re.search("failed: its process was killed by SIGKILL", page)


def test_a_sweep_that_is_at_work_is_not_disturbed_by_another(data: Path, tmp_path: Path) -> None:
    job = Job(data, tmp_path)
    others: list[subprocess.CompletedProcess[str]] = []

    def try_another(pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)  # or it would be done before
        others.append(
            subprocess.run(job.command, capture_output=True, text=True, check=False, timeout=60)
        )
        os.kill(pid, signal.SIGCONT)

    code, _ = job.run_until(is_epoch(1, 0), try_another)
    assert code == 0
    assert others[0].returncode == 1
    assert "another sweep is at work here; wait for its end" in others[0].stderr


def test_a_folder_that_cannot_be_written_to_is_named(data: Path, tmp_path: Path) -> None:
    job = Job(data, tmp_path)
    job.folder.mkdir()
    limited = (
        "import resource, sys; from mlpserve.trainer.__main__ import main; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300)); sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", limited, *job.command[3:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert f"{job.folder}: cannot be written to: File too large" in done.stderr
