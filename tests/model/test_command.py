"""``mlpserve-models`` as its users run it: a process, its two outputs, its exit code."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from commands import Done, lines, refusal
from mlpserve.model.__main__ import main
from mlpserve.model.folder import versions
from mlpserve.model.labels import Label, read_labels, set_label
from mlpserve.model.versions import publish
from mlpserve.model.weights import Model

Run = Callable[..., Done]

COMMAND = [sys.executable, "-W", "error", "-m", "mlpserve.model"]


def wait_until_open(process: subprocess.Popen[str], path: Path) -> None:
    """Wait until a process has opened a file, for a minute at most."""
    deadline_s = time.monotonic() + 60
    while not any(_is_same(entry, path) for entry in Path(f"/proc/{process.pid}/fd").iterdir()):
        assert time.monotonic() < deadline_s


def _is_same(entry: Path, path: Path) -> bool:
    try:
        return entry.samefile(path)
    except FileNotFoundError:  # closed meanwhile
        return False


def test_labels_are_set_promoted_rolled_back_and_removed(
    run: Run, models: Path, three: Path
) -> None:
    assert lines(run("label", "tiny", 1, "stable")) == ["tiny: stable means version 1"]
    assert lines(run("label", "tiny", 2, "canary")) == ["tiny: canary means version 2"]
    # What canary means, if there is one; else the newest.
    assert lines(run("promote", "tiny")) == ["tiny: stable means version 2 now; before: 1"]
    assert lines(run("promote", "tiny")) == ["tiny: stable means version 2 already"]
    assert lines(run("promote", "tiny", "--label", "canary")) == [
        "tiny: canary means version 3 now; before: 2"
    ]
    assert lines(run("promote", "tiny", "canary", "--label", "beta")) == [
        "tiny: beta means version 3"
    ]
    assert lines(run("rollback", "tiny")) == ["tiny: stable means version 1 again; it meant 2"]
    assert lines(run("rollback", "tiny", "canary")) == [
        "tiny: canary means version 2 again; it meant 3"
    ]
    for arguments in (("canary", "--remove"), ("--remove", "beta")):
        assert run("label", "tiny", *arguments).returncode == 0
    assert lines(run("promote", "tiny")) == ["tiny: stable means version 3 now; before: 1"]
    assert read_labels(models, "tiny") == {"stable": Label(3, (1,))}


def test_version_that_cannot_be_used_gets_no_label(run: Run, models: Path, three: Path) -> None:
    set_label(models, "tiny", "stable", 1)
    (three / "3" / "weights.npz").write_bytes(b"spoilt")
    for command in (("label", "tiny", "3", "stable"), ("promote", "tiny")):
        assert "3/weights.npz: expected an .npz file" in refusal(run(*command))
    assert read_labels(models, "tiny") == {"stable": Label(1)}


def test_prune_deletes_all_but_the_newest_and_those_with_labels(
    run: Run, models: Path, model: Model, three: Path
) -> None:
    for _ in range(2):
        publish(models, Model(model.network, replace(model.metadata, name="another")))
    set_label(models, "tiny", "stable", 2)
    assert lines(run("prune", "tiny", "--keep", 1, "--dry-run")) == ["tiny:1: would be deleted"]
    assert versions(models, "tiny") == [3, 2, 1]
    assert lines(run("prune", "--all", "--keep", 1)) == ["another:1: deleted", "tiny:1: deleted"]
    assert versions(models, "tiny") == [3, 2]
    assert versions(models, "another") == [2]
    assert lines(run("prune", "tiny", "--keep", 1)) == []


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("show other", "{models}: has no model 'other'; it has tiny"),
        ("show tiny:9", "{models}/tiny: has no version 9; it has 3, 2, 1"),
        ("show tiny:beta", "{models}/tiny: has no label 'beta'; it has none"),
        ("show a/b", "model: expected NAME, NAME:VERSION or NAME:LABEL, got 'a/b'"),
        ("label tiny 9 stable", "{models}/tiny: has no version 9; it has 3, 2, 1"),
        ("label tiny 1 7", "label: expected 1 to 64 letters, digits, '.', '_' or '-', a letter "),
        (
            "label tiny beta stable",
            "version: expected a number, as in 3, got 'beta'; have ",
        ),
        ("label tiny beta --remove", "{models}/tiny: has no label 'beta'; it has none"),
        ("label other 1 stable", "{models}: has no model 'other'; it has tiny"),
        ("promote tiny beta", "{models}/tiny: has no label 'beta'; it has none"),
        ("rollback tiny", "{models}/tiny: has no label 'stable'; it has none"),
        ("verify other", "{models}: has no model 'other'; it has tiny"),
        ("prune other --keep 1", "{models}: has no model 'other'; it has tiny"),
        ("list --models {models}/tiny/1/weights.npz", "{models}/tiny/1/weights.npz: cannot be "),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(
    models: Path, three: Path, capsys: pytest.CaptureFixture[str], command: str, sentence: str
) -> None:
    assert main(["--models", str(models), *command.format(models=models).split()]) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"mlpserve-models: {sentence.format(models=models)}")
    assert errors.count("\n") == 1
    assert versions(models, "tiny") == [3, 2, 1]
    assert read_labels(models, "tiny") == {}


@pytest.mark.parametrize(
    "command",
    [
        "",
        "lists",
        "label tiny stable",
        "label tiny 1 stable --remove",
        "prune tiny",
        "prune --keep 1",
        "prune tiny --all --keep 1",
        "prune tiny --keep 0",
    ],
)
def test_wrong_flags_are_told_from_failures(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(command.split())
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: mlpserve-models")


def test_reader_that_has_had_enough_is_no_failure(models: Path, three: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "verify", "--models", str(models)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_closed_output_is_said_in_one_sentence(models: Path) -> None:
    command = f"exec {sys.executable} -m mlpserve.model list --models {models} >&-"
    done = subprocess.run(
        ["/bin/sh", "-c", command], stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (1, "mlpserve-models: the output is closed\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
def test_output_that_cannot_be_written_is_said(models: Path, three: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, "list", "--models", str(models)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == (
        "mlpserve-models: the output cannot be written: No space left on device\n"
    )


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="nobody tells what is open")
def test_interrupt_ends_it_without_a_word_too_much(models: Path, three: Path) -> None:
    # It waits for the lock that we hold, so that there is time to interrupt it.
    holder = (
        "import sys; from pathlib import Path; from mlpserve.model.folder import locked\n"
        "with locked(Path(sys.argv[1]), 'tiny'): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(models)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as lock:
        assert lock.stdout is not None
        assert lock.stdout.readline() == b"held\n"
        process = subprocess.Popen(
            [*COMMAND, "prune", "tiny", "--keep", "1", "--models", str(models)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until_open(process, three / ".lock")
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=240)
        lock.communicate(b"")
    assert (process.returncode, *output) == (130, "", "")
    assert versions(models, "tiny") == [3, 2, 1]
