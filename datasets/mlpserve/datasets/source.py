"""The one door to data: what ``--data`` may say, and what it loads.

Knows the names of the sources and their order, but neither formats nor what a data set holds.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from mlpserve.datasets.dataset import Dataset, DatasetError, Split, numbered_class_labels
from mlpserve.datasets.download import DownloadError
from mlpserve.datasets.drawn import load_drawn, load_drawn_test
from mlpserve.datasets.idx import (
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    find_idx_files,
    read_idx_split,
)
from mlpserve.datasets.mnist import load_mnist, load_mnist_test
from mlpserve.datasets.npz import read_npz_dataset, read_npz_test_split

logger = logging.getLogger(__name__)

_Loaded = TypeVar("_Loaded", Dataset, Split)

_NAMES = ("auto", "mnist", "drawn")
_ACCEPTED = (
    "auto, mnist, drawn, a folder with the four IDX files, or an .npz file with x_train, y_train, "
    "x_test and y_test"
)


def load_dataset(source: str, *, data_dir: Path | None) -> Dataset:
    """Load both splits of a source.

    Args:
        source: ``mnist``; ``drawn``; ``auto``, which is MNIST if it is at hand or can be
            downloaded, else drawn, as the name of the result says; or the path of a folder with
            IDX files or of an .npz file. A folder that is itself called ``mnist`` is ``./mnist``,
            and the name of its data is ``own-mnist``.
        data_dir: Where the MNIST files may be; the user's cache folder otherwise.

    Raises:
        DatasetError: The source is none of these, or cannot be used.
    """
    match source:
        case "mnist":
            return load_mnist(data_dir)
        case "drawn":
            return load_drawn()
        case "auto":
            return _first_at_hand(lambda: load_mnist(data_dir), load_drawn)
    path = _existing(source)
    dataset = _read_idx_dataset(path) if path.is_dir() else read_npz_dataset(path)
    return replace(dataset, name=_name_of(dataset.name))


def load_test_split(source: str, *, data_dir: Path | None) -> Split:
    """Load the test split of a source, without reading the training split.

    Args:
        source: As for ``load_dataset``.
        data_dir: As for ``load_dataset``.

    Raises:
        DatasetError: The source is unknown, or cannot be used.
    """
    match source:
        case "mnist":
            return load_mnist_test(data_dir)
        case "drawn":
            return load_drawn_test()
        case "auto":
            return _first_at_hand(lambda: load_mnist_test(data_dir), load_drawn_test)
    path = _existing(source)
    return _read_idx_test_split(path) if path.is_dir() else read_npz_test_split(path)


def _first_at_hand(mnist: Callable[[], _Loaded], drawn: Callable[[], _Loaded]) -> _Loaded:
    try:
        return mnist()
    except DownloadError as error:
        logger.warning(
            "MNIST is neither at hand nor to be downloaded, so digits drawn by code take its place "
            "(--data mnist says why)"
        )
        logger.debug("MNIST: %s", error)
        return drawn()


def _name_of(name: str) -> str:
    """Return a name of the user's that is valid text, and none of ours."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return f"own-{text}" if text in _NAMES else text


def _existing(source: str) -> Path:
    path = Path(source)
    try:
        path.stat()
    except FileNotFoundError:
        exists = False
    except OSError as error:
        raise DatasetError(f"data: {source}: cannot be read: {error.strerror or error}") from error
    else:
        exists = source != ""  # which a Path takes for the current folder
    if not exists:
        raise DatasetError(
            f"data: expected {_ACCEPTED}; got {source!r}, and there is no such file or folder"
        )
    return path


def _read_idx_dataset(folder: Path) -> Dataset:
    paths = find_idx_files(folder)
    train = read_idx_split(paths[TRAIN_IMAGES], paths[TRAIN_LABELS])
    test = read_idx_split(paths[TEST_IMAGES], paths[TEST_LABELS])
    class_labels = numbered_class_labels(train, test)
    try:
        name = folder.resolve().name
        return Dataset(name=name, class_labels=class_labels, train=train, test=test)
    except DatasetError as error:
        raise DatasetError(f"{folder}: {error}") from error


def _read_idx_test_split(folder: Path) -> Split:
    paths = find_idx_files(folder, (TEST_IMAGES, TEST_LABELS))
    return read_idx_split(paths[TEST_IMAGES], paths[TEST_LABELS])
