"""``mlpserve-models sync`` as its users and the server run it: a process, its outputs, its end."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mlpserve.model.folder import versions, weights_path
from warm_parent import WarmParent

TIMEOUT_S = 30.0
END_S = 10.0  # far less than what it is kept waiting for
URL = "s3://bucket/models"
COMMAND = [sys.executable, "-m", "mlpserve.model", "sync"]

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


@pytest.fixture(scope="module")
def warm_sync() -> Iterator[WarmParent]:
    """Return what runs the command without its imports for each."""
    modules = ["mlpserve.model.__main__", "mlpserve.model.commands.syncing", "fsspec"]
    with WarmParent(modules) as parent:
        yield parent


@pytest.fixture
def run(warm_sync: WarmParent) -> Run:
    """Return a function that runs the command to its end."""

    def run(*arguments: object) -> Done:
        return warm_sync.run([*COMMAND, *map(str, arguments)], timeout_s=TIMEOUT_S)

    return run


@contextmanager
def running(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run the command, and leave nothing of it behind."""
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline_s


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


@pytest.fixture
def silent_store() -> Iterator[int]:
    """Return the port of a server that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_once_makes_the_folder_equal_to_the_store(
    run: Run, models: Path, tiny_models: None, cache: Path
) -> None:
    done = run("--once", f"file://{models}", cache)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{cache}: versions: 2, of models: 1; copied from file://{models}\n"
    assert f"INFO file://{models}: tiny version 2: copied\n" in done.stderr
    assert files_in(cache) == files_in(models)
    again = run("--once", f"file://{models}", cache)
    assert (again.returncode, again.stderr) == (0, "")


def test_once_fails_where_a_version_cannot_be_copied_and_says_why(
    run: Run, models: Path, tiny_models: None, cache: Path
) -> None:
    with weights_path(models, "tiny", 2).open("ab") as file:
        file.truncate(2 * 2**20)
    done = run("--once", "--max-version-mb", 1, f"file://{models}", cache)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == (
        f"mlpserve-models: file://{models}: tiny version 2 cannot be copied: "
        f"{models}/tiny/2/weights.npz: expected at most {2**20} bytes, got {2 * 2**20}"
    )
    assert versions(cache, "tiny") == [1]


def test_once_fails_where_the_store_is_away(run: Run, models: Path, cache: Path) -> None:
    done = run("--once", f"file://{models}", cache)
    assert (done.returncode, done.stdout) == (1, "")
    last_line = done.stderr.splitlines()[-1]
    assert last_line.startswith(f"mlpserve-models: file://{models}: cannot be listed: FileNotFound")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("models", "folder"), "URL: expected one, as in s3://bucket/models, got 'models'"),
        (("nowhere://x", "folder"), "URL: expected a URL that fsspec knows, got nowhere://"),
        (("file:///models", __file__), f"FOLDER: {__file__} cannot be used: File exists"),
    ],
    ids=["a path", "an unknown scheme", "a file"],
)
def test_what_cannot_work_is_refused_at_once(
    run: Run,
    arguments: tuple[str, str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"mlpserve-models: {message}\n"


@pytest.mark.parametrize("flags", [("--period-s", "0"), ("--max-version-mb", "x"), ("--twice",)])
def test_wrong_flags_are_named(run: Run, flags: tuple[str, ...], cache: Path) -> None:
    done = run("file:///models", cache, *flags)
    assert done.returncode == 2
    assert flags[0] in done.stderr
    assert not cache.exists()


def test_a_bucket_is_followed_with_what_the_environment_says_of_it(
    s3: Any,
    upload: Callable[[], None],
    tiny_models: None,
    cache: Path,
    publish: Callable[..., None],
) -> None:
    upload()
    flags = ("--period-s", "0.1", URL, cache)
    with running(*flags) as process:
        assert first_line(process) == f"{cache}: versions: 2, of models: 1; copied from {URL}\n"
        publish("tiny", versions=1)
        upload()
        wait_until(lambda: versions(cache, "tiny") == [3, 2, 1])
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0


def test_a_hangup_has_it_look_at_once(
    models: Path, tiny_models: None, cache: Path, publish: Callable[..., None]
) -> None:
    with running("--period-s", 10 * TIMEOUT_S, f"file://{models}", cache) as process:
        first_line(process)
        publish("tiny", versions=1)
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: versions(cache, "tiny") == [3, 2, 1])


@pytest.mark.parametrize(
    ("number", "flags", "code"),
    [
        pytest.param(signal.SIGTERM, (), 0, id="TERM-follow"),
        pytest.param(signal.SIGINT, ("--once",), 130, id="INT-once"),
        pytest.param(signal.SIGINT, (), 0, id="INT-follow", marks=pytest.mark.exhaustive),
        pytest.param(
            signal.SIGTERM, ("--once",), 130, id="TERM-once", marks=pytest.mark.exhaustive
        ),
    ],
)
def test_signals_end_it_while_a_store_keeps_it_waiting(
    silent_store: int, cache: Path, number: signal.Signals, flags: tuple[str, ...], code: int
) -> None:
    with running(*flags, f"ftp://127.0.0.1:{silent_store}/models", cache) as process:
        wait_until(cache.exists)
        process.send_signal(number)
        process.send_signal(signal.SIGHUP)
        assert process.wait(END_S) == code


@pytest.mark.parametrize("file", ["tiny/1/weights.npz", "tiny/2/weights.npz"])
def test_it_ends_in_the_midst_of_a_copy_and_leaves_no_half_version(
    run: Run, models: Path, tiny_models: None, cache: Path, file: str
) -> None:
    path = models / file
    path.unlink()
    os.mkfifo(path)  # who opens it waits for a writer
    with running(f"file://{models}", cache) as process:
        # Unlike glob, walk passes over folders that are renamed meanwhile.
        wait_until(lambda: any(".npz" in name for *_, names in os.walk(cache) for name in names))
        process.terminate()
        assert process.wait(END_S) == 0
    assert all(weights_path(cache, "tiny", each).is_file() for each in versions(cache, "tiny"))
    path.unlink()
    shutil.copy(weights_path(models, "tiny", 3 - int(path.parent.name)), path)
    (path.parent / "weights.npz.sha256").unlink()
    assert run("--once", f"file://{models}", cache).returncode == 0
    assert files_in(cache) == files_in(models)
    assert not any(cache.glob(".unfinished-*"))


def test_a_url_on_standard_input_is_on_no_command_line_and_in_no_log(
    silent_store: int, cache: Path
) -> None:
    url = "ftp://somebody:geheim@127.0.0.1:1/models?sig=secret"
    with running("--until-eof", "-", cache) as process:
        assert process.stdin is not None
        process.stdin.write(f"{url}\n")
        process.stdin.flush()
        said = first_line(process)
        known = Path(f"/proc/{process.pid}/cmdline").read_text()
        known += Path(f"/proc/{process.pid}/environ").read_text()
        output, log = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0
    assert "ftp://***@127.0.0.1:1/models?***: cannot be listed" in log
    for secret in ("geheim", "somebody", "secret"):
        assert secret not in said + known + output + log


def test_it_ends_with_the_program_that_runs_it(
    models: Path, tiny_models: None, cache: Path
) -> None:
    with running("--until-eof", f"file://{models}", cache) as process:
        first_line(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(END_S) == 0


@pytest.mark.exhaustive
def test_its_log_is_lines_of_json_where_programs_read_it(
    run: Run, models: Path, tiny_models: None, cache: Path
) -> None:
    done = run("--once", "--log-format", "json", f"file://{models}", cache)
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [event["message"] for event in events] == [
        f"file://{models}: tiny version {version}: copied" for version in (2, 1)
    ]
    assert {(event["level"], event["logger"]) for event in events} == {
        ("info", "mlpserve.model.sync.synchronizer")
    }


@pytest.mark.exhaustive
def test_it_imports_neither_numpy_nor_grpc(
    s3: Any, upload: Callable[[], None], tiny_models: None, cache: Path
) -> None:
    upload()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *COMMAND[1:], "--once", URL, str(cache)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"aiohttp", "s3fs.core"} <= imported
    assert not imported & {"numpy", "grpc", "google.protobuf"}
