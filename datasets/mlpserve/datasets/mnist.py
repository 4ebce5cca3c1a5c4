"""MNIST: 70,000 handwritten digits, its mirrors, and the digests of its four files.

All that is special about MNIST stands here; the format of its files is the business of ``idx``.
The files are recognised by their content, so what is called MNIST is MNIST.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import platformdirs

from mlpserve.datasets.dataset import Dataset, DatasetError, Split
from mlpserve.datasets.download import DownloadError, download
from mlpserve.datasets.idx import (
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    find_idx_files,
    idx_header,
    present_idx_files,
    read_idx,
)
from mlpserve.datasets.paths import has_home

logger = logging.getLogger(__name__)

NAME = "mnist"
CLASS_LABELS = tuple("0123456789")
MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
MD5_DIGESTS = {  # of the files before they were gzipped
    TRAIN_IMAGES: "6bbc9ace898e44ae57da46a324031adb",
    TRAIN_LABELS: "a25bea736e30d166cdddb491f175f624",
    TEST_IMAGES: "2646ac647ad5339dbf082846283269ea",
    TEST_LABELS: "27ae3e4e09519cfbb04c329615203637",
}

# The labels first: they are small, so an unusable mirror shows at once.
_TRAIN = (TRAIN_LABELS, TRAIN_IMAGES)
_TEST = (TEST_LABELS, TEST_IMAGES)

_Arrays = dict[str, npt.NDArray[np.uint8]]


class _OtherDataError(DatasetError):
    """A good IDX file, but not MNIST's."""


def load_mnist(data_dir: Path | None) -> Dataset:
    """Load MNIST, 60,000 training and 10,000 test images of (28, 28) uint8.

    Args:
        data_dir: A folder that may hold the four official files, gzipped or not. Without it, or
            if it holds none of them, they are taken from the user's cache folder, into which the
            missing ones are downloaded.

    Raises:
        DownloadError: A file is not at hand and cannot be downloaded.
        DatasetError: ``data_dir`` holds only some of the files, or others of their names.
    """
    arrays = _load((*_TEST, *_TRAIN), data_dir)
    return Dataset(
        name=NAME,
        class_labels=CLASS_LABELS,
        train=_split(arrays, _TRAIN),
        test=_split(arrays, _TEST),
    )


def load_mnist_test(data_dir: Path | None) -> Split:
    """Load the test split alone; reads and, where needed, downloads only its two files.

    Args:
        data_dir: As for ``load_mnist``.

    Raises:
        DownloadError: A file is not at hand and cannot be downloaded.
        DatasetError: ``data_dir`` holds only some of the files, or others of their names.
    """
    return _split(_load(_TEST, data_dir), _TEST)


def cache_folder() -> Path:
    """Return where downloaded files are kept; it need not exist.

    Raises:
        DownloadError: There is no home folder to keep them in.
    """
    if not os.environ.get("XDG_CACHE_HOME") and not has_home():
        raise DownloadError(
            "there is no home folder to keep downloaded files in; name a folder that holds the "
            "four MNIST files with --data-dir, or one for the cache with $XDG_CACHE_HOME"
        )
    return platformdirs.user_cache_path("mlpserve") / NAME


def _split(arrays: _Arrays, names: tuple[str, str]) -> Split:
    labels, images = (arrays[name] for name in names)
    return Split(images=images, labels=labels.astype(np.int64))


def _load(names: Sequence[str], data_dir: Path | None) -> _Arrays:
    if data_dir is not None:
        if present_idx_files(data_dir):
            return _load_from(data_dir, names)
        logger.warning("%s holds no MNIST files; looking in the cache folder", data_dir)
    return _load_from_cache(names)


def _load_from(data_dir: Path, names: Sequence[str]) -> _Arrays:
    paths = find_idx_files(data_dir)  # all four: a folder with a part of MNIST is a mistake
    try:
        return {name: _read_official(paths[name], name) for name in names}
    except _OtherDataError as error:
        raise DatasetError(f"{error}; for other data in this format use --data PATH") from error


def _load_from_cache(names: Sequence[str]) -> _Arrays:
    folder = cache_folder()
    cached = {name: _read_cached(folder, name) for name in names}
    missing = [name for name, array in cached.items() if array is None]
    if missing:
        hosts = " or ".join(str(urlsplit(mirror).hostname) for mirror in MIRRORS)
        logger.info("MNIST is not at hand; asking %s for it", hosts)
    _download(missing)
    return {
        name: _read_official(_cache_path(name), name) if array is None else array
        for name, array in cached.items()
    }


def _read_cached(folder: Path, name: str) -> npt.NDArray[np.uint8] | None:
    try:
        path = present_idx_files(folder).get(name)
        return None if path is None else _read_official(path, name)
    except DatasetError as error:
        logger.warning("downloading what the cache should hold: %s", error)
        return None


def _download(names: Sequence[str]) -> None:
    mirrors = list(MIRRORS)
    for name in names:
        urls = {f"{mirror}{name}.gz": mirror for mirror in mirrors}
        try:
            used = download(list(urls), _cache_path(name), verify=_verifier(name))
        except DownloadError as error:
            raise DownloadError(
                f"{error}; a folder that holds the four files may be named with --data-dir"
            ) from error
        # A mirror that failed would cost its time-out again at every file.
        mirrors = mirrors[mirrors.index(urls[used]) :]
        logger.info("downloaded %s", used)


def _cache_path(name: str) -> Path:
    return cache_folder() / f"{name}.gz"


def _verifier(name: str) -> Callable[[Path], None]:
    def verify(path: Path) -> None:
        try:
            _read_official(path, name)
        except DatasetError as error:
            # The sentence it carries names a temporary file, which tells nobody anything.
            raise DatasetError("what it sent is not the official MNIST file") from error

    return verify


def _read_official(path: Path, name: str) -> npt.NDArray[np.uint8]:
    array = read_idx(path)
    # Header and values are all that an IDX file holds, so this is the digest of the file.
    digest = hashlib.md5(idx_header(array.shape), usedforsecurity=False)
    digest.update(array.data)
    if digest.hexdigest() != MD5_DIGESTS[name]:
        raise _OtherDataError(
            f"{path} is not the official MNIST file: its MD5 is {digest.hexdigest()}, "
            f"expected {MD5_DIGESTS[name]}"
        )
    return array
