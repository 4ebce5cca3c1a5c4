"""Snapshots: private copies of weights files, which nobody can change, truncate or delete.

A file in the models folder may be any of these at any time, and a process that has mapped it would
then be killed or compute with other weights than were checked. So each is copied once, into memory
without a name, and all processes map this one copy. Needs no NumPy.
"""

import hashlib
import logging
import os
import stat
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from mlpserve.model.digests import DIGEST_FILE_NAME, read_digest
from mlpserve.model.errors import WeightsFileError
from mlpserve.model.folder import VersionKey, weights_path
from mlpserve.server.errors import ShortageError
from mlpserve.server.models.quarantine import LoadError, Quarantine
from mlpserve.server.models.scanner import Signature, signature
from mlpserve.server.system.descriptors import anonymous_file

logger = logging.getLogger(__name__)

_CHUNK_BYTES: Final = 1 << 20
_BYTES_PER_MB: Final = 1 << 20


class Snapshot:
    """A copy of a file in memory; given back when nobody holds it any more.

    Args:
        descriptor: Of the copy; this object closes it.
        digest: The SHA-256 of the copy, 64 hexadecimal digits.
        size_bytes: Its size.
    """

    def __init__(self, descriptor: int, *, digest: str, size_bytes: int) -> None:
        self.descriptor: Final = descriptor
        self.digest: Final = digest
        self.size_bytes: Final = size_bytes
        weakref.finalize(self, os.close, descriptor)


def take_snapshot(path: Path, *, max_bytes: int) -> Snapshot | LoadError:
    """Copy a file.

    Args:
        path: The file.
        max_bytes: A larger file is refused before anything of it is read.

    Returns:
        The copy; or why there is none, where the file is missing, no plain file, too large or
        cannot be read. The reason does not have the file's path.
    """
    try:
        with _opened(path) as source:
            status = os.fstat(source)
            if not stat.S_ISREG(status.st_mode):
                return LoadError("expected a file, got a folder, a pipe or a device")
            if status.st_size > max_bytes:
                return LoadError(
                    f"expected a weights file of at most {max_bytes} bytes, got {status.st_size}; "
                    "--max-version-mb allows larger ones"
                )
            return _copied(source, status.st_size)
    except FileNotFoundError:
        return LoadError(f"{path.name} is missing")
    except OSError as error:
        return LoadError(f"{path.name} cannot be read: {error.strerror}", is_transient=True)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    # A pipe would be waited for, for ever perhaps.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _copied(source: int, size_bytes: int) -> Snapshot:
    """Copy no more than the size that was checked, though the file may grow meanwhile."""
    digest = hashlib.sha256()
    copied_bytes = 0
    target = anonymous_file("mlpserve-weights")
    try:
        while chunk := os.read(source, min(_CHUNK_BYTES, size_bytes - copied_bytes)):
            digest.update(chunk)
            copied_bytes += len(chunk)
            _write_all(target, chunk)
        return Snapshot(target, digest=digest.hexdigest(), size_bytes=copied_bytes)
    except BaseException:
        os.close(target)
        raise


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


class _Cached(NamedTuple):
    """A snapshot, with the signature of the files that it was taken of or compared with last."""

    snapshot: Snapshot
    signature: Signature


class SnapshotCache:
    """The snapshots that are served, and candidates to be. For one thread at a time.

    A version that is served goes on being served from its snapshot, whatever becomes of its file:
    only other weights that pass their checks take its place.

    Args:
        models: The models folder.
        quarantine: Where versions go that fail.
        max_version_mb: A weights file of more MB is not read.
    """

    def __init__(self, models: Path, quarantine: Quarantine, *, max_version_mb: int) -> None:
        self._models = models
        self._quarantine = quarantine
        self._max_bytes = max_version_mb * _BYTES_PER_MB
        self._served: dict[VersionKey, _Cached] = {}
        self._candidates: dict[VersionKey, _Cached] = {}
        self._last_reasons: dict[VersionKey, str] = {}

    def begin(self) -> None:
        """Begin to look at versions anew; each of them is then looked at once."""
        self._candidates = {}

    @property
    def served(self) -> dict[VersionKey, Snapshot]:
        """Return the snapshots of what is served."""
        return {key: cached.snapshot for key, cached in self._served.items()}

    def get(self, key: VersionKey) -> Snapshot | None:
        """Return the snapshot of a version as its files were since ``begin``, or what is served.

        Returns:
            None where there is neither; then it was quarantined.
        """
        known = self._candidates.get(key)
        if known is None:
            # Taken before, so that a change during the copy is one more reason to look again.
            now = signature(self._models, key)
            known = self._served.get(key)
            if known is None or known.signature != now:
                known = self._renewed(key, now)
            if known is None:
                return None
            self._candidates[key] = known
        return known.snapshot

    def reject(self, key: VersionKey, error: LoadError) -> None:
        """Give a candidate up that failed its checks.

        It is quarantined, but where the version goes on being served from an earlier snapshot. That
        is then not looked at again before the next ``begin``.

        Raises:
            ShortageError: It is what is served, which cannot be loaded anew just now; all stays.
        """
        candidate = self._candidates.pop(key)
        served = self._served.get(key)
        if served is not None and served.snapshot is candidate.snapshot:
            if error.is_transient:
                raise ShortageError(f"{key}: {error.reason}")
            del self._served[key]
        kept = self._kept(key, error, candidate.signature)
        if kept is not None:
            self._served[key] = self._candidates[key] = kept

    def commit(self, keys: Iterable[VersionKey]) -> None:
        """Note that these versions are served now, and let go of all others."""
        self._served = {key: self._candidates[key] for key in keys}
        self._candidates = {}
        self._last_reasons = {
            key: why for key, why in self._last_reasons.items() if key in self._served
        }

    def _renewed(self, key: VersionKey, now: Signature) -> _Cached | None:
        """Copy a version whose files are new or have changed."""
        taken = self._take(key)
        if isinstance(taken, LoadError):
            return self._kept(key, taken, now)
        served = self._served.get(key)
        is_same = served is not None and taken.digest == served.snapshot.digest
        return _Cached(served.snapshot if served and is_same else taken, now)

    def _take(self, key: VersionKey) -> Snapshot | LoadError:
        """Copy the weights of a version, and compare the copy with the digest beside them."""
        path = weights_path(self._models, *key)
        try:
            expected = read_digest(path.parent)
        except WeightsFileError as error:
            return LoadError(str(error).removeprefix(f"{path.parent}/"), is_transient=True)
        taken = take_snapshot(path, max_bytes=self._max_bytes)
        if isinstance(taken, LoadError) or expected in {None, taken.digest}:
            return taken
        return LoadError(
            f"expected the SHA-256 {expected}, which {DIGEST_FILE_NAME} has, got {taken.digest}: "
            "the file was changed after it was published"
        )

    def _kept(self, key: VersionKey, error: LoadError, failed: Signature) -> _Cached | None:
        """Return what is still served of a version; quarantine it where that is nothing."""
        served = self._served.get(key)
        if served is None:
            self._quarantine.add(key, error, failed)
            return None
        if self._last_reasons.get(key) != error.reason:
            logger.warning(
                "%s goes on being served as it was loaded; its files cannot be used any more: %s",
                key,
                error.reason,
            )
        self._last_reasons[key] = error.reason
        return _Cached(served.snapshot, served.signature if error.is_transient else failed)


def load_lacking(
    loaded: dict[VersionKey, Snapshot],
    snapshots: Mapping[VersionKey, Snapshot],
    load: Callable[[VersionKey, Snapshot], LoadError | None],
) -> dict[VersionKey, LoadError]:
    """Have a process load the snapshots that it has not loaded yet.

    Args:
        loaded: What it has loaded; what it loads now is added.
        snapshots: What it is to have loaded.
        load: Has it load a version. Where that fails, it goes on with what it had of it before.

    Returns:
        Why versions cannot be served; none where all are loaded.
    """
    errors = {}
    for key, snapshot in snapshots.items():
        if loaded.get(key) is snapshot:
            continue
        error = load(key, snapshot)
        if error is None:
            loaded[key] = snapshot
        else:
            errors[key] = error
    return errors
