"""Data sets: labelled images in two splits, whatever they show and wherever they are from.

Knows no file format and no particular data set.
"""

import hashlib
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt

from mlpserve.datasets.disk_images import SMALL_BYTES, DiskImages, chunks
from mlpserve.datasets.errors import DatasetError
from mlpserve.datasets.progress import progress

__all__ = ["Dataset", "DatasetError", "Images", "Labels", "Split", "numbered_class_labels"]

# In memory; or ``DiskImages``, cast to this, because it does what is done to the images of a split.
Images: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
Labels: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """Images and the class of each; checked when it is made.

    Attributes:
        images: (N, ...) uint8 in 0..255 or float32 in 0..1, N at least 1; in memory or on disk.
        labels: (N,) int64 classes, each at least 0.

    Raises:
        DatasetError: The two do not match, or hold what the types above rule out.
    """

    images: Images
    labels: Labels

    def __post_init__(self) -> None:
        if self.images.dtype not in (np.uint8, np.float32):
            raise DatasetError(f"images: expected uint8 or float32, got {self.images.dtype}")
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
        # What is on disk was checked by its reader: it would take long to do so each time.
        if isinstance(self.images, DiskImages):
            return
        # Written so that a NaN, which compares false, is refused as well.
        if self.images.dtype == np.float32 and not (
            self.images.min() >= 0 and self.images.max() <= 1
        ):
            raise DatasetError(
                f"images: expected float values from 0 to 1, got {self.images.min():g} to "
                f"{self.images.max():g}; values up to 255 belong in uint8, or divide them by 255"
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
        images = self.images
        if isinstance(images, DiskImages):
            selected = images.select(rows)
            if selected.nbytes > SMALL_BYTES:
                return Split(cast("Images", selected), self.labels[rows])
            return Split(selected.load("reading"), self.labels[rows])
        return Split(images[rows], self.labels[rows])


def numbered_class_labels(train: Split, test: Split) -> tuple[str, ...]:
    """Return "0", "1", ... for the classes of two splits: what classes without names are called."""
    count = int(max(train.labels.max(), test.labels.max())) + 1
    return tuple(str(number) for number in range(count))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split that show the same kind of images.

    Attributes:
        name: What the data is called in logs and in a model's metadata.
        class_labels: What each class is called, class 0 first.
        train: What a network learns from.
        test: What it is judged by.

    Raises:
        DatasetError: The splits differ in image shape or dtype, or a label has no name.
    """

    name: str
    class_labels: tuple[str, ...]
    train: Split
    test: Split

    def __post_init__(self) -> None:
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
