"""A program that publishes, for the tests that need several processes, or one that dies.

    python publisher.py publish MODELS WEIGHTS COUNT
    python publisher.py die FOLDER WEIGHTS

``publish`` says "ready", waits for a line, and publishes the model of the file WEIGHTS so often.
Each version carries a file that tells its number.
``die`` publishes into FOLDER/1, FOLDER/2, ... and is killed at the first moment of publishing, at
the second, and so on, until it lives to the end; it says in which folder that was. A moment is a
line of the code that publishes, or a call of the operating system, whoever makes it.
"""

import itertools
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from mlpserve.model import archive, digests, disk, folder, versions, weights
from mlpserve.model.versions import publish
from mlpserve.model.weights import Model, load_model

NUMBER_FILE_NAME = "number.txt"
SYSTEM_CALLS = ("open", "os.", "shutil.")
TRACED = {module.__file__ for module in (archive, digests, disk, folder, versions, weights)}


def main() -> None:
    """Do what the command line says."""
    command, folder, weights_file, *rest = sys.argv[1:]
    model = load_model(Path(weights_file))
    if command == "publish":
        _say("ready")
        sys.stdin.readline()
        for _ in range(int(rest[0])):
            _say(publish(Path(folder), model, attachments=number_file).metadata.version)
    else:
        _say(next(n for n in itertools.count(1) if _lives(Path(folder) / str(n), model, n)))


def number_file(model: Model) -> dict[str, bytes]:
    """Return what goes beside the weights: a file that tells the version's number."""
    return {NUMBER_FILE_NAME: str(model.metadata.version).encode()}


def _say(words: object) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def _lives(models: Path, model: Model, number: int) -> bool:
    """Return whether a process that is to be killed at a moment has published before it."""
    child = os.fork()
    if child == 0:
        _die_at_moment(number)
        publish(models, model, attachments=number_file)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    if status:
        sys.exit(f"a publisher ended with status {status}")
    return True


def _die_at_moment(number: int) -> None:
    moments = itertools.count(1)

    def pass_moment() -> None:
        if next(moments) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in TRACED:
            return None
        if event == "line":
            pass_moment()
        return trace

    def audit(event: str, _: tuple[object, ...]) -> None:
        if event.startswith(SYSTEM_CALLS):
            pass_moment()

    sys.addaudithook(audit)
    sys.settrace(trace)


if __name__ == "__main__":
    main()
