"""Atomic writes: a file or a folder appears whole, on disk and under its name, or not at all.

Each is written under a temporary name in the folder that it belongs to, synced and renamed. Knows
nothing of models; needs no NumPy.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

# What has a dot in front is nobody's version, so no reader looks into it.
TEMPORARY_PREFIX: Final = ".unfinished-"
DELETED_PREFIX: Final = ".deleted-"


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Lend a new file that, when the block ends, takes the place of what may be there.

    Whoever opens the path meanwhile gets what was there before. Afterwards the file and its name
    are on disk. Where the block or the system fails, nothing has changed.

    Raises:
        OSError: It cannot be written.
    """
    temporary = temporary_path(path.parent)
    try:
        with temporary.open("xb") as file:
            yield file
            sync_file(file)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_file(path: Path, content: bytes) -> None:
    """Write a file and wait until its content is on disk; neither atomic, nor is its name synced.

    For the files of a folder that is itself renamed when it is complete.

    Raises:
        OSError: It cannot be written.
    """
    with path.open("wb") as file:
        file.write(content)
        sync_file(file)


def make_folder(folder: Path) -> None:
    """Make a folder and its parent where they are missing, and wait until their names are on disk.

    Raises:
        OSError: It cannot be made.
    """
    missing = [place for place in (folder.parent, folder) if not place.is_dir()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in missing:
        sync_folder(place.parent)


def make_temporary_folder(folder: Path) -> Path:
    """Make a folder in a folder, for what is to be renamed when it is complete.

    Raises:
        OSError: It cannot be made.
    """
    # Not tempfile.mkdtemp: its folders are for their owner only, and the server is another user.
    temporary = temporary_path(folder)
    temporary.mkdir()
    return temporary


def temporary_path(folder: Path) -> Path:
    """Return a name in a folder that nobody uses and no reader looks at."""
    return folder / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"


def deleted_path(folder: Path) -> Path:
    """Return a name in a folder for what is to be deleted; no reader looks at it either."""
    return folder / f"{DELETED_PREFIX}{secrets.token_hex(8)}"


def sync_file(file: IO[bytes]) -> None:
    """Wait until what was written to a file is on disk.

    Raises:
        OSError: The disk is full or failed.
    """
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk.

    Raises:
        OSError: The folder cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
