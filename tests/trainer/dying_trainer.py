"""The trainer's command, killed at a place in its code that a test names.

    python dying_trainer.py FUNCTION LINES FLAG...

Dies of SIGKILL once so many lines of the functions of this name have been run, all calls together.
"""

import os
import signal
import sys
from types import FrameType
from typing import Any

from mlpserve.trainer.__main__ import main


def kill_at(function: str, lines: int) -> None:
    """Kill this process at that place."""
    lines_run = 0

    def in_function(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines_run
        lines_run += event == "line"
        if lines_run == lines:
            os.kill(os.getpid(), signal.SIGKILL)
        return in_function

    def at_call(frame: FrameType, event: str, _: object) -> Any:
        is_ours = "mlpserve" in frame.f_code.co_filename
        return in_function if is_ours and frame.f_code.co_name == function else None

    sys.settrace(at_call)


if __name__ == "__main__":
    kill_at(sys.argv[1], int(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
