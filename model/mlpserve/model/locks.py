"""The lock of a model: one writer at a time changes which versions and which labels it has.

It is the kernel's lock on a file, which ends with the process that holds it, however that ends; so
nothing is left locked. Readers need none: each change is one rename. A file system without locks,
as some of networks are, cannot promise that of many changes at once none is lost. Needs no NumPy.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mlpserve.model.disk import writing_to
from mlpserve.model.folder import is_folder, is_model_name
from mlpserve.model.missing import no_model

logger = logging.getLogger(__name__)

LOCK_FILE_NAME: Final = ".lock"


@contextmanager
def locked(models: Path, name: str) -> Iterator[None]:
    """Keep others from changing what a model has, its versions and labels, meanwhile.

    Raises:
        NoVersionError: There is no such model.
        ModelsFolderError: The folder cannot be read or written to.
    """
    folder = models / name
    if not is_model_name(name) or not is_folder(folder):
        raise no_model(models, name)
    with writing_to(folder):
        descriptor = _open(folder / LOCK_FILE_NAME)
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)  # which unlocks it, as the end of a process does


def _open(lock_file: Path) -> int:
    try:
        # File systems of networks lock only what may be written to.
        return os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        # It is another user's. All others lock what may be read.
        return os.open(lock_file, os.O_RDONLY | os.O_CREAT, 0o666)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        # Some file systems of networks have no locks.
        logger.debug("%s: cannot be locked", folder)
