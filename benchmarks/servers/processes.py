"""A server that is measured: its start, its end, and what it and its children use."""

import http.client
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

from harness.errors import BenchmarkError

_START_TIMEOUT_S: Final = 60.0
_END_TIMEOUT_S: Final = 15.0
_PAUSE_S: Final = 0.002
_PROCESSES: Final = Path("/proc")
_NO_ANSWER: Final = (grpc.RpcError, OSError, http.client.HTTPException)


@dataclass(frozen=True)
class Running:
    """A server that answers.

    Attributes:
        process_id: Its first process.
        start_s: From the start of the process to the first answer.
        memory_bytes: Resident after that, of all its processes; what they share counts in each.
    """

    process_id: int
    start_s: float
    memory_bytes: int

    def cpu_s(self) -> float:
        """Return the processor time that its processes have used so far."""
        return sum(map(_cpu_s, family(self.process_id)))

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Let its processes run while the block does, and stop them afterwards.

        Some peers keep a tenth of a processor busy while they have nothing to do.
        """
        _signal(self.process_id, signal.SIGCONT)
        try:
            yield
        finally:
            _signal(self.process_id, signal.SIGSTOP)

    def resident_bytes(self) -> int:
        """Return the memory that is resident now, counted as in ``memory_bytes``."""
        return sum(map(_memory_bytes, family(self.process_id)))

    def open_files(self) -> int:
        """Return how many files, sockets and the like all its processes have open now."""
        return sum(len(list((_folder(each) / "fd").iterdir())) for each in family(self.process_id))

    def threads(self) -> int:
        """Return how many threads all its processes have now."""
        members = family(self.process_id)
        return sum(len(list((_folder(each) / "task").iterdir())) for each in members)


@contextmanager
def running(command: Sequence[str], log: Path, ask: Callable[[], object]) -> Iterator[Running]:
    """Start a server, wait until it answers, and end it afterwards.

    Args:
        command: What starts it.
        log: Where to put what it prints.
        ask: Asks it once; raises where there is no answer yet.

    Raises:
        BenchmarkError: It ended, or does not answer.
    """
    with log.open("wb") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
    try:
        _wait_for_answer(process, log, ask, started + _START_TIMEOUT_S)
        start_s = time.monotonic() - started
        memory = sum(map(_memory_bytes, family(process.pid)))
        yield Running(process.pid, start_s, memory)
    finally:
        _end(process)


def _wait_for_answer(
    process: "subprocess.Popen[Any]", log: Path, ask: Callable[[], object], deadline_s: float
) -> None:
    while True:
        try:
            ask()
        except _NO_ANSWER as error:
            if process.poll() is not None or time.monotonic() > deadline_s:
                last = log.read_text(errors="replace")[-2000:]
                raise BenchmarkError(f"a server does not answer: {error}\n{last}") from error
            time.sleep(_PAUSE_S)
        else:
            return


def _signal(process_id: int, number: signal.Signals) -> None:
    for member in family(process_id):
        with suppress(ProcessLookupError):
            os.kill(member, number)


def _end(process: "subprocess.Popen[Any]") -> None:
    process.terminate()
    _signal(process.pid, signal.SIGCONT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_END_TIMEOUT_S)
    # What is left of its session: some peers leave children behind.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def family(process_id: int) -> list[int]:
    """Return a process and all that descend from it."""
    members = [process_id]
    for member in members:  # which grows meanwhile
        for thread in (_PROCESSES / str(member) / "task").glob("*"):
            try:
                members.extend(map(int, (thread / "children").read_text().split()))
            except OSError:
                continue
    return members


def _cpu_s(process_id: int) -> float:
    """Return its time, and that of children that have ended; fields 14-17 of proc_pid_stat(5)."""
    try:
        text = (_PROCESSES / str(process_id) / "stat").read_text()
    except OSError:
        return 0.0
    fields = text.rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _folder(process_id: int) -> Path:
    return _PROCESSES / str(process_id)


def _memory_bytes(process_id: int) -> int:
    """Return the resident memory; field 2 of proc_pid_statm(5)."""
    try:
        pages = int((_folder(process_id) / "statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
