"""Runs that are killed, stopped or cannot save: what is left, and what becomes of it."""

import io
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpserve.model.folder import versions, weights_path
from warm_parent import WarmParent

TRAINER = (sys.executable, "-m", "mlpserve.trainer")
DYING_TRAINER = (sys.executable, str(Path(__file__).with_name("dying_trainer.py")))
LIMITED_FILES = (
    "import resource, sys; from mlpserve.trainer.__main__ import main; "
    "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); sys.exit(main(sys.argv[1:]))"
)
KILLED = -signal.SIGKILL
STOPPED = 75
# All that a run remembers: moments, a mean of the parameters, the best ones, and dropout's stream.
ADAM = (
    "--layers 12,8 --epochs 10 --batch-size 16 --dropout 0.2 --average-decay 0.9 "
    "--weight-decay 0.01 --label-smoothing 0.1 --validation-share 0.2 --patience 6"
)
MOMENTUM = (
    "--layers 9 --epochs 10 --batch-size 16 --optimizer momentum --learning-rate 0.05 "
    "--schedule cosine --dropout 0.3 --validation-share 0"
)
MATRIX = pytest.mark.exhaustive
TWO_THREADS = f"{ADAM} --threads 2"

Result = tuple[dict[str, Any], dict[str, Any], list[Any]]


def result(models: Path) -> Result:
    """Return the arrays of the only version, what it says of itself, and its history."""
    assert versions(models, "thirds") == [1]
    path = weights_path(models, "thirds", 1)
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name].tobytes() for name in file if name != "metadata"}
        metadata = json.loads(file["metadata"].item())
    del metadata["training"]["created_at"]
    report = path.with_name("report.html").read_text()
    table = report[report.index("Every epoch") :]
    rows = re.findall(r'<tr><th scope="row">(\d+)</th>(.*?)</tr>', table[: table.index("</table>")])
    history = [(epoch, re.findall(r"<td>(.*?)</td>", cells)[:5]) for epoch, cells in rows]
    assert len(history) > 1
    return arrays, metadata, history


@pytest.fixture(scope="module")
def undisturbed(
    warm_trainer: WarmParent, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Result]:
    """Return a function that returns what a run with some flags comes to when left alone."""
    results: dict[str, Result] = {}

    def find(flags: str) -> Result:
        if flags not in results:
            models = tmp_path_factory.mktemp("undisturbed")
            places = ("--data", str(data), "--models", str(models))
            done = warm_trainer.run([*TRAINER, *places, *flags.split()])
            assert done.returncode == 0, done.stderr
            results[flags] = result(models)
        return results[flags]

    return find


class Job:
    """A run with checkpoints that is started again and again."""

    def __init__(self, warm: WarmParent, data: Path, folder: Path, flags: str = ADAM) -> None:
        self._warm = warm
        self.models = folder / "models"
        self.checkpoints = folder / "checkpoints"
        self.arguments = (
            *("--data", str(data), "--models", str(self.models), *flags.split()),
            *("--checkpoint", str(self.checkpoints), "--checkpoint-every", "0"),
        )

    def killed_at(
        self, function: str, lines: int, *more: str
    ) -> "subprocess.CompletedProcess[str]":
        return self.run([*DYING_TRAINER, function, str(lines)], *more)

    def resumed(self, *more: str) -> "subprocess.CompletedProcess[str]":
        return self.run(TRAINER, "--resume", *more)

    def run(self, command: Sequence[str], *more: str) -> "subprocess.CompletedProcess[str]":
        return self._warm.run([*command, *self.arguments, *more], timeout_s=60)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.checkpoints.iterdir())


@pytest.fixture
def job(warm_trainer: WarmParent, data: Path, tmp_path: Path) -> Job:
    return Job(warm_trainer, data, tmp_path)


@pytest.fixture(scope="module")
def killed_once(
    warm_trainer: WarmParent, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return the folder of a job that was killed in an early epoch; not to be changed."""
    folder = tmp_path_factory.mktemp("killed")
    assert Job(warm_trainer, data, folder).killed_at("_advance", 5 * 25).returncode == KILLED
    return folder


@pytest.fixture
def left(killed_once: Path, job: Job, tmp_path: Path) -> Job:
    """Return a job that was killed and has left two checkpoints."""
    shutil.copytree(killed_once, tmp_path, dirs_exist_ok=True)
    assert len(job.files()) == 2
    return job


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(ADAM, id="adam"),
        pytest.param(MOMENTUM, id="momentum", marks=pytest.mark.exhaustive),
        pytest.param(TWO_THREADS, id="two threads", marks=pytest.mark.exhaustive),
    ],
)
@pytest.mark.parametrize(
    "place",
    [
        # The first step, before there is any checkpoint.
        pytest.param(("_update", 1), id="_update", marks=MATRIX),
        ("_advance", 97),  # somewhere in an epoch
        # An epoch's last step is done, and not what comes of it.
        pytest.param(("_end_epoch", 25), id="_end_epoch", marks=MATRIX),
        ("write_arrays", 150),  # a checkpoint is being written
        # It has its name.
        pytest.param(("sync_folder", 40), id="sync_folder", marks=MATRIX),
        # An older one is about to go.
        pytest.param(("_remove_all_but", 60), id="_remove_all_but", marks=MATRIX),
        # The training is over.
        pytest.param(("candidate", 1), id="candidate", marks=MATRIX),
        ("remove", 1),  # the version is published
    ],
    ids=lambda place: place[0],
)
def test_a_run_that_is_killed_and_resumed_publishes_the_bits_of_one_that_never_was(
    warm_trainer: WarmParent,
    data: Path,
    tmp_path: Path,
    undisturbed: Callable[[str], Result],
    *,
    flags: str,
    place: tuple[str, int],
) -> None:
    job = Job(warm_trainer, data, tmp_path, flags)
    killed = job.killed_at(*place)
    assert killed.returncode == KILLED, killed.stderr
    assert versions(job.models, "thirds") == ([1] if place[0] == "remove" else [])
    if place[0] == "write_arrays":
        assert any(name.startswith(".unfinished") for name in job.files())
    done = job.resumed()
    assert done.returncode == 0, done.stderr
    assert ("resumed from" in done.stdout) == (place[0] != "_update")
    assert result(job.models) == undisturbed(flags)
    assert job.files() == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("flags", [ADAM, TWO_THREADS], ids=["one thread", "two threads"])
@pytest.mark.parametrize("line", ["data", "epoch 1/", "epoch 4/", "epoch 10/", "trained"])
def test_a_run_that_somebody_kills_after_a_line_of_its_output_is_resumed_to_the_same_bits(
    warm_trainer: WarmParent,
    data: Path,
    tmp_path: Path,
    undisturbed: Callable[[str], Result],
    *,
    flags: str,
    line: str,
) -> None:
    job = Job(warm_trainer, data, tmp_path, flags)
    with subprocess.Popen([*TRAINER, *job.arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith(line):
            pass
        process.kill()
    if not versions(job.models, "thirds"):  # who was fast enough to publish has nothing to resume
        done = job.resumed()
        assert done.returncode == 0, done.stderr
    assert result(job.models) == undisturbed(flags)


@pytest.mark.exhaustive
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(
    job: Job, undisturbed: Callable[[str], Result]
) -> None:
    lives = 1
    assert job.killed_at("write_arrays", 200).returncode == KILLED
    # Each life is ended while it writes a checkpoint, not long after it has written one.
    while (code := job.killed_at("write_arrays", 200, "--resume").returncode) == KILLED:
        lives += 1
        assert lives < 60
    assert code == 0
    assert lives > 3
    assert result(job.models) == undisturbed(ADAM)


def test_the_history_is_that_of_the_whole_run(
    left: Job, undisturbed: Callable[[str], Result]
) -> None:
    done = left.resumed("--log-format", "json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    epochs = [event["epoch"] for event in events if event["event"] == "epoch"]
    assert 0 < epochs[0] < len(undisturbed(ADAM)[2])  # only this life's own
    assert result(left.models)[2] == undisturbed(ADAM)[2]
    (begin,) = (event for event in events if event["event"] == "begin")
    (resumed,) = (event for event in events if event["event"] == "resumed")
    assert begin["steps_done"] == resumed["steps"] > 10


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.exhaustive),
        pytest.param(signal.SIGHUP, marks=pytest.mark.exhaustive),
    ],
)
def test_a_run_with_checkpoints_that_is_told_to_stop_saves_and_says_so_by_its_code(
    warm_trainer: WarmParent, data: Path, tmp_path: Path, number: signal.Signals
) -> None:
    job = Job(warm_trainer, data, tmp_path, "--epochs 1000000")
    arguments = [*job.arguments[:-1], "1000"]  # so the signal alone makes a checkpoint
    for life in range(2):
        with subprocess.Popen(
            [*TRAINER, *arguments, "--resume"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            while not process.stdout.readline().startswith("epoch"):
                pass
            process.send_signal(number)
            output, errors = process.communicate(timeout=30)
        assert process.returncode == STOPPED
        assert errors == "mlpserve-train: stopped; the same with --resume goes on\n"
        assert "trained" not in output
        assert len(job.files()) == life + 1
    assert versions(job.models, "thirds") == []


def test_a_run_under_nohup_outlives_its_terminal(job: Job) -> None:
    ignoring = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh", *TRAINER, *job.arguments)
    with subprocess.Popen(
        [*ignoring, "--epochs", "1000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for _ in range(3):  # epochs go on after the signal
            while not process.stdout.readline().startswith("epoch"):
                pass
            process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == STOPPED


def test_a_stop_while_nothing_is_trained_yet_has_the_same_code(job: Job, data: Path) -> None:
    program = (
        "import os, signal, sys; "
        "from mlpserve.trainer.__main__ import main; "
        "sys.addaudithook(lambda event, arguments: event == 'open' and "
        f"arguments[0] == {str(data)!r} and os.kill(os.getpid(), signal.SIGTERM)); "
        "sys.exit(main(sys.argv[1:]))"
    )
    done = job.run((sys.executable, "-c", program))
    assert (done.returncode, done.stdout) == (STOPPED, "")
    assert done.stderr == "mlpserve-train: stopped; the same with --resume goes on\n"


def test_a_second_signal_ends_a_run_at_once(warm_trainer: WarmParent, tmp_path: Path) -> None:
    # A step of this takes many seconds, and a checkpoint is written between steps.
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (20_000, 784), np.uint8), rng.integers(0, 10, 20_000)
    path = tmp_path / "wide.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images[:10], y_test=labels[:10])
    job = Job(
        warm_trainer, path, tmp_path, "--layers 4096 --batch-size 0 --log-format json --threads 1"
    )
    with subprocess.Popen(
        [*TRAINER, *job.arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while '"begin"' not in process.stdout.readline():
            pass
        # Two of a kind could come as one.
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
    assert process.returncode in (130, 143)
    assert errors in ("mlpserve-train: interrupted\n", "mlpserve-train: terminated\n")
    assert output == ""
    assert job.files() == []


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[: len(content) // 2],
    "bit flipped": flipped,
    "empty": lambda content: b"",  # noqa: ARG005 - as the others have it
    "foreign": lambda content: npz(a=np.zeros(3)),  # noqa: ARG005
    "no JSON": lambda content: npz(checkpoint=np.array("{")),  # noqa: ARG005
    "other JSON": lambda content: npz(checkpoint=np.array("{}")),  # noqa: ARG005
    "other format": lambda content: npz(checkpoint=np.array('{"format_version": 2}')),  # noqa: ARG005
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_where_the_newest_checkpoint_is_damaged_the_one_before_it_is_taken_and_said(
    left: Job, undisturbed: Callable[[str], Result], damage: Callable[[bytes], bytes]
) -> None:
    older, newest = (left.checkpoints / name for name in left.files())
    newest.write_bytes(damage(newest.read_bytes()))
    done = left.resumed()
    assert done.returncode == 0, done.stderr
    warning = f"WARNING: passed over a checkpoint that cannot be read: {newest}: "
    assert done.stderr.startswith(warning)
    assert f"resumed from {older}, after " in done.stdout
    assert result(left.models) == undisturbed(ADAM)


def test_a_damaged_checkpoint_does_not_count_as_the_one_before(left: Job) -> None:
    older, newest = (left.checkpoints / name for name in left.files())
    damaged = left.checkpoints / "checkpoint-000000000099.npz"
    newest.rename(damaged).write_bytes(b"")
    assert left.killed_at("_advance", 5 * 4, "--resume").returncode == KILLED
    assert len(left.files()) == 2
    assert damaged.name not in left.files()
    assert older.name not in left.files()


def test_where_all_checkpoints_are_damaged_the_run_says_so_and_touches_none(left: Job) -> None:
    for name in left.files():
        (left.checkpoints / name).write_bytes(b"nothing")
    before = left.files()
    done = left.resumed()
    assert done.returncode == 1
    assert done.stderr.startswith(
        "mlpserve-train: no checkpoint can be read; remove them to begin anew: "
    )
    for name in before:
        assert f"{left.checkpoints / name}: expected an .npz file, but it is damaged" in done.stderr
    assert (left.files(), done.stdout.count("epoch")) == (before, 0)


@pytest.mark.parametrize(
    ("flags", "difference"),
    [
        (["--seed", "1"], "expected seed 1, as now, got 0"),
        (["--layers", "12,9"], "expected hidden sizes [12, 9], as now, got [12, 8]"),
        (["--dropout", "0"], "expected dropout 0.0, as now, got 0.2"),
        (["--threads", "2"], "expected threads 2, as now, got 1"),
        (["--engine", "numba"], "expected engine numba, as now, got numpy"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_checkpoint_of_other_flags_is_refused_with_what_differs(
    left: Job, flags: list[str], difference: str
) -> None:
    before = left.files()
    done = left.resumed(*flags)
    assert done.returncode == 1
    assert done.stderr == (
        f"mlpserve-train: {left.checkpoints / before[1]}: it is of another run: {difference}; "
        "give the flags and the data of that run, or another --checkpoint folder\n"
    )
    assert (left.files(), done.stdout.count("epoch")) == (before, 0)


def test_a_checkpoint_of_other_data_is_refused(left: Job, data: Path, tmp_path: Path) -> None:
    with np.load(data) as file:
        arrays = dict(file)
    arrays["x_train"][0, 0, 0] ^= 1
    np.savez(tmp_path / "thirds.npz", **arrays)
    done = left.resumed("--data", str(tmp_path / "thirds.npz"))
    assert done.returncode == 1
    assert "it is of another run: expected data digest sha256:" in done.stderr


def test_a_checkpoint_that_was_left_is_not_overlooked(left: Job) -> None:
    before = left.files()
    done = left.run(TRAINER)
    assert done.returncode == 1
    assert done.stderr == (
        f"mlpserve-train: {left.checkpoints / before[1]}: a run that is not finished left it; "
        "go on with --resume, or remove it\n"
    )
    assert left.files() == before


def test_two_runs_do_not_share_a_folder(job: Job) -> None:
    with subprocess.Popen(
        [*TRAINER, *job.arguments, "--epochs", "1000000"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("epoch"):
            pass
        done = job.resumed()
        process.kill()
    assert done.returncode == 1
    assert f"{job.checkpoints}: another run writes its checkpoints here" in done.stderr


@pytest.mark.parametrize(
    ("place", "cause"),
    [
        ("file", "File exists"),
        ("file/folder", "Not a directory"),
        ("a" * 300, "File name too long"),
    ],
    ids=["file", "below a file", "long name"],
)
def test_a_folder_that_cannot_be_written_is_found_out_before_training(
    job: Job, tmp_path: Path, place: str, cause: str
) -> None:
    (tmp_path / "file").touch()
    done = job.run(TRAINER, "--checkpoint", str(tmp_path / place))
    assert done.returncode == 1
    assert done.stderr == (
        f"mlpserve-train: {tmp_path / place}: a checkpoint cannot be written: {cause}\n"
    )
    assert "epoch" not in done.stdout


def test_a_full_disk_ends_the_run_and_leaves_the_checkpoints_that_are_there(
    left: Job, undisturbed: Callable[[str], Result]
) -> None:
    before = left.files()
    done = left.run((sys.executable, "-c", LIMITED_FILES), "--resume")
    assert done.returncode == 1
    assert done.stderr == (
        f"mlpserve-train: {left.checkpoints}: a checkpoint cannot be written: File too large\n"
    )
    assert left.files() == before
    assert left.resumed().returncode == 0
    assert result(left.models) == undisturbed(ADAM)


def test_a_run_to_its_end_leaves_no_checkpoint_and_the_same_bits(
    job: Job, undisturbed: Callable[[str], Result]
) -> None:
    # With nothing to resume, --resume begins anew: so one command line serves each start.
    assert job.resumed().returncode == 0
    assert job.files() == []
    assert result(job.models) == undisturbed(ADAM)
