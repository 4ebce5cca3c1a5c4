"""Data sets in one ``.npz`` file, the form in which Keras and MedMNIST keep theirs.

The file holds images and labels of each split: ``x_train``, ``y_train``, ``x_test`` and ``y_test``,
or ``train_images``, ``train_labels`` and so on, or ``images`` and ``labels`` alone; and, if the
classes have names, ``class_labels``. Never unpickles, and reads each array's declared size before
the array. Knows no particular data set.
"""

import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve.datasets.class_labels import MAX_CLASSES, LabelIndex, label_numbers
from mlpserve.datasets.dataset import DatasetError, Labels
from mlpserve.datasets.raw import (
    RawData,
    RawSplit,
    ReadOptions,
    arranged,
    joined,
    narrowed,
    split_name,
    splits_of,
)

MAX_NPZ_BYTES = 4 * 1024**3  # of all arrays that are read, unpacked

Array: TypeAlias = npt.NDArray[Any]
# What the entries of a split are called: that of the images, and that of the labels.
_Names: TypeAlias = tuple[str, str]

_KERAS = ("x_train", "y_train", "x_test", "y_test")
_CLASS_LABELS = "class_labels"
_IMAGE_WORDS = {"x", "images", "image", "imgs", "img", "data", "features", "pixels"}
_LABEL_WORDS = {"y", "labels", "label", "targets", "target", "classes"}
_POSITIONAL = ("arr_0", "arr_1", "arr_2", "arr_3")  # what numpy.savez calls arrays without names
_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz_data(path: Path, options: ReadOptions, *, test_only: bool) -> RawData:
    """Read images and labels; the data is called like the file, without its ending.

    The images are (N, ...) numbers. The labels are (N,) or (N, 1) integers, or (N,) unicode.
    ``class_labels`` is (K,) unicode; without it classes are called by their number.

    Args:
        path: The file.
        options: What is said about the images.
        test_only: Whether to read the test images alone, if there are any.

    Raises:
        DatasetError: The file cannot be read, or an entry is missing or something else.
    """
    train_names, test_names = splits_of(_found_names(path))
    if test_only and test_names is not None:
        train_names = []
    names = [*train_names, *([] if test_names is None else [test_names])]
    arrays = read_npz_arrays(
        path, [name for pair in names for name in pair], optional=(_CLASS_LABELS,)
    )
    with _located(path, _CLASS_LABELS):
        class_labels = _class_labels(arrays.get(_CLASS_LABELS))
    index = LabelIndex() if any(arrays[pair[1]].dtype.kind == "U" for pair in names) else None
    train = [_split(path, arrays, pair, options, index) for pair in train_names]
    test = None if test_names is None else _split(path, arrays, test_names, options, index)
    return RawData(
        name=path.stem,
        train=joined(train) if train else None,
        test=test,
        label_texts=class_labels if index is None else index.texts,
        class_labels=class_labels,
    )


def read_npz_arrays(
    path: Path, names: Sequence[str] = (), *, optional: Sequence[str] = ()
) -> dict[str, Array]:
    """Read the named arrays of a file, and those of the optional ones that are there.

    Raises:
        DatasetError: The file cannot be read, is too large, or lacks one of ``names``.
    """
    with _located(path), _readable(), zipfile.ZipFile(path) as archive:
        entries = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        missing = [name for name in names if name not in entries]
        if missing:
            raise DatasetError(f"expected {', '.join(names)}, missing {', '.join(missing)}")
        wanted = {name: entries[name] for name in (*names, *optional) if name in entries}
        size = sum(entry.file_size for entry in wanted.values())
        if size > MAX_NPZ_BYTES:
            raise DatasetError(f"unpacks to {size} bytes, the most that is read is {MAX_NPZ_BYTES}")
        return {name: _read_array(archive, entry) for name, entry in wanted.items()}


def npz_entries(path: Path) -> tuple[str, ...]:
    """Return what the arrays of a file are called.

    Raises:
        DatasetError: The file cannot be read.
    """
    with _located(path), _readable(), zipfile.ZipFile(path) as archive:
        return tuple(info.filename.removesuffix(".npy") for info in archive.infolist())


def _found_names(path: Path) -> Mapping[str, _Names]:
    """Return the entries of each split, by what ``splits_of`` calls it.

    Raises:
        DatasetError: There are none, or images lack their labels.
    """
    entries = npz_entries(path)
    found: dict[str, dict[str, str]] = {}
    for entry in entries:
        role = _role(entry)
        if role is not None:
            found.setdefault(split_name(entry), {}).setdefault(role, entry)
    if set(found) - {""}:
        found.pop("", None)  # such as `labels`, the names of the classes
    if found and all(len(names) == len(("images", "labels")) for names in found.values()):
        return {split: (names["images"], names["labels"]) for split, names in found.items()}
    if not found and set(_POSITIONAL[:2]) <= set(entries):
        return _positional(path, entries)
    missing = [name for name in _KERAS if name not in entries]
    raise DatasetError(
        f"{path}: expected {', '.join(_KERAS)} (or train_images, train_labels and so on, or images "
        f"and labels alone), missing {', '.join(missing)}; it holds {', '.join(entries)}"
    )


def _role(entry: str) -> str | None:
    words = set(entry.lower().replace("-", "_").split("_"))
    if words & _LABEL_WORDS and entry != _CLASS_LABELS:
        return "labels"
    return "images" if words & _IMAGE_WORDS else None


def _positional(path: Path, entries: Sequence[str]) -> Mapping[str, _Names]:
    """Return which arrays without names are what: (x, y), (x, y, x, y) or (x, x, y, y)."""
    names = [name for name in _POSITIONAL if name in entries]
    arrays = read_npz_arrays(path, names)
    images = [name for name in names if arrays[name].size > len(arrays[name])]
    labels = [name for name in names if name not in images]
    pairs = list(zip(images, labels, strict=False))
    if len(images) != len(labels):
        raise DatasetError(f"{path}: expected images and labels in turn, got {', '.join(names)}")
    return dict(zip(("train", "test") if len(pairs) > 1 else ("",), pairs, strict=True))


def _split(
    path: Path,
    arrays: dict[str, Array],
    names: _Names,
    options: ReadOptions,
    index: LabelIndex | None,
) -> RawSplit:
    images_name, labels_name = names
    images, labels = arrays[images_name], arrays[labels_name]
    with _located(path, images_name):
        if images.ndim < 2 or not images.size:  # noqa: PLR2004
            raise DatasetError(f"expected at least one, as (count, ...), got shape {images.shape}")
        images = arranged(narrowed(images), options, where=images_name)
    with _located(path, labels_name):
        codes = _codes(labels, index)
    if len(images) != len(codes):
        raise DatasetError(
            f"{path}: {labels_name}: expected one for each of the {len(images)} images in "
            f"{images_name}, got {len(codes)}"
        )
    return RawSplit(images, codes)


def _codes(labels: Array, index: LabelIndex | None) -> Labels:
    if index is None:
        return label_numbers(labels)
    if labels.ndim != 1 and labels.shape[1:] != (1,):
        raise DatasetError(f"expected shape (N,) or (N, 1), got {labels.shape}")
    return index.add(labels.reshape(-1).astype(np.str_))


def _class_labels(names: Array | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    if names.dtype.kind != "U" or names.ndim != 1 or not 1 <= len(names) <= MAX_CLASSES:
        raise DatasetError(
            f"expected (K,) unicode, K from 1 to {MAX_CLASSES}, got {names.dtype} {names.shape}"
        )
    try:
        texts = tuple(str(name) for name in names)
        "".join(texts).encode()  # they go into files and messages, which are UTF-8
    except (ValueError, SystemError) as error:  # the latter for what is beyond Unicode
        raise DatasetError("expected valid Unicode text") from error
    return texts


def _read_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Array:
    with _located(entry.filename):
        with _readable(), archive.open(entry) as file:
            _check_header(file, entry.file_size)
        with _readable(), archive.open(entry) as file:
            return np.lib.format.read_array(file, allow_pickle=False)


def _check_header(file: IO[bytes], file_size: int) -> None:
    """Refuse what cannot be read, before NumPy allocates whatever the header declares."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADER_READERS:
        raise DatasetError(f"expected .npy format 1.0 or 2.0, got {version}")
    shape, _, dtype = _HEADER_READERS[version](file)
    if dtype.hasobject:
        raise DatasetError("holds Python objects, which are never unpickled")
    declared = math.prod(shape) * dtype.itemsize
    present = file_size - file.tell()
    if min(shape, default=1) < 0 or dtype.itemsize == 0 or declared != present:
        raise DatasetError(
            f"the header declares {declared} bytes ({dtype} {shape}), but {present} are there"
        )


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except DatasetError:
        raise
    except zipfile.BadZipFile as error:
        raise DatasetError(f"expected an .npz file, which is a zip: {error}") from error
    except OSError as error:
        raise DatasetError(f"cannot be read: {error.strerror or error}") from error
    # zipfile and NumPy answer damaged input with a dozen exceptions, and promise no list of them.
    except Exception as error:
        raise DatasetError(f"cannot be read: {str(error) or type(error).__name__}") from error


@contextmanager
def _located(*places: object) -> Iterator[None]:
    """Name the file, and the entry in it, in front of what is wrong there."""
    try:
        yield
    except DatasetError as error:
        where = ": ".join(str(place) for place in places)
        raise DatasetError(f"{where}: {error}") from error
