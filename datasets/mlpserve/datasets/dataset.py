"""Data sets: labelled images in two splits, whatever they show and wherever they are from.

Knows no file format and no particular data set.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve.datasets.disk_images import DiskImages, chunks, selected
from mlpserve.datasets.errors import DatasetError
from mlpserve.datasets.progress import progress

__all__ = ["Dataset", "DatasetError", "Images", "Labels", "Split", "check_class_labels"]

# In memory; or ``DiskImages``, cast to this, because it does what is done to the images of a split.
Images: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.int32] | npt.NDArray[np.float32]
Labels: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """Images and the class of each; checked when it is made.

    Attributes:
        images: (N, ...) uint8, int32 or finite float32, in whatever range the data has, N at
            least 1; in memory or on disk.
        labels: (N,) int64 classes, each at least 0.

    Raises:
        DatasetError: The two do not match, or hold what the types above rule out.
    """

    images: Images
    labels: Labels

    def __post_init__(self) -> None:
        if self.images.dtype not in (np.uint8, np.int32, np.float32):
            raise DatasetError(f"images: expected uint8, int32 or float32, got {self.images.dtype}")
        if self.images.ndim < 2 or self.images.size == 0:  # noqa: PLR2004
            raise DatasetError(
                f"images: expected at least one, as (count, ...), got shape {self.images.shape}"
            )
        if self.labels.shape != (len(self.images),):
            raise DatasetError(
                f"labels: expected one for each of the {len(self.images)} images, "
                f"got shape {self.labels.shape}"
            )
        if self.labels.min() < 0:
            raise DatasetError(f"labels: expected classes from 0, got {self.labels.min()}")
        if not _is_finite(self.images):
            raise DatasetError(
                f"images: expected finite values, got {self.images.min():g} to "
                f"{self.images.max():g}; fill what is missing, or leave out the images that lack it"
            )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def select(self, rows: Labels) -> "Split":
        """Return some of the images: in memory, or on disk where these are and many are selected.

        Args:
            rows: (M,) their indices, rising.

        Raises:
            DatasetError: A file cannot be read, or there are none.
        """
        return Split(selected(self.images, rows), self.labels[rows])


def _is_finite(images: Images) -> bool:
    if isinstance(images, DiskImages):
        return images.is_finite()
    if images.dtype != np.float32:
        return True
    return bool(np.isfinite(images.min()) and np.isfinite(images.max()))


def check_class_labels(labels: Sequence[str]) -> None:
    """Refuse class labels that do not tell the classes apart.

    Raises:
        DatasetError: One is empty, or two are equal.
    """
    first: dict[str, int] = {}
    for number, label in enumerate(labels):
        if not label.strip():
            raise DatasetError(f"class_labels: expected a text for class {number}, got {label!r}")
        if first.setdefault(label, number) != number:
            raise DatasetError(
                f"class_labels: expected different texts, got {label!r} for the classes "
                f"{first[label]} and {number}"
            )


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split that show the same kind of images.

    Attributes:
        name: What the data is called in logs and in a model's metadata.
        class_labels: What each class is called, class 0 first.
        train: What a network learns from.
        test: What it is judged by.
        test_origin: Where the test images are from, if the data came without any; "" for its own.

    Raises:
        DatasetError: The splits differ in image shape or dtype, a label has no name, or names are
            empty or equal.
    """

    name: str
    class_labels: tuple[str, ...]
    train: Split
    test: Split
    test_origin: str = ""

    def __post_init__(self) -> None:
        check_class_labels(self.class_labels)
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise DatasetError(
                f"images: the training images are {self.train.images.shape[1:]}, "
                f"the test images {self.test.images.shape[1:]}"
            )
        if self.train.images.dtype != self.test.images.dtype:
            raise DatasetError(
                f"images: the training images are {self.train.images.dtype}, "
                f"the test images {self.test.images.dtype}"
            )
        largest = max(self.train.labels.max(), self.test.labels.max())
        if largest >= len(self.class_labels):
            raise DatasetError(
                f"labels: {len(self.class_labels)} classes have a name, but a label is {largest}"
            )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of one image."""
        return self.train.images.shape[1:]

    def digest(self) -> str:
        """Return the SHA-256 of all that the two splits hold, as ``sha256:`` and 64 hex digits."""
        digest = hashlib.sha256()
        splits, done = (self.train, self.test), 0
        with progress(f"checking {self.name}") as note:
            for split in splits:
                for array in (split.images, split.labels):
                    digest.update(f"{array.dtype.str}{array.shape}".encode())
                    for chunk in chunks(array):
                        digest.update(np.ascontiguousarray(chunk).data)
                        done += len(chunk)
                        note(done // 2, sum(map(len, splits)))
        return f"sha256:{digest.hexdigest()}"
