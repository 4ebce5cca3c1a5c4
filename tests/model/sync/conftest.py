"""Stores to copy from: a folder, one that fails as it is told to, and one that speaks S3."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from mlpserve.model.sync.synchronizer import Synchronizer
from s3_server import own_s3, running_s3, s3, upload

__all__ = ["own_s3", "running_s3", "s3", "upload"]

TIMEOUT_S = 30.0
# What to do before a folder is listed, or before or after a file is opened, by these words.
Hooks = dict[str, Callable[[str], None]]


def nothing(path: str) -> None:
    """Leave a file alone."""


class HookedStore(LocalFileSystem):  # type: ignore[misc] # fsspec has no types
    """A local folder in whose reading a test interferes."""

    protocol = "hooked"
    cachable = False
    hooks: ClassVar[Hooks] = {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = super()._strip_protocol(str(path).removeprefix("hooked://"))
        return stripped

    def ls(self, path: str, detail: bool = False, **options: Any) -> Any:  # noqa: FBT001, FBT002 - theirs
        self.hooks.get("before list", nothing)(path)
        return super().ls(path, detail=detail, **options)

    def _open(self, path: str, *arguments: Any, **options: Any) -> Any:
        self.hooks.get("before open", nothing)(path)
        opened = super()._open(path, *arguments, **options)
        self.hooks.get("after open", nothing)(path)
        return opened


@pytest.fixture
def hooks() -> Iterator[Hooks]:
    """Return what happens in the store of ``hooked_synchronizer``."""
    fsspec.register_implementation("hooked", HookedStore, clobber=True)
    HookedStore.hooks.clear()
    yield HookedStore.hooks
    HookedStore.hooks.clear()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return where a synchronizer keeps its copies."""
    return tmp_path / "cache"


@pytest.fixture
def synchronizer(models: Path, tiny_models: None, cache: Path) -> Synchronizer:
    """Return a synchronizer of a folder with two versions of the tiny model."""
    return Synchronizer(f"file://{models}", cache)


@pytest.fixture
def hooked_synchronizer(models: Path, tiny_models: None, cache: Path, hooks: Hooks) -> Synchronizer:
    """Return a synchronizer of the same folder in whose reading ``hooks`` interfere."""
    return Synchronizer(f"hooked://{models}", cache)
