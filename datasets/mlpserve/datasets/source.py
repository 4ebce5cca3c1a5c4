"""Sources of data: the data sets by name, the formats of files, and what ``--data`` makes of them.

A data set is a line of ``DATASETS`` and a module of its own; a format of files is a line of
``FORMATS`` and its reader. Flags, help texts and messages follow from the two tables.
"""

import argparse
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Generic, TypeVar

from mlpserve.datasets.dataset import Dataset, DatasetError, Split
from mlpserve.datasets.download import DownloadError
from mlpserve.datasets.drawn import load_drawn, load_drawn_test
from mlpserve.datasets.idx import read_idx_dataset, read_idx_test_split
from mlpserve.datasets.mnist import load_mnist, load_mnist_test
from mlpserve.datasets.npz import read_npz_dataset, read_npz_test_split

logger = logging.getLogger(__name__)

_Place = TypeVar("_Place")
_Loaded = TypeVar("_Loaded", Dataset, Split)


@dataclass(frozen=True)
class Source(Generic[_Place]):
    """Something that is loaded, whole or its test split alone.

    Attributes:
        description: What it is, in a few words, for help texts and messages.
        load: Loads both splits.
        load_test: Loads the test split without reading the training split.
    """

    description: str
    load: Callable[[_Place], Dataset]
    load_test: Callable[[_Place], Split]


@dataclass(frozen=True)
class Format(Source[Path]):
    """A format of the user's files.

    Attributes:
        fits: Returns whether a path, which exists, is of this format, as far as is seen from
            outside.
    """

    fits: Callable[[Path], bool]


# By the name that --data has for each; it is loaded from the folder of --data-dir, or else from
# wherever it is to be had.
DATASETS: Final[Mapping[str, Source[Path | None]]] = {
    "mnist": Source("70,000 handwritten digits", load_mnist, load_mnist_test),
    "drawn": Source(
        "digits drawn by code, needs no network",
        lambda _: load_drawn(),
        lambda _: load_drawn_test(),
    ),
}
# The first that fits is taken; what is none of the others is taken for an .npz file.
FORMATS: Final = (
    Format("a folder with the four IDX files", read_idx_dataset, read_idx_test_split, Path.is_dir),
    Format(
        "an .npz file with x_train, y_train, x_test and y_test",
        read_npz_dataset,
        read_npz_test_split,
        lambda _: True,
    ),
)
_AUTO: Final = "auto"
_NAMES: Final = (_AUTO, *DATASETS)
_ACCEPTED: Final = f"{', '.join(_NAMES)}, {', or '.join(form.description for form in FORMATS)}"
DATA_HELP: Final = (
    f"{', '.join(f'{name} ({source.description})' for name, source in DATASETS.items())}, {_AUTO} "
    "(mnist if it is at hand or can be downloaded, else drawn), or the path of "
    f"{' or of '.join(form.description for form in FORMATS)}"
)


def load_dataset(source: str, *, data_dir: Path | None) -> Dataset:
    """Load both splits of a source.

    Args:
        source: A name of ``DATASETS``; ``auto``, which is MNIST if it is at hand or can be
            downloaded, else drawn, as the name of the result says; or the path of a folder with
            IDX files or of an .npz file. A folder that is itself called ``mnist`` is ``./mnist``,
            and the name of its data is ``own-mnist``.
        data_dir: Where the MNIST files may be; the user's cache folder otherwise.

    Raises:
        DatasetError: The source is none of these, or cannot be used.
    """
    if source in DATASETS:
        return DATASETS[source].load(data_dir)
    if source == _AUTO:
        return _first_at_hand(DATASETS["mnist"].load, DATASETS["drawn"].load, data_dir)
    path, form = _file(source)
    dataset = form.load(path)
    return replace(dataset, name=_name_of(dataset.name))


def load_test_split(source: str, *, data_dir: Path | None) -> Split:
    """Load the test split of a source, without reading the training split.

    Args:
        source: As for ``load_dataset``.
        data_dir: As for ``load_dataset``.

    Raises:
        DatasetError: The source is unknown, or cannot be used.
    """
    if source in DATASETS:
        return DATASETS[source].load_test(data_dir)
    if source == _AUTO:
        return _first_at_hand(DATASETS["mnist"].load_test, DATASETS["drawn"].load_test, data_dir)
    path, form = _file(source)
    return form.load_test(path)


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Add the flag ``--data-dir``, which says where the MNIST files are."""
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=os.environ.get("MLPSERVE_DATA_DIR") or None,
        help="folder with the four MNIST files; default: $MLPSERVE_DATA_DIR, else the user's cache",
    )


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
    """Return a path that exists, and the format that is there."""
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
    return path, next(form for form in FORMATS if form.fits(path))
