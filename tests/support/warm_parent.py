"""Runs Python programs as processes of their own, forked from one that has imported what they need.

    python warm_parent.py DESCRIPTOR MODULE...

Most of the time of a short program goes into its imports. This process does them once, and then
forks for each command line that it is sent over the socket of that descriptor. All else is as if
the command had been started: arguments, environment, working directory, output, exit code, signals.
"""

import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

_OUTPUTS: Final = 2  # of a process: standard output and error
_REQUEST_BYTES: Final = 1 << 20


class WarmParent:
    """The process that forks. Runs one command at a time.

    Args:
        modules: What it imports first.
    """

    def __init__(self, modules: Iterable[str]) -> None:
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            command = [sys.executable, __file__, str(other.fileno()), *modules]
            # To pipes, which are what its children write to: Python treats a file in another way.
            self._process = subprocess.Popen(
                command,
                pass_fds=[other.fileno()],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()
        self._process.communicate()

    def run(
        self, command: Sequence[str], *, timeout_s: float = 300, folder: Path | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command of this Python to its end.

        Args:
            command: ``sys.executable``, maybe ``-W error``, then ``-m MODULE``, ``-c PROGRAM`` or a
                file, and arguments.
            timeout_s: After this time it is killed.
            folder: Where it is run; where pytest is, unless it is named.

        Raises:
            subprocess.TimeoutExpired: It was.
        """
        assert command[0] == sys.executable
        request = {
            "arguments": list(command[1:]),
            "environment": dict(os.environ),
            "folder": str(folder or Path.cwd()),
        }
        pipes = [os.pipe() for _ in range(_OUTPUTS)]
        socket.send_fds(self._socket, [json.dumps(request).encode()], [end for _, end in pipes])
        for _, end in pipes:
            os.close(end)
        process = self._next_number()
        with ThreadPoolExecutor(_OUTPUTS) as reading:
            outputs = [reading.submit(_text_of, end) for end, _ in pipes]
            exit_code = self._wait(process, command, timeout_s)
            output, errors = (each.result() for each in outputs)
        return subprocess.CompletedProcess(command, exit_code, output, errors)

    def _wait(self, process: int, command: Sequence[str], timeout_s: float) -> int:
        self._socket.settimeout(timeout_s)
        try:
            return self._next_number()
        except TimeoutError:
            os.kill(process, signal.SIGKILL)
            self._socket.settimeout(None)
            self._next_number()
            raise subprocess.TimeoutExpired(command, timeout_s) from None
        finally:
            self._socket.settimeout(None)

    def _next_number(self) -> int:
        number = self._socket.recv(_REQUEST_BYTES)
        if not number:
            raise RuntimeError(f"the warm parent has ended: {self._process.communicate()[1]}")
        return int(number)


def _text_of(descriptor: int) -> str:
    with os.fdopen(descriptor) as file:
        return file.read()


def _serve(connection: socket.socket) -> Mapping[str, Any] | None:
    """Fork for each request; return it in the child, and nothing at the end in the parent."""
    while True:
        data, outputs, _, _ = socket.recv_fds(connection, _REQUEST_BYTES, _OUTPUTS)
        if not data:
            return None
        with warnings.catch_warnings():
            # The threads of BLAS are no danger: it is told of forks.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            _become_a_process_of_its_own(outputs)
            request: Mapping[str, Any] = json.loads(data)
            return request
        for output in outputs:
            os.close(output)
        connection.send(str(child).encode())
        _, status = os.waitpid(child, 0)
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become_a_process_of_its_own(outputs: Sequence[int]) -> None:
    for own, given in enumerate(outputs, start=1):
        os.dup2(given, own)
        os.close(given)


def _run(request: Mapping[str, Any]) -> None:
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    arguments = request["arguments"]
    while arguments[0] == "-W":
        warnings.simplefilter(arguments[1])
        arguments = arguments[2:]
    kind, *rest = arguments
    if kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(rest[0], {"__name__": "__main__"})  # noqa: S102 - as `python -c` does
    else:
        sys.argv = arguments
        sys.path[0] = str(Path(kind).parent)
        runpy.run_path(kind, run_name="__main__")


def main() -> None:
    """Import, serve, and in each child run what was asked for."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    for module in sys.argv[2:]:
        importlib.import_module(module)
        if module.endswith("__main__"):
            del sys.modules[module]  # or runpy would warn that it is run twice
    with connection:
        request = _serve(connection)
    if request is not None:
        _run(request)


if __name__ == "__main__":
    main()
