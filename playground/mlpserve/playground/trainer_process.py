"""Process of a training: ``mlpserve-train`` within limits, which ends when the playground does.

Run as ``python -m mlpserve.playground.trainer_process FOLDER FLAGS...``, with a pipe from the
playground as standard input.
"""

import os
import resource
import shutil
import sys
import threading
from pathlib import Path
from typing import Final

import numpy as np

from mlpserve.datasets.drawn import draw_digits
from mlpserve.model.programs import train

DRAWN: Final = "drawn-digits.npz"
_DRAWN_COUNTS: Final = (10_000, 2_000)  # to learn from, and to test with
_SEEDS: Final = (1, 7)
_MAX_MEMORY_BYTES: Final = 2 << 30
_MAX_FILE_BYTES: Final = 1 << 30
_NICENESS: Final = 5  # what serves goes first


def main() -> int:
    """Run the trainer with the flags after the folder; return its exit code."""
    folder = Path(sys.argv.pop(1))
    _limit(resource.RLIMIT_DATA, _MAX_MEMORY_BYTES)
    _limit(resource.RLIMIT_FSIZE, _MAX_FILE_BYTES)
    os.nice(_NICENESS)
    threading.Thread(target=_end_with_the_playground, args=(folder,), daemon=True).start()
    if f"--data={folder / DRAWN}" in sys.argv and not (folder / DRAWN).exists():
        _draw(folder)
    return train()


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


def _end_with_the_playground(folder: Path) -> None:
    """Wait until the playground is gone, however that came; leave nothing behind."""
    os.read(sys.stdin.fileno(), 1)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _draw(folder: Path) -> None:
    """Draw digits, once; all that ``--data drawn`` has would take much longer each time."""
    learned, tested = (
        draw_digits(count, seed=seed) for count, seed in zip(_DRAWN_COUNTS, _SEEDS, strict=True)
    )
    unfinished = folder / f"unfinished-{DRAWN}"
    np.savez(
        unfinished,
        x_train=learned.images,
        y_train=learned.labels,
        x_test=tested.images,
        y_test=tested.labels,
    )
    unfinished.rename(folder / DRAWN)


if __name__ == "__main__":
    sys.exit(main())
