"""Writing so that what was written is on disk, and is there whole or not at all.

Knows nothing of models; needs no NumPy.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mlpserve.model.errors import ModelsFolderError

# What has a dot in front is nobody's version, so no reader looks into it.
UNFINISHED_PREFIX: Final = ".unfinished-"
DELETED_PREFIX: Final = ".deleted-"


def write_file(path: Path, content: bytes) -> None:
    """Write a file and wait until its content is on disk; its name may not be yet.

    Raises:
        OSError: It cannot be written.
    """
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, content: bytes) -> None:
    """Write a file in one step, in place of what may be there, and wait until it is on disk.

    Raises:
        OSError: It cannot be written; what was there is there still.
    """
    unfinished = unfinished_path(path.parent)
    try:
        write_file(unfinished, content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and its parent where they are missing, and wait until their names are on disk.

    Raises:
        OSError: It cannot be made.
    """
    missing = [place for place in (folder.parent, folder) if not place.is_dir()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in missing:
        sync_folder(place.parent)


def make_unfinished(folder: Path) -> Path:
    """Make a folder in a folder, for what is to be renamed when it is complete.

    Raises:
        OSError: It cannot be made.
    """
    # Not tempfile.mkdtemp: its folders are for their owner only, and the server is another user.
    unfinished = unfinished_path(folder)
    unfinished.mkdir()
    return unfinished


def unfinished_path(folder: Path) -> Path:
    """Return a name in a folder that nobody uses and no reader looks at."""
    return folder / f"{UNFINISHED_PREFIX}{secrets.token_hex(8)}"


def deleted_path(folder: Path) -> Path:
    """Return a name in a folder for what is to be deleted; no reader looks at it either."""
    return folder / f"{DELETED_PREFIX}{secrets.token_hex(8)}"


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


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Say of whatever the system refuses meanwhile that the folder cannot be written to.

    Raises:
        ModelsFolderError: Instead of OSError.
    """
    try:
        yield
    except OSError as error:
        raise ModelsFolderError(f"{folder}: cannot be written to: {error.strerror}") from error
