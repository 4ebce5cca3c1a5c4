"""Object stores, read through fsspec: files of images, which are copied here to be read.

What a store refuses is a ``StoreError``: it is away, and that is no fault of an image.
"""

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from mlpserve.client.predict.batches import Rows, Wanted
from mlpserve.client.predict.files import ImageFile
from mlpserve.client.predict.pictures import PICTURE_ENDINGS, Look
from mlpserve.datasets import DatasetError
from mlpserve.datasets.class_labels import natural_key
from mlpserve.model.sync.store import check_url, store_errors, stored_file
from mlpserve.model.sync.urls import without_secrets

_AT_ONCE: Final = 16  # files that are copied, because each waits for the network
_MAGIC: Final = frozenset("*[")  # not "?", with which the query of a URL begins

_Source = TypeVar("_Source")


@dataclass(eq=False)
class RemoteFile(ImageFile):
    """A file in an object store; ``path`` is no path here, but tells how its name ends.

    Attributes:
        url: What it was named by.
        place: Where it is in the store.
        size_bytes: Its size; None where it is missing.
        tag: Another whenever its content is another.
    """

    url: str = ""
    place: str = ""
    size_bytes: int | None = None
    tag: str = ""

    def read(self, wanted: Wanted) -> Iterator[Rows]:
        """See ``Source.read``.

        Raises:
            StoreError: The store is away.
        """
        with local_copies([self]) as (copy,):
            if isinstance(copy, RemoteFile):
                raise DatasetError(f"{self.name}: is not there, or has changed meanwhile")
            yield from copy.read(wanted)

    def parts(self, max_rows: int) -> list[ImageFile]:  # noqa: ARG002 - as other files have it
        """Return itself alone: it is copied whole."""
        return [self]

    def count(self) -> int | None:
        """See ``Source.count``."""
        return 1 if self.is_picture else self.guess

    def fingerprint(self) -> str:
        """Return its size and tag."""
        return "missing" if self.size_bytes is None else f"{self.size_bytes} bytes of {self.tag}"

    def copied(self, path: Path) -> ImageFile:
        """Copy it to a path; return the copy, or itself where it is not what was listed.

        Raises:
            StoreError: The store is away.
        """
        with store_errors(self.url, f"read: {self.place}"):
            try:
                opened(self.url)[0].get_file(self.place, str(path))
            except FileNotFoundError:
                return self
        if path.stat().st_size != self.size_bytes:
            return self
        return ImageFile(path, self.name, self.group, self.look)


@contextmanager
def local_copies(sources: Sequence[_Source]) -> Iterator[list[_Source | ImageFile]]:
    """Lend sources with copies in the place of all that are in object stores, several at a time.

    Raises:
        StoreError: A store is away.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mlpserve-predict-")))
        pool = stack.enter_context(ThreadPoolExecutor(_AT_ONCE))

        def copied(item: tuple[int, _Source]) -> _Source | ImageFile:
            number, source = item
            if not isinstance(source, RemoteFile):
                return source
            return source.copied(folder / f"{number}-{source.path.name}")

        yield list(pool.map(copied, enumerate(sources)))


def remote_files(url: str, look: Look) -> list[ImageFile]:
    """Return the files that a URL names: one, those that fit a pattern, or a folder's pictures.

    Raises:
        DatasetError: No file fits the pattern, or the folder has no picture.
        SyncError: The URL cannot be read by what is installed, or holds credentials.
        StoreError: The store is away.
    """
    check_url(url)
    shown = without_secrets(url)
    with store_errors(url, "listed"):
        filesystem, root = opened(url)
        try:
            if not _MAGIC.isdisjoint(url):
                found, complaint = filesystem.glob(root, detail=True), "no file fits this pattern"
            elif filesystem.isdir(root):
                found, complaint = filesystem.find(root, detail=True), "no picture is in it"
                found = {
                    name: info
                    for name, info in found.items()
                    if name.lower().endswith(PICTURE_ENDINGS)
                }
            else:
                found, complaint = {root: filesystem.info(root)}, ""
        except FileNotFoundError:
            return [RemoteFile(Path(root), shown, shown, look, url=url, place=root)]
    files = {name: info for name, info in found.items() if info["type"] == "file"}
    if not files:
        raise DatasetError(f"{shown}: {complaint}")
    names = {
        place: shown if place == root else str(filesystem.unstrip_protocol(place))
        for place in files
    }
    return [
        _remote_file(files[place], names[place], shown, look, url)
        for place in sorted(files, key=natural_key)
    ]


def opened(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and where in it the URL leads."""
    import fsspec  # noqa: PLC0415 - an extra

    # Listings that are kept would hide what is new.
    filesystem, place = fsspec.url_to_fs(url, use_listings_cache=False)
    return filesystem, str(place).rstrip("/")


def _remote_file(info: dict[str, Any], name: str, group: str, look: Look, url: str) -> RemoteFile:
    listed = stored_file(info)
    return RemoteFile(
        Path(listed.path),
        name,
        group,
        look,
        url=url,
        place=listed.path,
        size_bytes=listed.size_bytes,
        tag=listed.tag,
    )
