"""A local copy of a models folder that is in an object store, kept up to date.

Only what the store lists in full and without an error is followed: a store that is away, or empty
of a sudden, takes nothing away. The copy is served like any other models folder; nothing else of
the server knows a store.
"""

import hashlib
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

logger = logging.getLogger(__name__)

LARGEST_WEIGHTS_BYTES: Final = 2**30
_FOLDER_DIGITS: Final = 16


class _StoppedError(Exception):
    """The mirror was told to stop while it copied."""


class Synchronizer:
    """Copies versions and labels from a store into a folder.

    Safe beside other processes with the same folder. Not safe for many threads, but for ``stop``.

    Args:
        url: The models folder in the store, as fsspec takes it.
        cache: The local folder; None for one in the user's cache folder that is the URL's own.
        largest_weights_bytes: Larger weights files are not copied.

    Raises:
        SyncError: The URL cannot be read by what is installed, or the folder cannot be used.
    """

    def __init__(
        self,
        url: str,
        cache: Path | None = None,
        *,
        largest_weights_bytes: int = LARGEST_WEIGHTS_BYTES,
    ) -> None:
        self._store = Store(url)
        # The digest, for the URL may hold secrets; what is shown may be the same of two stores.
        digest = hashlib.sha256(url.encode()).hexdigest()[:_FOLDER_DIGITS]
        folder = _default_folder(digest) if cache is None else cache
        self._cache = LocalCopy(folder, owner=f"{self._store} ({digest})")
        self._largest_weights_bytes = largest_weights_bytes
        self._attempts = Retries()
        self._changes = 0
        self._trouble: str | None = None
        self._stopping = threading.Event()

    @property
    def folder(self) -> Path:
        """Return the models folder to serve."""
        return self._cache.folder

    @property
    def trouble(self) -> str | None:
        """Return why the last look into the store failed; None where it did not."""
        return self._trouble

    @property
    def problems(self) -> Mapping[str, str]:
        """Return what could not be copied, and why."""
        return self._attempts.reasons

    def stop(self) -> None:
        """Have ``sync`` return soon, now and ever after; to be called from any thread."""
        self._stopping.set()

    def sync(self) -> bool:
        """Copy what is new or changed, and remove what is gone from the store.

        What goes wrong stands in the log, once, and is tried again at a later call. Where another
        process copies into the same folder at the moment, that is left to it.

        Returns:
            Whether the folder has changed.
        """
        before = self._changes
        try:
            with self._cache.locked() as is_ours:
                if is_ours:
                    self._sync_all()
        except _StoppedError:
            logger.info("%s: stopped copying", self._store)
        except ModelError as error:
            self._say(str(error))
        except OSError as error:
            self._say(f"{self.folder}: cannot be used: {error.strerror}")
        return self._changes != before

    def _sync_all(self) -> None:
        self._cache.tidy()
        self._attempts.begin_round()
        listing = self._store.listing()
        if not listing.versions and self._cache.version_keys():
            raise StoreError(f"{self._store}: has no version any more, which must be a mistake")
        self._say(None)
        for name in sorted({key.name for key in listing.versions}):
            self._bring_labelled(name, listing)
        for key in _newest_of_each_first(listing):
            self._bring(key, listing, self.folder)
        self._remove_gone(listing)
        self._attempts.keep(
            {self._version_thing(key) for key in listing.versions}
            | {self._labels_thing(name) for name in listing.labels}
        )

    def _version_thing(self, key: VersionKey) -> str:
        return f"{self._store}: {key}"

    def _labels_thing(self, name: str) -> str:
        return f"{self._store}: the labels of {name}"

    def _say(self, trouble: str | None) -> None:
        if trouble is not None and trouble != self._trouble:
            logger.warning("%s; what is in %s goes on being served", trouble, self.folder)
        elif trouble is None and self._trouble is not None:
            logger.info("%s is there again", self._store)
        self._trouble = trouble

    def _bring_labelled(self, name: str, listing: Listing) -> None:
        """Copy the versions that the labels of a model mean, and then its labels."""
        file = listing.labels.get(name)
        thing = self._labels_thing(name)
        record = {} if file is None else {LABELS_FILE_NAME: file}
        with self._cache.appearing(name) as models:
            if (
                file is None
                or self._cache.holds_labels(name, _record(record))
                or not self._attempts.is_due(thing, file)
            ):
                self._bring_meant(name, self._labels(name), listing, models)
                return
            with self._attempt(thing, file), self._cache.unfinished() as work:
                (work / name).mkdir()
                copy = work / name / LABELS_FILE_NAME
                self._download(file, copy, largest_bytes=MAX_FILE_BYTES)
                with _seen_as(str(work), str(self._store)):
                    labels = read_labels(work, name)
                self._bring_meant(name, labels, listing, models)
                self._cache.put_labels(copy, name, _record(record), models=models)

    def _labels(self, name: str) -> Mapping[str, Label]:
        try:
            return read_labels(self.folder, name)
        except LabelsFileError:
            return {}  # whoever serves them says so

    def _bring_meant(
        self, name: str, labels: Mapping[str, Label], listing: Listing, models: Path
    ) -> None:
        """Copy the versions that labels mean; the newest one where there are none."""
        there = [key for key in listing.versions if key.name == name]
        meant = {VersionKey(name, label.version) for label in labels.values()}
        for key in sorted(meant & set(there)) or [max(there)]:
            self._bring(key, listing, models)

    def _bring(self, key: VersionKey, listing: Listing, models: Path) -> None:
        """Copy a version, where that is to be done now."""
        files = listing.versions[key]
        record, thing = _record(files), self._version_thing(key)
        if self._cache.holds(key, record) or not self._attempts.is_due(thing, _state(files)):
            return
        with self._attempt(thing, _state(files)), self._cache.unfinished() as work:
            for file_name, file in files.items():
                is_large = file_name == WEIGHTS_FILE_NAME
                largest_bytes = self._largest_weights_bytes if is_large else MAX_FILE_BYTES
                self._download(file, work / file_name, largest_bytes=largest_bytes)
            with _seen_as(str(work), f"{self._store}/{key.name}/{key.version}"):
                check_digest(work)
            self._cache.put(work, key, record, models=models)

    @contextmanager
    def _attempt(self, thing: str, state: object) -> Iterator[None]:
        """Take down whether something could be copied, so that the rest is tried nevertheless.

        Raises:
            StoreError: It could not, and the store is away altogether.
        """
        try:
            yield
        except (ModelError, OSError) as error:
            if isinstance(error, StoreError):
                self._store.listing()
            self._attempts.failed(thing, state, str(error))
        else:
            self._attempts.succeeded(thing)
            self._changes += 1
            logger.info("%s: copied", thing)

    def _download(self, file: StoredFile, target: Path, *, largest_bytes: int) -> None:
        if file.size_bytes > largest_bytes:
            raise ModelError(
                f"{file.path}: expected at most {largest_bytes} bytes, got {file.size_bytes}"
            )
        with writing_to(self.folder), target.open("wb") as opened:
            for chunk in self._store.read(file):
                if self._stopping.is_set():
                    raise _StoppedError
                opened.write(chunk)
            opened.flush()
            os.fsync(opened.fileno())

    def _remove_gone(self, listing: Listing) -> None:
        names = {key.name for key in listing.versions}
        for key in sorted(self._cache.version_keys() - listing.versions.keys()):
            self._cache.remove(key)
            self._changes += 1
            logger.info("%s: %s is gone", self._store, key)
        for name in self._cache.names():
            if (name not in names or name not in listing.labels) and self._cache.remove_labels(
                name
            ):
                self._changes += 1
                logger.info("%s: the labels of %s are gone", self._store, name)


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


def _default_folder(digest: str) -> Path:
    import platformdirs  # noqa: PLC0415 - comes with the extra

    return platformdirs.user_cache_path("mlpserve") / "models" / digest
