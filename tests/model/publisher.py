"""A program that writes, for the tests that need several processes, or one that dies.

    python publisher.py publish MODELS WEIGHTS COUNT
    python publisher.py label MODELS PREFIX COUNT
    python publisher.py prune MODELS KEEP COUNT
    python publisher.py die-publishing FOLDER WEIGHTS
    python publisher.py die-labelling FOLDER TEMPLATE
    python publisher.py die-pruning FOLDER TEMPLATE

The first three say "ready" and wait for a line. ``publish`` publishes the model of the file WEIGHTS
so often, and says the numbers; each version carries a file that tells its own. ``label`` gives
version 1 so many labels: PREFIX-0, PREFIX-1, ... ``prune`` deletes so often all but the KEEP newest
versions, and says their numbers.
The others do something in FOLDER/1, FOLDER/2, ... and are killed at the first moment of it, at the
second, and so on, until one lives to the end; they say in which folder that was. A moment is a line
of the code at work, or a call of the operating system, whoever makes it. ``die-publishing``
publishes; the other two copy the folder TEMPLATE, and have the label stable mean version 2, or
delete all versions but the newest.
"""

import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from mlpserve.model import (
    archive,
    atomic_files,
    digests,
    folder,
    labels,
    locks,
    pruning,
    versions,
    weights,
)
from mlpserve.model.labels import set_label
from mlpserve.model.pruning import prune
from mlpserve.model.versions import publish
from mlpserve.model.weights import Model, load_model

NUMBER_FILE_NAME = "number.txt"
SYSTEM_CALLS = ("open", "os.", "shutil.", "fcntl.")
TRACED = {
    module.__file__
    for module in (
        archive,
        atomic_files,
        digests,
        folder,
        labels,
        locks,
        pruning,
        versions,
        weights,
    )
}


def main() -> None:
    """Do what the command line says."""
    command, *arguments = sys.argv[1:]
    COMMANDS[command](*arguments)


def publish_often(models: str, weights_file: str, count: str) -> None:
    """Publish versions, and say their numbers."""
    model = load_model(Path(weights_file))
    _wait_for_start()
    for _ in range(int(count)):
        _say(publish(Path(models), model, attachments=number_file).metadata.version)


def label_often(models: str, prefix: str, count: str) -> None:
    """Give version 1 labels."""
    _wait_for_start()
    for number in range(int(count)):
        set_label(Path(models), "tiny", f"{prefix}-{number}", 1)


def prune_often(models: str, keep: str, count: str) -> None:
    """Delete old versions, and say their numbers."""
    _wait_for_start()
    for _ in range(int(count)):
        for version in prune(Path(models), "tiny", keep=int(keep)).versions:
            _say(version)


def die_publishing(folder: str, weights_file: str) -> None:
    """Publish in folder after folder, and be killed a moment later in each."""
    model = load_model(Path(weights_file))
    _die_at_each_moment(
        Path(folder), lambda models: publish(models, model, attachments=number_file)
    )


def die_labelling(folder: str, template: str) -> None:
    """Move a label in folder after folder, and be killed a moment later in each."""
    _die_at_each_moment(
        Path(folder),
        lambda models: set_label(models, "tiny", "stable", 2),
        lambda models: shutil.copytree(template, models),
    )


def die_pruning(folder: str, template: str) -> None:
    """Delete versions in folder after folder, and be killed a moment later in each."""
    _die_at_each_moment(
        Path(folder),
        lambda models: prune(models, "tiny", keep=1),
        lambda models: shutil.copytree(template, models),
    )


def number_file(model: Model) -> dict[str, bytes]:
    """Return what goes beside the weights: a file that tells the version's number."""
    return {NUMBER_FILE_NAME: str(model.metadata.version).encode()}


def _wait_for_start() -> None:
    _say("ready")
    sys.stdin.readline()


def _say(words: object) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def _die_at_each_moment(
    folder: Path,
    work: Callable[[Path], object],
    prepare: Callable[[Path], object] = lambda _: None,
) -> None:
    for number in itertools.count(1):
        prepare(folder / str(number))
        if _lives(folder / str(number), work, number):
            _say(number)
            return


def _lives(models: Path, work: Callable[[Path], object], number: int) -> bool:
    """Return whether a process that is to be killed at a moment has done its work before it."""
    child = os.fork()
    if child == 0:
        _die_at_moment(number)
        work(models)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    if status:
        sys.exit(f"a child ended with status {status}")
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


COMMANDS: dict[str, Callable[..., None]] = {
    "publish": publish_often,
    "label": label_often,
    "prune": prune_often,
    "die-publishing": die_publishing,
    "die-labelling": die_labelling,
    "die-pruning": die_pruning,
}


if __name__ == "__main__":
    main()
