"""The snapshots of the versions that are served, and of those that are about to be."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from mlpserve.model.digests import DIGEST_FILE_NAME, read_digest
from mlpserve.model.errors import WeightsFileError
from mlpserve.model.folder import VersionKey, weights_path
from mlpserve.server.models.plan import PassingProblem
from mlpserve.server.models.quarantine import Failure
from mlpserve.server.models.scanner import Signature, signature
from mlpserve.server.models.snapshots import Snapshot, SnapshotError, take_snapshot

logger = logging.getLogger(__name__)

_BYTES_PER_MB: Final = 1 << 20
_DIGEST_PROBLEM: Final = (
    f"expected the SHA-256 {{}}, which {DIGEST_FILE_NAME} has, got {{}}: the file was changed "
    "after it was published"
)


class CachedSnapshot(NamedTuple):
    """A snapshot, with the signature of the files that it was taken of or compared with last."""

    snapshot: Snapshot
    signature: Signature


@dataclass(frozen=True)
class SnapshotTaker:
    """Takes snapshots of versions.

    Attributes:
        models: The models folder.
        max_version_mb: A weights file of more MB is not read.
    """

    models: Path
    max_version_mb: int

    def signature(self, key: VersionKey) -> Signature:
        """Return the signature that the files of a version have now."""
        return signature(self.models, key)

    def take(self, key: VersionKey) -> CachedSnapshot | Failure:
        """Copy the weights of a version, and compare the copy with the digest beside them.

        Returns:
            The copy; or why there is none that could be served.
        """
        # Taken before, so that a change during the copy is one more reason to look again.
        before = self.signature(key)
        path = weights_path(self.models, *key)
        try:
            expected = read_digest(path.parent)
            snapshot = take_snapshot(path, max_bytes=self.max_version_mb * _BYTES_PER_MB)
        except SnapshotError as error:
            return Failure(before if error.is_lasting else None, str(error))
        except WeightsFileError as error:
            return Failure(None, str(error).removeprefix(f"{path.parent}/"))
        if expected is not None and expected != snapshot.digest:
            return Failure(before, _DIGEST_PROBLEM.format(expected, snapshot.digest))
        return CachedSnapshot(snapshot, before)


class SnapshotCache:
    """The snapshots that are served, and candidates to be. For one thread at a time.

    A version that is served goes on being served from its snapshot, whatever becomes of its file:
    only other weights that pass their checks take its place.

    Args:
        taker: Takes the snapshots.
    """

    def __init__(self, taker: SnapshotTaker) -> None:
        self._taker = taker
        self._served: dict[VersionKey, CachedSnapshot] = {}
        self._candidates: dict[VersionKey, CachedSnapshot] = {}
        self._last_reasons: dict[VersionKey, str] = {}

    @property
    def served(self) -> dict[VersionKey, Snapshot]:
        """Return the snapshots of what is served."""
        return {key: holding.snapshot for key, holding in self._served.items()}

    def get(self, key: VersionKey) -> Snapshot | Failure:
        """Return the snapshot of a version as its files are now; or why there is none."""
        known = self._candidates.get(key) or self._served.get(key)
        if known is not None and known.signature == self._taker.signature(key):
            self._candidates[key] = known
            return known.snapshot
        taken = self._taker.take(key)
        if key in self._served:
            taken = self._compared(key, taken)
        if isinstance(taken, Failure):
            return taken
        self._candidates[key] = taken
        return taken.snapshot

    def reject(self, key: VersionKey, reason: str) -> Failure | None:
        """Give a candidate up that failed its checks.

        Returns:
            The failure; None where the version goes on being served from an earlier snapshot.
        """
        candidate = self._candidates.pop(key)
        served = self._served.get(key)
        failed = None if isinstance(reason, PassingProblem) else candidate.signature
        if served is None or served.snapshot is candidate.snapshot:
            self._served.pop(key, None)
            return Failure(failed, reason)
        self._served[key] = self._kept(key, Failure(failed, reason))
        return None

    def commit(self, keys: Iterable[VersionKey]) -> None:
        """Note that these versions are served now, and let go of all others."""
        self._served = {key: self._candidates[key] for key in keys}
        self._candidates = {}
        self._last_reasons = {
            key: why for key, why in self._last_reasons.items() if key in self._served
        }

    def _compared(self, key: VersionKey, taken: CachedSnapshot | Failure) -> CachedSnapshot:
        """Return what is to be held of a version that is served, after its files have changed."""
        served = self._served[key]
        if isinstance(taken, Failure):
            return self._kept(key, taken)
        if taken.snapshot.digest == served.snapshot.digest:
            return CachedSnapshot(served.snapshot, taken.signature)
        return taken

    def _kept(self, key: VersionKey, failure: Failure) -> CachedSnapshot:
        if self._last_reasons.get(key) != failure.reason:
            logger.warning(
                "%s goes on being served as it was loaded; its files cannot be used any more: %s",
                key,
                failure.reason,
            )
        self._last_reasons[key] = failure.reason
        served = self._served[key]
        return CachedSnapshot(served.snapshot, failure.signature or served.signature)
