"""Data sets in IDX files: MNIST's four file names, and those of its relatives.

MNIST, Fashion-MNIST and KMNIST call them ``train-images-idx3-ubyte`` and so on, EMNIST
``emnist-letters-train-images-idx3-ubyte``, QMNIST ``qmnist-train-labels-idx2-int``.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mlpserve.datasets.class_labels import label_numbers
from mlpserve.datasets.dataset import DatasetError, Labels
from mlpserve.datasets.idx import IDX_NAMES, read_idx
from mlpserve.datasets.raw import RawData, RawSplit, ReadOptions, arranged, narrowed

_NAME: Final = re.compile(
    r"(?P<prefix>.*?)(?P<split>train|t10k|test)[-_](?P<kind>images|labels)[-.]idx\d[-.]\w+?(\.gz)?",
    re.IGNORECASE,
)
_MIN_IMAGE_DIMENSIONS: Final = 2
_MAX_LABEL_DIMENSIONS: Final = 2

# The files of a family, by split (train or test) and kind (images or labels).
_Files = Mapping[tuple[str, str], Path]


def is_idx_data(path: Path) -> bool:
    """Return whether a path is a folder with IDX files, one of them, or what their names share."""
    if path.is_dir():
        return bool(_families(path))
    return _NAME.fullmatch(path.name) is not None or path.name in _families(path.parent)


def read_idx_data(path: Path, options: ReadOptions, *, test_only: bool) -> RawData:
    """Read the images and labels of one family of files; the data is called like it.

    Args:
        path: The folder, if it holds one family; or one of the files; or what their names share,
            as in ``gzip/emnist-letters``.
        options: What is said about the images.
        test_only: Whether to read the test images alone, if there are any.

    Raises:
        DatasetError: A file is missing or cannot be used, or images and labels do not fit.
    """
    name, files = _family(path)
    has_test = any(split == "test" for split, _ in files)
    train = None if test_only and has_test else _read_split(path, files, "train", options)
    test = _read_split(path, files, "test", options) if has_test else None
    names = _emnist_names(next(iter(files.values())).parent / f"{name}-mapping.txt")
    return RawData(
        name or path.resolve().name,
        train,
        test,
        label_texts=names,
        from_zero=has_test and not name,  # the four files that earlier releases knew
    )


def _families(folder: Path) -> dict[str, dict[tuple[str, str], Path]]:
    """Return the files of each family in a folder, by what stands before train or test."""
    try:
        entries = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be read: {error.strerror or error}") from error
    found: dict[str, dict[tuple[str, str], Path]] = {}
    for entry in entries:
        if (match := _NAME.fullmatch(entry.name)) and entry.is_file():
            split = "train" if match["split"].lower() == "train" else "test"
            family = found.setdefault(match["prefix"].rstrip("-_."), {})
            # The gzipped one comes after the other, and is smaller.
            family[split, match["kind"].lower()] = entry
    return found


def _family(path: Path) -> tuple[str, _Files]:
    if not path.is_dir():
        match = _NAME.fullmatch(path.name)
        name = match["prefix"].rstrip("-_.") if match else path.name
        return name, _families(path.parent)[name]
    families = _families(path)
    if len(families) > 1:
        choices = ", ".join(str(path / name) for name in families)
        raise DatasetError(f"{path}: holds several data sets; expected one of {choices}")
    ((name, files),) = families.items()
    return name, files


def _read_split(path: Path, files: _Files, split: str, options: ReadOptions) -> RawSplit:
    missing = [kind for kind in ("images", "labels") if (split, kind) not in files]
    if missing:
        raise DatasetError(
            f"{path}: expected the IDX files (.gz or not), missing "
            f"{', '.join(_official_name(split, kind) for kind in missing)}"
        )
    images_path, labels_path = files[split, "images"], files[split, "labels"]
    images, labels = read_idx(images_path), _labels(labels_path)
    if images.ndim < _MIN_IMAGE_DIMENSIONS:
        raise DatasetError(f"{images_path}: expected 2 dimensions or more, got {images.ndim}")
    if len(images) != len(labels):
        raise DatasetError(
            f"{images_path} holds {len(images)} images, but {labels_path} holds "
            f"{len(labels)} labels; expected one for each"
        )
    return RawSplit(arranged(narrowed(images), options, where=str(images_path)), labels)


def _official_name(split: str, kind: str) -> str:
    begin = f"{'t10k' if split == 'test' else split}-{kind}"
    return next(name for name in IDX_NAMES if name.startswith(begin))


def _labels(path: Path) -> Labels:
    labels = read_idx(path)
    if labels.ndim > _MAX_LABEL_DIMENSIONS:
        raise DatasetError(f"{path}: expected 1 dimension, got {labels.ndim}")
    if labels.ndim == _MAX_LABEL_DIMENSIONS:
        labels = labels[:, 0]  # of QMNIST, where the others say who wrote it
    try:
        return label_numbers(labels)
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from error


def _emnist_names(path: Path) -> tuple[str, ...] | None:
    """Return what EMNIST's labels stand for: each line is a label and codes of the letters."""
    if not path.is_file():
        return None
    try:
        lines = [line.split() for line in path.read_text().splitlines() if line.strip()]
        names = {int(line[0]): chr(int(line[1])) for line in lines}
    except (ValueError, IndexError, OSError) as error:
        raise DatasetError(f"{path}: expected a label and a code in each line: {error}") from error
    return tuple(names.get(number, str(number)) for number in range(max(names, default=-1) + 1))
