"""Folder of a training: its checkpoints and a visitor's file, kept while somebody may go on."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from mlpserve.model.locks import LockedError, lock_folder, take_lock

_PREFIX: Final = "mlpserve-playground-"


class RunFolder:
    """A temporary folder, made when it is first used, and locked while this process lives.

    Attributes:
        path: The folder; None where nothing is kept.
        file: The visitor's file in it; None for none.
    """

    def __init__(self) -> None:
        self.path: Path | None = None
        self.file: Path | None = None
        self._lock = -1

    def make(self) -> Path:
        """Return the folder, made if it is missing."""
        if self.path is None:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            self._lock = os.open(self.path, os.O_RDONLY)
            take_lock(self._lock, wait=False)
        return self.path

    @property
    def has_checkpoint(self) -> bool:
        """Whether a run can go on from what is kept."""
        return self.path is not None and any(self.path.glob("run/checkpoint-*"))

    def forget_run(self) -> None:
        """Remove the checkpoints."""
        shutil.rmtree(self.make() / "run", ignore_errors=True)

    def forget_file(self) -> None:
        """Remove the visitor's file."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)
            self.file = None

    async def receive(self, name: str, pieces: AsyncIterator[bytes]) -> None:
        """Keep a visitor's file, in the place of the one before and its run, once it is whole."""
        folder = self.make()
        unfinished = folder / "unfinished"
        try:
            with unfinished.open("wb") as file:
                async for piece in pieces:
                    file.write(piece)
            self.forget_file()
            self.forget_run()
            self.file = folder / "own" / name
            self.file.parent.mkdir(exist_ok=True)
            unfinished.rename(self.file)
        finally:
            unfinished.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove all that is kept."""
        if self.path is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
        self.path = self.file = None


def remove_abandoned() -> None:
    """Remove the folders of processes that were killed."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(LockedError, OSError):
            lock = lock_folder(left)
            shutil.rmtree(left, ignore_errors=True)
            os.close(lock)
