"""A server, or a worker, whose serving thread fails where a file is found; one that does takes it.

faulty_serving.py dies|hangs FILE server|worker ARGUMENTS
"""

import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

from mlpserve.server.__main__ import main as run_server
from mlpserve.server.workers.worker import main as run_worker

fault, file, program = sys.argv[1:4]


def failing_time() -> float:
    """Return the time; where the file is found, never, or not in the thread that serves."""
    if sys._getframe(1).f_code.co_name != "_serve":  # noqa: SLF001 - so both loops are called
        return time.time()
    try:
        Path(file).unlink()
    except FileNotFoundError:
        return time.time()
    if fault == "hangs":
        threading.Event().wait()
    raise SystemError("a fault")


def break_loops() -> None:
    """Have the loops of the fast lane and of grpcio look at that time, which both do each turn."""
    from grpc import _server as grpcio  # noqa: PLC0415 - it starts threads

    from mlpserve.server.grpc_api.fast_lane import lane  # noqa: PLC0415

    for module in (grpcio, lane):
        replaced = SimpleNamespace(time=failing_time, monotonic=time.monotonic)
        setattr(module, "time", replaced)  # noqa: B010 - no name that the module exports


del sys.argv[1:4]
break_loops()
sys.exit(run_server() if program == "server" else run_worker())
