"""One of several processes of a server: started by the supervisor, and told by it what to do.

Its argument is the descriptor of its channel to the supervisor. Where that ends, the supervisor is
gone, and so is the worker. SIGTERM stops it.
"""

import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from threading import Event
from typing import Any, Final

from mlpserve.server.system import signals
from mlpserve.server.telemetry.logs import log_to_stderr
from mlpserve.server.workers.connection import Connection, ConnectionClosedError
from mlpserve.server.workers.methods import Settings
from mlpserve.server.workers.shared_generation import SharedGeneration

_EXIT_ABANDONED: Final = 2


def main() -> int:
    """Serve until told to stop; return the exit code."""
    signals.block()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's goes to all; the supervisor decides
    channel = Connection(socket.socket(fileno=int(sys.argv[1])))
    try:
        content, (descriptor,), _ = channel.receive()
    except ConnectionClosedError:
        return _EXIT_ABANDONED
    settings = Settings.from_content(content)
    log_to_stderr(settings.config.log_format, settings.config.log_level)
    stopping, abandoned = Event(), Event()
    board = SharedGeneration.attach(descriptor)
    os.close(descriptor)
    duties = _duties(settings, board, channel, partial(_end, stopping, abandoned))
    signal.sigwait({signal.SIGTERM})
    stopping.set()
    # Without a supervisor the port is to be free at once, for a server that takes this one's place.
    duties.stop(drains=not abandoned.is_set())
    return 0


def _duties(
    settings: Settings, board: SharedGeneration, channel: Connection, on_end: Callable[[], None]
) -> Any:  # noqa: ANN401 - RpcHandlers, imported late
    if settings.processor is not None:
        os.sched_setaffinity(0, {settings.processor})
    # Not before the signals are blocked: NumPy and gRPC start threads.
    from mlpserve.server.workers.handlers import RpcHandlers  # noqa: PLC0415

    return RpcHandlers(settings.config, board, channel, on_end=on_end)


def _end(stopping: Event, abandoned: Event) -> None:
    """End this process with its supervisor: well, or at once where it is ending already."""
    if stopping.is_set():
        os._exit(_EXIT_ABANDONED)
    abandoned.set()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
