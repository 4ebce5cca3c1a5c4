"""Cluster of several nodes, which tests add and kill; see ``ray_nodes``."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from quiet_ports import free_ports
from ray_nodes import ANSWER


class Nodes:
    """A cluster of several nodes."""

    def __init__(self, process: "subprocess.Popen[str]", client_port: int) -> None:
        self._process = process
        self.address = self._answer()
        self.client_address = f"ray://127.0.0.1:{client_port}"

    def tell(self, line: str) -> None:
        """Have a node added or killed; return when it is."""
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)
        assert self._answer() == line

    def kill_coordinator(self) -> None:
        """Kill the process of the actor that runs the job on the head node."""
        raylets = set(_children({self._process.pid}))
        (coordinator,) = (
            process
            for process in _children(raylets)
            if Path("/proc", str(process), "cmdline").read_bytes().startswith(b"ray::Coordinator")
        )
        os.kill(coordinator, signal.SIGKILL)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(ANSWER):
                return line.removeprefix(ANSWER).rstrip()
        raise AssertionError("the cluster ended")


def _children(parents: set[int]) -> Iterator[int]:
    """Yield the processes whose parent is one of these."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            if int(path.read_text().rpartition(")")[2].split()[1]) in parents:
                yield int(path.parent.name)


@contextmanager
def running_nodes(*names: str) -> Iterator[Nodes]:
    """Run a cluster with a head and nodes of these names."""
    (port,) = free_ports(1)
    program = [sys.executable, str(Path(__file__).with_name("ray_nodes.py")), str(port)]
    environment = {**os.environ, "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "240"}
    with subprocess.Popen(
        program, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        found = Nodes(process, port)
        for name in names:
            found.tell(f"add {name}")
        yield found
