"""Folders that results are written to: of one machine, shared by several, or in a store."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Protocol

from mlpserve.client.predict.stores import opened
from mlpserve.model.atomic_files import atomic_write
from mlpserve.model.command_line import user_path
from mlpserve.model.sync.store import check_url, store_errors
from mlpserve.model.sync.urls import is_url, without_secrets

_LOCAL: Final = "file://"


class ResultFolder(Protocol):
    """A folder of results, which can be sent to another machine that sees it too.

    Its methods raise ``OSError`` or ``StoreError``.
    """

    def make(self) -> None:
        """Make it where it is missing."""

    def names(self) -> set[str]:
        """Return the names of what is in it; none where it is missing."""

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Lend a file, to be read."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file, which appears whole, in the place of what may be there."""

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; those that are not there are gone already."""


def result_folder(text: str) -> ResultFolder:
    """Return the folder of a path or a URL; nothing is asked of it yet.

    Raises:
        NoHomeError: The path begins in the home folder, and there is none.
        SyncError: The URL cannot be read by what is installed, or holds credentials.
    """
    if is_url(text) and not text.startswith(_LOCAL):
        check_url(text)
        return StoreFolder(text)
    return LocalFolder(user_path(text.removeprefix(_LOCAL)).absolute())


@dataclass(frozen=True)
class LocalFolder:
    """A folder of this machine, or one that several machines share; see ``ResultFolder``."""

    path: Path

    def __str__(self) -> str:
        """Return its path."""
        return str(self.path)

    def make(self) -> None:
        """See ``ResultFolder``; the folder above it has to be there."""
        self.path.mkdir(exist_ok=True)

    def names(self) -> set[str]:
        """See ``ResultFolder``."""
        return {entry.name for entry in self.path.iterdir()} if self.path.exists() else set()

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """See ``ResultFolder``."""
        return (self.path / name).open("rb")

    def write(self, name: str, content: bytes) -> None:
        """See ``ResultFolder``."""
        with atomic_write(self.path / name) as file:
            file.write(content)

    def delete(self, names: Iterable[str]) -> None:
        """See ``ResultFolder``."""
        for name in names:
            (self.path / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class StoreFolder:
    """A folder in an object store, where what is put appears whole; see ``ResultFolder``."""

    url: str

    def __str__(self) -> str:
        """Return its URL as it may be shown."""
        return without_secrets(self.url)

    def make(self) -> None:
        """See ``ResultFolder``; an object store has names only."""

    def names(self) -> set[str]:
        """See ``ResultFolder``."""
        with store_errors(self.url, "listed"):
            filesystem, place = opened(self.url)
            try:
                found = filesystem.ls(place, detail=False)
            except FileNotFoundError:
                return set()
            # A store may list the folder itself.
            return {name.rpartition("/")[2] for name in found if name.rstrip("/") != place} - {""}

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """See ``ResultFolder``."""
        with store_errors(self.url, f"read: {name}"):
            filesystem, place = opened(self.url)
            file: AbstractContextManager[IO[bytes]] = filesystem.open(f"{place}/{name}", "rb")
            return file

    def write(self, name: str, content: bytes) -> None:
        """See ``ResultFolder``."""
        with store_errors(self.url, f"written: {name}"):
            filesystem, place = opened(self.url)
            filesystem.pipe_file(f"{place}/{name}", content)

    def delete(self, names: Iterable[str]) -> None:
        """See ``ResultFolder``."""
        with store_errors(self.url, "changed"):
            filesystem, place = opened(self.url)
            for name in names:
                filesystem.rm_file(f"{place}/{name}")
