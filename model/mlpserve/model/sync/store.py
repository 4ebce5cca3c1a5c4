"""Object store: lists and reads a models folder in one, through fsspec.

Whatever goes wrong in a store is a ``StoreError``, and its message holds no secret of the URL.
Knows no local folder.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import IO, Any, Final, Protocol, TypeAlias

from mlpserve.model.digests import DIGEST_FILE_NAME
from mlpserve.model.errors import StoreError, SyncError
from mlpserve.model.folder import WEIGHTS_FILE_NAME, VersionKey, is_model_name, is_version
from mlpserve.model.labels import LABELS_FILE_NAME
from mlpserve.model.sync.urls import (
    EXTRAS,
    hide_secrets,
    names_credentials,
    not_installed,
    scheme,
    without_secrets,
)

_VERSION_FILES: Final = (WEIGHTS_FILE_NAME, DIGEST_FILE_NAME)
_MAX_FILES: Final = 100_000
_CHUNK_BYTES: Final = 4 * 2**20
_MAX_REASON_LENGTH: Final = 300
# What changes with the content of a file, in the order in which it can be relied on.
_TAGS: Final = (
    *("ETag", "etag", "generation", "mtime", "modificationTime", "LastModified"),
    *("last_modified", "updated", "modified", "created"),
)


_Info: TypeAlias = Mapping[str, Any]


class _FileSystem(Protocol):
    """The methods that are used of a file system of fsspec, which has no types."""

    def ls(self, path: str, *, detail: bool, **options: str | int) -> list[_Info]: ...
    def find(self, path: str, *, detail: bool, **options: int) -> dict[str, _Info]: ...
    def info(self, path: str) -> _Info: ...
    def open(self, path: str, mode: str, *, cache_type: str) -> IO[bytes]: ...


@dataclass(frozen=True)
class StoredFile:
    """A file as a store lists it.

    Attributes:
        path: Where it is in the store, as fsspec names it.
        size_bytes: Its size.
        tag: Another whenever its content is another.
    """

    path: str
    size_bytes: int
    tag: str


@dataclass(frozen=True)
class Listing:
    """All of a store that belongs to a models folder.

    Attributes:
        versions: The files of each version that has weights, by the files' names.
        labels: The labels file of each model that has one.
    """

    versions: dict[VersionKey, dict[str, StoredFile]] = field(default_factory=dict)
    labels: dict[str, StoredFile] = field(default_factory=dict)


class Store:
    """A place that fsspec can read. Asks nothing of it before it is listed.

    Args:
        url: Where it is: ``s3://bucket/models``.
        max_files: A listing of more files is refused.

    Raises:
        SyncError: The URL cannot be read by what is installed, or holds credentials.
    """

    def __init__(self, url: str, *, max_files: int = _MAX_FILES) -> None:
        check_url(url)
        self._url = url
        self._max_files = max_files
        self._shown = without_secrets(url)

    def __str__(self) -> str:
        """Return the URL as it may be shown."""
        return self._shown

    def listing(self) -> Listing:
        """Return what is in the store now; all of it, or an error.

        Raises:
            StoreError: It is away, has too many files, or refuses to list some of them.
        """
        with store_errors(self._url, "listed"):
            filesystem, root = self._open()
            found = Listing()
            for count, info in enumerate(self._infos(filesystem, root), start=1):
                self._check_count(count)
                _sort_in(found, info, root)
        return _only_complete(found)

    def read(self, file: StoredFile) -> Iterator[bytes]:
        """Yield the content of a file, a few megabytes at a time.

        Raises:
            StoreError: It cannot be read, or is not the file that was listed any more. Yields no
                more than the size that was listed.
        """
        missing_bytes = file.size_bytes
        with store_errors(self._url, f"read: {file.path}"):
            filesystem, _ = self._open()
            with filesystem.open(file.path, "rb", cache_type="none") as opened:
                while missing_bytes and (chunk := opened.read(min(_CHUNK_BYTES, missing_bytes))):
                    missing_bytes -= len(chunk)
                    yield chunk
            now = replace(stored_file(filesystem.info(file.path)), path=file.path)
        if missing_bytes or now != file:
            raise StoreError(
                f"{self}: {file.path} changed while it was copied: {file.size_bytes} bytes were "
                f"listed, {file.size_bytes - missing_bytes} came, {now.size_bytes} are there now"
            )

    def _open(self) -> tuple[_FileSystem, str]:
        """Return the file system and where in it the models folder is."""
        import fsspec  # noqa: PLC0415 - an extra

        # Listings that are kept would hide what is new.
        filesystem, root = fsspec.url_to_fs(self._url, use_listings_cache=False)
        return filesystem, str(root).rstrip("/")

    def _infos(self, filesystem: _FileSystem, root: str) -> Iterable[_Info]:
        extra = EXTRAS.get(scheme(self._url))
        # Not find or walk of other file systems: they leave out, silently, what they cannot read.
        if extra is None:
            return _walk(filesystem, root)
        # An object store lists all that is below a name at once, a thousand files an answer.
        if extra == "gcs":  # whose find knows no limit
            bucket, _, folder = root.partition("/")
            below = {"prefix": f"{folder}/" if folder else "", "delimiter": ""}
            return filesystem.ls(bucket, detail=True, max_results=self._max_files + 1, **below)
        limit = {"max_items": self._max_files + 1} if extra == "s3" else {}
        return filesystem.find(root, detail=True, **limit).values()

    def _check_count(self, count: int) -> None:
        if count > self._max_files:
            raise StoreError(
                f"{self}: expected at most {self._max_files} files; give the models a folder of "
                "their own"
            )


@contextmanager
def store_errors(url: str, action: str) -> Iterator[None]:
    """Turn whatever a store's library raises into a ``StoreError``: the URL cannot be ``action``.

    Raises:
        StoreError: Something was raised; the message holds no secret of the URL.
    """
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        reason = hide_secrets(f"{type(error).__name__}: {error}", url)
        reason = " ".join(reason.split())[:_MAX_REASON_LENGTH]
        raise StoreError(f"{without_secrets(url)}: cannot be {action}: {reason}") from error


def check_url(url: str) -> None:
    """Refuse a URL that cannot work, while somebody looks.

    Raises:
        SyncError: It cannot be read by what is installed, or holds credentials.
    """
    kind = scheme(url)
    if EXTRAS.get(kind) in {"s3", "gcs"} and names_credentials(url):
        raise SyncError(
            f"URL: expected {kind}:// and the name of a bucket, got credentials before it; the "
            "libraries of the store read them from their own environment variables and files"
        )
    try:
        import fsspec  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise not_installed(kind, "fsspec") from error
    try:
        fsspec.get_filesystem_class(kind)
    except ImportError as error:
        raise not_installed(kind, str(error)) from error
    except ValueError as error:
        raise SyncError(f"URL: expected a URL that fsspec knows, got {kind}://") from error


def _walk(filesystem: _FileSystem, root: str) -> Iterator[_Info]:
    """Yield the files in the folders of models and versions, and look into no others."""
    for model in filesystem.ls(root, detail=True):
        if model["type"] == "file" or not is_model_name(_last(model)):
            continue
        for entry in filesystem.ls(model["name"], detail=True):
            if entry["type"] == "file":
                yield entry
            elif is_version(_last(entry)):
                yield from filesystem.ls(entry["name"], detail=True)


def _last(info: _Info) -> str:
    return str(info["name"]).rstrip("/").rpartition("/")[2]


def _sort_in(listing: Listing, info: _Info, root: str) -> None:
    """Add a file to a listing if it belongs to a models folder."""
    # Nothing else of the store's names is ever used as a local one, so none leads anywhere else.
    match str(info["name"]).removeprefix(f"{root}/").split("/"):
        case [name, version, file] if is_model_name(name) and is_version(version):
            if file in _VERSION_FILES and info["type"] != "directory":
                key = VersionKey(name, int(version))
                listing.versions.setdefault(key, {})[file] = stored_file(info)
        case [name, file] if is_model_name(name) and file == LABELS_FILE_NAME:
            listing.labels[name] = stored_file(info)
        case _:
            pass


def _only_complete(listing: Listing) -> Listing:
    complete = {key: files for key, files in listing.versions.items() if WEIGHTS_FILE_NAME in files}
    return replace(listing, versions=complete)


def stored_file(info: _Info) -> StoredFile:
    """Return a file as a store's library describes it."""
    tags = (str(info[name]) for name in _TAGS if info.get(name) is not None)
    return StoredFile(str(info["name"]), int(info["size"] or 0), next(tags, ""))
