"""One of several processes of a server: started by the supervisor, and told by it what to do.

Over its standard input it gets its settings as one line of JSON, and then nothing: where the input
ends, the supervisor is gone, and so is the worker. Over its standard output it says, as one line of
JSON, that it is ready, or why it is not. SIGTERM stops it.
"""

import json
import logging
import os
import signal
import sys
from collections.abc import Mapping
from threading import Event, Thread
from typing import Any, Final

from mlpserve.model.errors import ModelError
from mlpserve.server import signals
from mlpserve.server.config import ServerConfig
from mlpserve.server.errors import StartError
from mlpserve.server.logs import log_to_stderr
from mlpserve.server.settings import from_plain_values, plain_values

_EXIT_FAILED: Final = 1
_EXIT_ABANDONED: Final = 2


def settings_line(config: ServerConfig, *, processor: int | None, logs_its_start: bool) -> str:
    """Return the line that tells a worker how to serve.

    Args:
        config: How.
        processor: The only one that it may use; None for any.
        logs_its_start: Whether it logs what happens while it starts. One of the workers does.
    """
    settings = {
        "config": plain_values(config),
        "processor": processor,
        "logs_its_start": logs_its_start,
    }
    return json.dumps(settings) + "\n"


def main() -> int:
    """Serve until told to stop; return the exit code."""
    signals.block()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's goes to all; the supervisor decides
    log_to_stderr()
    settings = json.loads(sys.stdin.readline())
    stopping = Event()
    Thread(target=_follow_supervisor, args=(stopping,), daemon=True).start()
    try:
        server = _started(settings)
    except (StartError, ModelError) as error:
        _say({"problem": str(error)})
        return _EXIT_FAILED
    plan = server.lifecycle.controller.plan
    _say({"problem": None, "plan": plan.to_json(), "adapter": server.adapter})
    signal.sigwait({signal.SIGTERM})
    stopping.set()
    server.stop()
    return 0


def _started(settings: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a Server, imported late
    if settings["processor"] is not None:
        os.sched_setaffinity(0, {settings["processor"]})
    if not settings["logs_its_start"]:
        logging.disable(logging.CRITICAL)
    # Not before the signals are blocked: NumPy and gRPC start threads.
    from mlpserve.server.serving import Server  # noqa: PLC0415

    server = Server(from_plain_values(ServerConfig, settings["config"]))
    server.start()
    logging.disable(logging.NOTSET)
    return server


def _say(words: Mapping[str, object]) -> None:
    print(json.dumps(words), flush=True)  # noqa: T201 - this is how it answers


def _follow_supervisor(stopping: Event) -> None:
    """End this process when the supervisor does: well, or at once where it is ending already."""
    # Not through sys.stdin, whose lock would be held when the interpreter ends.
    while os.read(sys.stdin.fileno(), 1):
        pass
    if stopping.is_set():
        os._exit(_EXIT_ABANDONED)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
