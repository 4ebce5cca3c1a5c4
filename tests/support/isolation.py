"""Isolation of the tests: from who started pytest, and from the processes of other tests.

A plug-in of pytest. Whatever it inherits, ignored signals, a mask, an umask, settings of servers,
it begins with the defaults, and so does each process that a test starts. A test that leaves a
process behind fails, and the process is killed; so does the whole run, if one survives it.
"""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import pytest

# All that a test starts has this in its environment, whoever its parent has become.
_VARIABLE: Final = "TESTS_SESSION"
_GRACE_S: Final = 5.0  # in which what was told to end, or has lost its parent, may do so
_PAUSE_S: Final = 0.01
_UMASK: Final = 0o022
# Of programs that are started, and so of the workers of pytest-xdist; our own is fixed by now.
_LOCALE: Final = "C.UTF-8"
_FAULTS: Final = "faults"
_LOADING: Final = ("tests/server/faults/", "tests/server/models/test_models_under_load.py")
_FIRST: Final = (_FAULTS, "tests/trainer/", "tests/server/", "tests/test_")
# What Python itself ignores, and restores in processes that it starts.
_IGNORED_BY_PYTHON: Final = {signal.SIGPIPE, signal.SIGXFSZ}
# They change what programs of ours, or the libraries that we use, do.
_PREFIXES: Final = ("MLPSERVE_", "AWS_", "FSSPEC_", "GRPC_", "OTEL_")
_KEPT: Final = {"MLPSERVE_DATA_DIR"}


def pytest_configure(config: pytest.Config) -> None:
    """Begin as if nothing had been inherited."""
    _restore_signals()
    _leave_no_block_waiting()
    os.umask(_UMASK)
    if sys.platform == "linux":
        os.environ["LC_ALL"] = _LOCALE
    for name in list(os.environ):
        if name.startswith(_PREFIXES) and name not in _KEPT:
            del os.environ[name]
    _compile_once(config)
    _name_session(getattr(config, "workerinput", {}).get("workerid"))


def _compile_once(config: pytest.Config) -> None:
    """Have modules compiled once, not by each process, where Python keeps nothing beside them.

    Where ``PYTHONDONTWRITEBYTECODE`` is set, more than half of a server's start is the compiler.
    """
    if not sys.dont_write_bytecode or not config.pluginmanager.has_plugin("cacheprovider"):
        return
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.setdefault("PYTHONPYCACHEPREFIX", str(config.cache.mkdir("bytecode")))
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"]
    sys.dont_write_bytecode = False


def _restore_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals() - _IGNORED_BY_PYTHON:
        if signal.getsignal(number) is signal.SIG_IGN:
            is_interrupt = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if is_interrupt else signal.SIG_DFL)


def _leave_no_block_waiting() -> None:
    """Have a process in a ``with`` block whose body fails killed, and not waited for."""
    leave = subprocess.Popen.__exit__

    def killing(
        process: "subprocess.Popen[Any]",
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            process.kill()
        leave(process, kind, error, traceback)

    subprocess.Popen.__exit__ = killing  # type: ignore[method-assign]


def _name_session(worker: str | None) -> None:
    # Workers of pytest-xdist are no strays: they have the bare name, as their parent gave it.
    name = os.environ.get(_VARIABLE, "") if worker else uuid.uuid4().hex
    os.environ[_VARIABLE] = f"{name}.{worker}" if worker else name


class _Processes:
    """What runs of this session's processes, but for those that run its tests."""

    def __init__(self) -> None:
        self._others: set[str] = set()

    def running(self) -> dict[int, str]:
        """Return the command of each, by its id."""
        found = {entry for entry in os.listdir("/proc") if entry.isdigit()}  # noqa: PTH208 - faster
        self._others &= found
        ours = {}
        for entry in found - self._others - {str(os.getpid())}:
            if command := _command_of_ours(Path("/proc", entry)):
                ours[int(entry)] = command
            else:
                self._others.add(entry)
        return ours

    def wait_until_ended(self, before: set[int]) -> dict[int, str]:
        """Wait for all but some to end; return those that do not, killed."""
        deadline_s = time.monotonic() + _GRACE_S
        while left := {key: value for key, value in self.running().items() if key not in before}:
            if time.monotonic() > deadline_s:
                for process in left:
                    with suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
                break
            time.sleep(_PAUSE_S)
        return left


def _command_of_ours(process: Path) -> str:
    """Return the command line of a process of this session that has not ended; else nothing."""
    try:
        variables = (process / "environ").read_bytes().split(b"\0")
        own = f"{_VARIABLE}={os.environ[_VARIABLE]}".encode()
        if not any(each == own or each.startswith(own + b".") for each in variables):
            return ""
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:  # it has ended, or is somebody else's
        return ""


_processes: Final = _Processes()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep what belongs together in one process of pytest-xdist, and begin with the longest."""
    if hasattr(config, "workerinput"):
        for item in items:
            item.add_marker(pytest.mark.xdist_group(_group_of(item)))
        items.sort(key=_place_of)


def _group_of(item: pytest.Item) -> str:
    """Return the file of a test, or what it shares with all that load the machine on purpose."""
    file = item.path.relative_to(item.config.rootpath).as_posix()
    return _FAULTS if file.startswith(_LOADING) else file


def _place_of(item: pytest.Item) -> int:
    group = _group_of(item)
    return next((place for place, first in enumerate(_FIRST) if group.startswith(first)), 99)


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Fail a test that leaves a process running, and kill that."""
    if sys.platform != "linux":
        yield
        return
    before = set(_processes.running())
    yield
    left = _processes.wait_until_ended(before)
    assert not left, f"the test left processes running; they were killed: {left}"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that leaves processes running, and kill those."""
    if sys.platform == "linux" and (left := _Processes().wait_until_ended(set())):
        print(f"\nthe tests left processes running; they were killed: {left}")  # noqa: T201
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
