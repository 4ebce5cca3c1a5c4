"""Examples: the test images that a visitor steps through."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.datasets import load_test_split
from mlpserve.datasets.dataset import Split

_LOOKED_AT: Final = 1000  # images, to find which value is white


class Examples:
    """Test images of a data set, loaded when the first is asked for.

    Args:
        data: The data set, as ``mlpserve-train --data`` names it.
        data_dir: Where its files may be; the user's cache folder otherwise.
    """

    def __init__(self, data: str, data_dir: Path | None) -> None:
        self.name = data
        self._data_dir = data_dir
        self._split: Split | None = None
        self._black, self._white = 0.0, 255.0

    @property
    def count(self) -> int:
        """Return how many images there are; 0 before the first was asked for."""
        return 0 if self._split is None else len(self._split.labels)

    def get(self, number: int) -> tuple[npt.NDArray[Any], str]:
        """Return an image as grey bytes, and its class; after the last comes the first again.

        Raises:
            DatasetError: The data cannot be used.
        """
        if self._split is None:
            self._split = load_test_split(self.name, data_dir=self._data_dir)
            first = self._split.images[:_LOOKED_AT]
            self._black, self._white = min(0.0, float(first.min())), float(first.max())
        number %= self.count
        return self._grey(self._split.images[number]), str(int(self._split.labels[number]))

    def _grey(self, image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Return an image of data in any range of values as bytes: its highest value is white."""
        if self._white == np.iinfo(np.uint8).max:
            return image.astype(np.uint8)
        shares = (image - self._black) / max(self._white - self._black, 1e-9)
        return np.rint(np.iinfo(np.uint8).max * shares).astype(np.uint8)
