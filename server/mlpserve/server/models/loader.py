"""Loader of one version from its snapshot, with the checks that it has to pass before it serves."""

import errno
import io
import logging
import os
from typing import Any

from mlpserve.model.compiled import CompiledModel
from mlpserve.model.errors import ModelError
from mlpserve.model.folder import VersionKey
from mlpserve.model.weights import read_model
from mlpserve.server.inference.self_test import reproducibility_problem, self_test
from mlpserve.server.models.quarantine import LoadError

logger = logging.getLogger(__name__)


def load_checked(
    descriptor: int, key: VersionKey, *, reproducible: bool
) -> CompiledModel | LoadError:
    """Load a version and check it: format, shapes, values, golden samples, on the path that serves.

    These passes warm it up as well.

    Args:
        descriptor: Of the snapshot of its weights file.
        key: Which version it is.
        reproducible: As ``CompiledModel`` has it; checked as well.
    """
    try:
        return _load(descriptor, key, reproducible=reproducible)
    except ModelError as error:
        return LoadError(str(error))
    except MemoryError:
        reason = "there is not enough memory left to load it; it is tried again"
        return LoadError(reason, is_transient=True)
    except Exception:  # no file may end the process or the thread that serves the others
        logger.exception("%s: cannot be loaded", key)
        return LoadError("it cannot be loaded; the server's log has the cause")


def _load(descriptor: int, key: VersionKey, *, reproducible: bool) -> CompiledModel | LoadError:
    loaded = read_model(io.BufferedReader(SnapshotFile(descriptor)))
    described = VersionKey(loaded.metadata.name, loaded.metadata.version)
    if described != key:
        return LoadError(
            f"its file says that it is {described}; publish versions, do not copy them"
        )
    model = CompiledModel(loaded, reproducible=reproducible)
    if (problem := self_test(model, loaded.golden)) is not None:
        return LoadError(f"self-test: {problem}")
    if reproducible and (problem := reproducibility_problem(model)) is not None:
        return LoadError(
            f"reproducible: cannot be promised with the BLAS of this machine: {problem}"
        )
    return model


class SnapshotFile(io.RawIOBase):
    """Reads a snapshot at a position of its own; does not close it.

    The system's position belongs to the copy, and so to all processes that read it at once.

    Args:
        descriptor: Of the snapshot.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._position = 0

    def fileno(self) -> int:
        """Return the snapshot's descriptor."""
        return self._descriptor

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position, and return it."""
        starts = {
            io.SEEK_SET: 0,
            io.SEEK_CUR: self._position,
            io.SEEK_END: os.fstat(self._descriptor).st_size,
        }
        if (position := starts[whence] + offset) < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))  # as any file has it
        self._position = position
        return position

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - Python 3.11 has no name for it
        """Read into a buffer, and return how many bytes were read."""
        count = os.preadv(self._descriptor, [buffer], self._position)
        self._position += count
        return count
