"""Program of a worker: one of several processes of a server, started and called by the supervisor.

Its argument is the descriptor of its connection to the supervisor. Where that ends, the supervisor
is gone, and so is the worker. SIGTERM stops it.
"""

import os
import signal
import socket
import sys
from functools import partial
from threading import Event
from typing import Final

from mlpserve.server.settings.config import ServerConfig
from mlpserve.server.system import signals
from mlpserve.server.system.environment import settle
from mlpserve.server.system.memory import trim_memory
from mlpserve.server.system.threads import watch_threads
from mlpserve.server.telemetry.logs import log_to_stderr
from mlpserve.server.workers.connection import Connection, ConnectionClosedError
from mlpserve.server.workers.shared_generation import SharedGeneration

_EXIT_ABANDONED: Final = 2


def main() -> int:
    """Serve until told to stop; return the exit code."""
    signals.block()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's goes to all; the supervisor decides
    connection = Connection(socket.socket(fileno=int(sys.argv[1])))
    try:
        settings, (descriptor,), _ = connection.receive()
    except ConnectionClosedError:
        return _EXIT_ABANDONED
    config = ServerConfig(**settings["config"])
    if settings["processor"] is not None:
        os.sched_setaffinity(0, {settings["processor"]})
    settle({})  # the supervisor has set the variables
    log_to_stderr(config.log_format, config.log_level)
    watch_threads()
    trim_memory()
    generation = SharedGeneration.attach(descriptor)
    os.close(descriptor)
    # Not before the signals are blocked: gRPC starts threads.
    from mlpserve.server.workers.handlers import WorkerHandlers  # noqa: PLC0415

    stopping, abandoned = Event(), Event()
    on_end = partial(_end, stopping, abandoned)
    handlers = WorkerHandlers(config, generation, connection, on_end=on_end)
    signal.sigwait({signal.SIGTERM})
    stopping.set()
    # Without a supervisor the port is to be free at once, for a server that takes this one's place.
    handlers.stop(drains=not abandoned.is_set())
    return 0


def _end(stopping: Event, abandoned: Event) -> None:
    """End this process with its supervisor: well, or at once where it is ending already."""
    if stopping.is_set():
        os._exit(_EXIT_ABANDONED)
    abandoned.set()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
