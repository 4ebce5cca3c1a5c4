"""Synchronizer: makes a local models folder equal to one in an object store.

Only what the store lists in full and without an error is followed: a store that is away, or empty
of a sudden, takes nothing away.
"""

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mlpserve.model.digests import check_digest
from mlpserve.model.errors import LabelsFileError, ModelError, StoreError, WeightsFileError
from mlpserve.model.folder import WEIGHTS_FILE_NAME, VersionKey, writing_to
from mlpserve.model.labels import LABELS_FILE_NAME, MAX_FILE_BYTES, Label, read_labels
from mlpserve.model.sync.local_copy import LocalCopy, Record
from mlpserve.model.sync.retries import Retries
from mlpserve.model.sync.store import Listing, Store, StoredFile
from mlpserve.model.sync.urls import url_digest

logger = logging.getLogger(__name__)

MAX_WEIGHTS_BYTES: Final = 2**30
_MAX_PROBLEMS_SHOWN: Final = 3
_NOT_ENDED: Final = "the look into the store has not ended"


class _StoppedError(Exception):
    """The synchronizer was told to stop while it copied."""


class Synchronizer:
    """Copies versions and labels from a store into a folder, and removes those that are gone.

    Safe beside other processes with the same folder. Not safe for many threads, but for ``stop``.

    Args:
        url: The models folder in the store, as fsspec takes it.
        folder: The local folder; made where it is missing.
        max_weights_bytes: Larger weights files are not copied.

    Raises:
        SyncError: The URL cannot be read by what is installed, or the folder cannot be used.
    """

    def __init__(
        self, url: str, folder: Path, *, max_weights_bytes: int = MAX_WEIGHTS_BYTES
    ) -> None:
        self.store: Final = Store(url)
        # The digest, for the URL may hold secrets; what is shown may be the same of two stores.
        self.copy: Final = LocalCopy(folder, owner=f"{self.store} ({url_digest(url)})")
        self._max_weights_bytes = max_weights_bytes
        self._retries = Retries()
        self._changes = 0
        self._failure: str | None = None
        self._interruption: str | None = _NOT_ENDED
        self._stopping = threading.Event()

    @property
    def failure(self) -> str | None:
        """Return why the last look into the store failed; None where it did not."""
        return self._failure

    @property
    def problems(self) -> Mapping[str, str]:
        """Return the versions and labels that could not be copied, and why."""
        return self._retries.reasons

    @property
    def difference(self) -> str | None:
        """Return why the folder may differ from the store; None where they are equal."""
        if reason := self._failure or self._interruption:
            return reason
        problems = [f"{item} cannot be copied: {reason}" for item, reason in self.problems.items()]
        more = len(problems) - _MAX_PROBLEMS_SHOWN
        shown = problems[:_MAX_PROBLEMS_SHOWN] + ([f"{more} more"] if more > 0 else [])
        return "; ".join(shown) or None

    def stop(self) -> None:
        """Have ``sync`` return soon, now and ever after; to be called from any thread."""
        self._stopping.set()

    def sync(self) -> bool:
        """Copy what is new or changed, and remove what is gone from the store.

        Problems are logged once, and what had them is tried again at a later call. Where another
        process copies into the same folder at the moment, that is left to it.

        Returns:
            Whether the folder has changed.
        """
        before = self._changes
        self._interruption = _NOT_ENDED
        try:
            with self.copy.locked() as is_ours:
                if is_ours:
                    self._sync_all()
                    self._interruption = None
                else:
                    self._interruption = f"another program copies into {self.copy.folder}"
        except _StoppedError:
            self._interruption = f"{self.store}: stopped copying"
            logger.info(self._interruption)
        except ModelError as error:
            self._report(str(error))
        except OSError as error:
            self._report(f"{self.copy.folder}: cannot be used: {error.strerror}")
        return self._changes != before

    def _sync_all(self) -> None:
        self.copy.tidy()
        self._retries.begin_round()
        listing = self.store.listing()
        if not listing.versions and self.copy.version_keys():
            raise StoreError(f"{self.store}: has no version any more, which must be a mistake")
        self._report(None)
        for name in sorted({key.name for key in listing.versions}):
            self._copy_labelled(name, listing)
        for key in _newest_of_each_first(listing):
            self._copy_version(key, listing, self.copy.folder)
        self._remove_gone(listing)
        self._retries.keep(
            {self._version_item(key) for key in listing.versions}
            | {self._labels_item(name) for name in listing.labels}
        )

    def _version_item(self, key: VersionKey) -> str:
        return f"{self.store}: {key}"

    def _labels_item(self, name: str) -> str:
        return f"{self.store}: the labels of {name}"

    def _report(self, failure: str | None) -> None:
        """Remember how the look into the store went, and log it where that is news."""
        if failure is not None and failure != self._failure:
            logger.warning("%s; what is in %s goes on being served", failure, self.copy.folder)
        elif failure is None and self._failure is not None:
            logger.info("%s is there again", self.store)
        self._failure = failure

    def _copy_labelled(self, name: str, listing: Listing) -> None:
        """Copy the versions that the labels of a model mean, and then its labels."""
        file = listing.labels.get(name)
        item = self._labels_item(name)
        record = {} if file is None else {LABELS_FILE_NAME: file}
        with self.copy.appearing(name) as models:
            if (
                file is None
                or self.copy.holds_labels(name, _record(record))
                or not self._retries.is_due(item, file)
            ):
                self._copy_meant(name, self._labels(name), listing, models)
                return
            with self._attempt(item, file), self.copy.unfinished() as work:
                (work / name).mkdir()
                labels_file = work / name / LABELS_FILE_NAME
                self._download(file, labels_file, max_bytes=MAX_FILE_BYTES)
                with _seen_as(str(work), str(self.store)):
                    labels = read_labels(work, name)
                self._copy_meant(name, labels, listing, models)
                self.copy.put_labels(labels_file, name, _record(record), models=models)

    def _labels(self, name: str) -> Mapping[str, Label]:
        try:
            return read_labels(self.copy.folder, name)
        except LabelsFileError:
            return {}  # whoever serves them says so

    def _copy_meant(
        self, name: str, labels: Mapping[str, Label], listing: Listing, models: Path
    ) -> None:
        """Copy the versions that labels mean; the newest one where there are none."""
        there = [key for key in listing.versions if key.name == name]
        meant = {VersionKey(name, label.version) for label in labels.values()}
        for key in sorted(meant & set(there)) or [max(there)]:
            self._copy_version(key, listing, models)

    def _copy_version(self, key: VersionKey, listing: Listing, models: Path) -> None:
        """Copy a version, where that is to be done now."""
        files = listing.versions[key]
        record, item = _record(files), self._version_item(key)
        if self.copy.holds(key, record) or not self._retries.is_due(item, _state(files)):
            return
        with self._attempt(item, _state(files)), self.copy.unfinished() as work:
            for file_name, file in files.items():
                is_large = file_name == WEIGHTS_FILE_NAME
                max_bytes = self._max_weights_bytes if is_large else MAX_FILE_BYTES
                self._download(file, work / file_name, max_bytes=max_bytes)
            with _seen_as(str(work), f"{self.store}/{key.name}/{key.version}"):
                check_digest(work)
            self.copy.put(work, key, record, models=models)

    @contextmanager
    def _attempt(self, item: str, state: object) -> Iterator[None]:
        """Remember whether an item could be copied, so that the others are tried nevertheless.

        Raises:
            StoreError: It could not, and the store is away altogether.
        """
        try:
            yield
        except (ModelError, OSError) as error:
            if isinstance(error, StoreError):
                self.store.listing()
            self._retries.failed(item, state, str(error))
        else:
            self._retries.succeeded(item)
            self._changes += 1
            logger.info("%s: copied", item)

    def _download(self, file: StoredFile, target: Path, *, max_bytes: int) -> None:
        if file.size_bytes > max_bytes:
            raise ModelError(
                f"{file.path}: expected at most {max_bytes} bytes, got {file.size_bytes}"
            )
        with writing_to(self.copy.folder), target.open("wb") as opened:
            for chunk in self.store.read(file):
                if self._stopping.is_set():
                    raise _StoppedError
                opened.write(chunk)
            opened.flush()
            os.fsync(opened.fileno())

    def _remove_gone(self, listing: Listing) -> None:
        names = {key.name for key in listing.versions}
        for key in sorted(self.copy.version_keys() - listing.versions.keys()):
            self.copy.remove(key)
            self._changes += 1
            logger.info("%s: %s is gone", self.store, key)
        for name in self.copy.names():
            if (name not in names or name not in listing.labels) and self.copy.remove_labels(name):
                self._changes += 1
                logger.info("%s: the labels of %s are gone", self.store, name)


@contextmanager
def _seen_as(folder: str, place: str) -> Iterator[None]:
    """Have errors name the place in the store, not the folder that is about to go."""
    try:
        yield
    except (WeightsFileError, LabelsFileError) as error:
        raise type(error)(str(error).replace(folder, place)) from error


def _newest_of_each_first(listing: Listing) -> Iterator[VersionKey]:
    """Yield all versions: the newest of each model, then the second of each, and so on."""
    ranked: list[tuple[int, VersionKey]] = []
    for name in {key.name for key in listing.versions}:
        newest_first = sorted((key for key in listing.versions if key.name == name), reverse=True)
        ranked.extend(enumerate(newest_first))
    yield from (key for _, key in sorted(ranked))


def _record(files: Mapping[str, StoredFile]) -> Record:
    return {name: (file.size_bytes, file.tag) for name, file in files.items()}


def _state(files: Mapping[str, StoredFile]) -> tuple[StoredFile, ...]:
    return tuple(files[name] for name in sorted(files))
