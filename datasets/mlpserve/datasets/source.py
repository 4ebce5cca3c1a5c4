"""Sources of data: the data sets by name, the formats of files, and what ``--data`` makes of them.

A data set is a line of ``DATASETS`` and a module of its own; a format of files is a line of
``FORMATS`` and its reader. Flags, help texts and messages follow from the two tables.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol, TypeVar

from mlpserve.datasets.dataset import Dataset, DatasetError, Split
from mlpserve.datasets.download import DownloadError
from mlpserve.datasets.drawn import load_drawn, load_drawn_test
from mlpserve.datasets.finishing import finished, finished_test
from mlpserve.datasets.idx_data import is_idx_data, read_idx_data
from mlpserve.datasets.mnist import load_mnist, load_mnist_test
from mlpserve.datasets.npy_data import is_npy_data, read_npy_data
from mlpserve.datasets.npz import read_npz_data
from mlpserve.datasets.paths import user_path
from mlpserve.datasets.picture_data import is_picture_data, read_picture_data
from mlpserve.datasets.raw import NO_OPTIONS, RawData, RawSplit, ReadOptions
from mlpserve.datasets.table_data import is_table_data, read_table_data

logger = logging.getLogger(__name__)

_Loaded = TypeVar("_Loaded", Dataset, Split)


@dataclass(frozen=True)
class Source:
    """A data set that is loaded by its name, whole or its test split alone.

    Attributes:
        description: What it is, in a few words, for help texts and messages.
        load: Loads both splits; takes the folder of ``--data-dir``.
        load_test: Loads the test split without reading the training split.
    """

    description: str
    load: Callable[[Path | None], Dataset]
    load_test: Callable[[Path | None], Split]


class Read(Protocol):
    """Reads the images and labels that a path holds."""

    def __call__(self, path: Path, options: ReadOptions, *, test_only: bool) -> RawData:
        """Read the test images alone if these are wanted, and are there."""


@dataclass(frozen=True)
class Format:
    """A format of the user's files.

    Attributes:
        description: What it is, in a few words, for help texts and messages.
        fits: Returns whether a path is of this format, as far as is seen from outside.
        read: Reads it.
    """

    description: str
    fits: Callable[[Path], bool]
    read: Read


# By the name that --data has for each; it is loaded from the folder of --data-dir, or else from
# wherever it is to be had.
DATASETS: Final[Mapping[str, Source]] = {
    "mnist": Source("70,000 handwritten digits", load_mnist, load_mnist_test),
    "drawn": Source(
        "digits drawn by code, needs no network",
        lambda _: load_drawn(),
        lambda _: load_drawn_test(),
    ),
}
# The first that fits is taken.
FORMATS: Final = (
    Format("a folder with IDX files", is_idx_data, read_idx_data),
    Format("a folder with a folder of pictures for each class", is_picture_data, read_picture_data),
    Format("a CSV, Parquet or Arrow file, or a folder of them", is_table_data, read_table_data),
    Format("a folder with .npy files of images and labels", is_npy_data, read_npy_data),
    Format("an .npz file with images and labels", Path.is_file, read_npz_data),
)
_AUTO: Final = "auto"
_NAMES: Final = (_AUTO, *DATASETS)
_KINDS: Final = (
    f"{', '.join(form.description for form in FORMATS[:-1])}, or {FORMATS[-1].description}"
)
_ACCEPTED: Final = f"{', '.join(_NAMES)}, {_KINDS}"
DATA_HELP: Final = (
    f"{', '.join(f'{name} ({source.description})' for name, source in DATASETS.items())}, {_AUTO} "
    f"(mnist if it is at hand or can be downloaded, else drawn), or the path of {_KINDS}"
)
# EMNIST, but neither MedMNIST nor FEMNIST.
_EMNIST: Final = re.compile(r"(?<![a-z])emnist", re.IGNORECASE)


def load_dataset(
    source: str, *, data_dir: Path | None, options: ReadOptions = NO_OPTIONS
) -> Dataset:
    """Load both splits of a source.

    Args:
        source: A name of ``DATASETS``; ``auto``, which is MNIST if it is at hand or can be
            downloaded, else drawn, as the name of the result says; or a path in one of
            ``FORMATS``. A folder that is itself called ``mnist`` is ``./mnist``, and the name of
            its data is ``own-mnist``.
        data_dir: Where the MNIST files may be; the user's cache folder otherwise.
        options: What else is said about the data.

    Raises:
        DatasetError: The source is none of these, or cannot be used.
    """
    if options.test_data is None and _is_ours(source, options):
        return _loaded(source, data_dir)
    raw = _raw(source, data_dir, options, test_only=False)
    other = None
    if options.test_data is not None:
        other = _raw(options.test_data, data_dir, options, test_only=True)
    with _located(source):
        return finished(raw, other)


def load_test_split(
    source: str,
    *,
    data_dir: Path | None,
    options: ReadOptions = NO_OPTIONS,
    class_labels: Sequence[str] | None = None,
    input_shape: tuple[int, ...] | None = None,
) -> Split:
    """Load the test split of a source, without reading the training split if it can be.

    Args:
        source: As for ``load_dataset``.
        data_dir: As for ``load_dataset``.
        options: As for ``load_dataset``.
        class_labels: What the classes of a network are called, so that the labels are its classes;
            None to number the classes as the data does.
        input_shape: The shape of the images that a network takes, to which those of the user's own
            data are brought where ``options`` say no other; None for that of the data.

    Raises:
        DatasetError: The source is unknown, or cannot be used.
    """
    tested = source if options.test_data is None else options.test_data
    if _is_ours(tested, options):
        if tested == _AUTO:
            return _first_at_hand(
                DATASETS["mnist"].load_test, DATASETS["drawn"].load_test, data_dir
            )
        return DATASETS[tested].load_test(data_dir)
    options = replace(options, shape=options.shape or input_shape)
    raw = _raw(tested, data_dir, options, test_only=True)
    if options.test_data is not None and raw.test is None:
        raw = replace(raw, train=None, test=raw.train)
    with _located(tested):
        return finished_test(raw, class_labels)


def _is_ours(source: str, options: ReadOptions) -> bool:
    """Return whether a source is one of our data sets.

    Raises:
        DatasetError: It is, but something is said that is said about data of one's own.
    """
    if source != _AUTO and source not in DATASETS:
        return False
    said = {
        "--label-column": options.label_column,
        "--shape": options.shape,
        "--transpose": options.transpose,
    }
    for flag, value in said.items():
        if value and options.test_data is None:
            raise DatasetError(f"{flag}: is said about data of your own, but --data is {source}")
    return True


def _loaded(source: str, data_dir: Path | None) -> Dataset:
    """Load one of our data sets."""
    if source == _AUTO:
        return _first_at_hand(DATASETS["mnist"].load, DATASETS["drawn"].load, data_dir)
    return DATASETS[source].load(data_dir)


def _raw(source: str, data_dir: Path | None, options: ReadOptions, *, test_only: bool) -> RawData:
    if _is_ours(source, options):
        dataset = _loaded(source, data_dir)
        return RawData(
            name=dataset.name,
            train=None if test_only else RawSplit(dataset.train.images, dataset.train.labels),
            test=RawSplit(dataset.test.images, dataset.test.labels),
            label_texts=dataset.class_labels,
            class_labels=dataset.class_labels,
        )
    path, form = _file(source)
    raw = form.read(path, options, test_only=test_only)
    if _EMNIST.search(f"{path.name} {raw.name}") and not options.transpose:
        logger.warning(
            "%s: EMNIST's images are published with rows and columns swapped; --transpose turns "
            "them, so that pictures of letters are classified rightly as well",
            source,
        )
    return replace(raw, name=_name_of(raw.name))


@contextmanager
def _located(source: str) -> Iterator[None]:
    try:
        yield
    except DatasetError as error:
        raise DatasetError(f"{source}: {error}") from error


def _first_at_hand(
    mnist: Callable[[Path | None], _Loaded],
    drawn: Callable[[Path | None], _Loaded],
    data_dir: Path | None,
) -> _Loaded:
    try:
        return mnist(data_dir)
    except DownloadError as error:
        logger.warning(
            "MNIST is neither at hand nor to be downloaded, so digits drawn by code take its place "
            "(--data mnist says why)"
        )
        logger.debug("MNIST: %s", error)
        return drawn(data_dir)


def _name_of(name: str) -> str:
    """Return a name of the user's that is valid text, and none of ours."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return f"own-{text}" if text in _NAMES else text


def _file(source: str) -> tuple[Path, Format]:
    """Return a path that exists, or several begin with, and the format that is there."""
    path = user_path(source)
    try:
        exists = source != "" and path.exists()  # a Path takes "" for the current folder
        fitting = [form for form in FORMATS if source != "" and form.fits(path)]
    except OSError as error:
        raise DatasetError(f"data: {source}: cannot be read: {error.strerror or error}") from error
    if fitting:
        return path, fitting[0]
    if exists:
        raise DatasetError(f"{source}: expected {_KINDS}; it is none of these")
    raise DatasetError(
        f"data: expected {_ACCEPTED}; got {source!r}, and there is no such file or folder"
    )
