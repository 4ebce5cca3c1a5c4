"""Programs: the entry points of our commands.

Importing one takes up to half a second. Whoever presses Ctrl-C meanwhile sees no traceback.
"""

import signal
from importlib import import_module
from typing import Final

_EXIT_INTERRUPTED: Final = 128 + signal.SIGINT  # as shells have it


def models() -> int:
    """Run ``mlpserve-models``; return its exit code, as all here."""
    return _run("mlpserve.model.__main__")


def train() -> int:
    """Run ``mlpserve-train``."""
    return _run("mlpserve.trainer.__main__")


def serve() -> int:
    """Run ``mlpserve-serve``."""
    return _run("mlpserve.server.__main__")


def predict() -> int:
    """Run ``mlpserve-predict``."""
    return _run("mlpserve.client.__main__")


def playground() -> int:
    """Run ``mlpserve-playground``."""
    return _run("mlpserve.playground.__main__")


def _run(module: str) -> int:
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # whoever ignores it, as nohup does, is left to
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # which ends the process, as shells expect
    program = import_module(module)
    signal.signal(signal.SIGINT, before)
    try:
        code: int = program.main()
    except KeyboardInterrupt:  # before the program was ready for it
        return _EXIT_INTERRUPTED
    return code
