"""Data sets as arrays that have names, in one ``.npz`` file or in ``.npy`` files of a folder.

These are images and labels of each split: ``x_train``, ``y_train``, ``x_test`` and ``y_test``, or
``train_images``, ``train_labels`` and so on, or ``images`` and ``labels`` alone; and, if the
classes have names, ``class_labels``. Knows no particular data set.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve.datasets.class_labels import MAX_CLASSES, LabelIndex, label_numbers
from mlpserve.datasets.dataset import DatasetError, Labels
from mlpserve.datasets.errors import located
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

Array: TypeAlias = npt.NDArray[Any]
# What the entries of a split are called: that of the images, and that of the labels.
_Names: TypeAlias = tuple[str, str]

_KERAS = ("x_train", "y_train", "x_test", "y_test")
_CLASS_LABELS = "class_labels"
_IMAGE_WORDS = {"x", "images", "image", "imgs", "img", "data", "features", "pixels"}
_LABEL_WORDS = {"y", "labels", "label", "targets", "target", "classes"}
_NAME_WORDS = {"name", "names", "filenames", "id", "ids"}
_POSITIONAL = ("arr_0", "arr_1", "arr_2", "arr_3")  # what numpy.savez calls arrays without names


@dataclass(frozen=True)
class ArrayFiles:
    """Arrays in files.

    Attributes:
        path: Where they are.
        data_name: What the data is called.
        names: What the arrays are called.
        read: Reads those of some names.
    """

    path: Path
    data_name: str
    names: Sequence[str]
    read: Callable[[Sequence[str]], Mapping[str, Array]]


def read_array_data(files: ArrayFiles, options: ReadOptions, *, test_only: bool) -> RawData:
    """Read images and labels.

    The images are (N, ...) numbers. The labels are (N,) or (N, 1) integers, or (N,) unicode.
    ``class_labels`` is (K,) unicode; without it classes are called by their number.

    Args:
        files: Where they are.
        options: What is said about the images.
        test_only: Whether to read the test images alone, if there are any.

    Raises:
        DatasetError: They cannot be read, or one is missing or something else.
    """
    train_names, test_names = splits_of(_found_names(files))
    if test_only and test_names is not None:
        train_names = []
    names = [*train_names, *([] if test_names is None else [test_names])]
    optional = [_CLASS_LABELS] if _CLASS_LABELS in files.names else []
    arrays = files.read([*(name for pair in names for name in pair), *optional])
    with located(files.path, _CLASS_LABELS):
        class_labels = _class_labels(arrays.get(_CLASS_LABELS))
    index = LabelIndex() if any(arrays[pair[1]].dtype.kind == "U" for pair in names) else None
    train = [_split(files.path, arrays, pair, options, index) for pair in train_names]
    test = None if test_names is None else _split(files.path, arrays, test_names, options, index)
    return RawData(
        name=files.data_name,
        train=joined(train) if train else None,
        test=test,
        label_texts=class_labels if index is None else index.texts,
        class_labels=class_labels,
        from_zero=index is None,
    )


def is_image_name(name: str) -> bool:
    """Return whether an array of a name holds images."""
    return _role(name) == "images"


def _found_names(files: ArrayFiles) -> Mapping[str, _Names]:
    """Return the entries of each split, by what ``splits_of`` calls it.

    Raises:
        DatasetError: There are none, or images lack their labels.
    """
    found: dict[str, dict[str, str]] = {}
    for entry in files.names:
        role = _role(entry)
        if role is not None:
            found.setdefault(split_name(entry), {}).setdefault(role, entry)
    if set(found) - {""}:
        found.pop("", None)  # such as `labels`, the names of the classes
    if found and all(len(names) == len(("images", "labels")) for names in found.values()):
        return {split: (names["images"], names["labels"]) for split, names in found.items()}
    if not found and set(_POSITIONAL[:2]) <= set(files.names):
        return _positional(files)
    missing = [name for name in _KERAS if name not in files.names]
    raise DatasetError(
        f"{files.path}: expected {', '.join(_KERAS)} (or train_images, train_labels and so on, or "
        f"images and labels alone), missing {', '.join(missing)}; it holds {', '.join(files.names)}"
    )


def _role(entry: str) -> str | None:
    words = set(entry.lower().replace("-", "_").split("_"))
    if words & _NAME_WORDS or entry == _CLASS_LABELS:
        return None  # such as label_names of CIFAR-10
    if words & _LABEL_WORDS:
        return "labels"
    return "images" if words & _IMAGE_WORDS else None


def _positional(files: ArrayFiles) -> Mapping[str, _Names]:
    """Return which arrays without names are what: (x, y), (x, y, x, y) or (x, x, y, y)."""
    names = [name for name in _POSITIONAL if name in files.names]
    arrays = files.read(names)
    images = [name for name in names if arrays[name].size > len(arrays[name])]
    labels = [name for name in names if name not in images]
    pairs = list(zip(images, labels, strict=False))
    if len(images) != len(labels):
        raise DatasetError(
            f"{files.path}: expected images and labels in turn, got {', '.join(names)}"
        )
    return dict(zip(("train", "test") if len(pairs) > 1 else ("",), pairs, strict=True))


def _split(
    path: Path,
    arrays: Mapping[str, Array],
    names: _Names,
    options: ReadOptions,
    index: LabelIndex | None,
) -> RawSplit:
    images_name, labels_name = names
    images, labels = arrays[images_name], arrays[labels_name]
    with located(path, images_name):
        if images.ndim < 2 or not images.size:  # noqa: PLR2004
            raise DatasetError(f"expected at least one, as (count, ...), got shape {images.shape}")
        images = arranged(narrowed(images), options)
    with located(path, labels_name):
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
