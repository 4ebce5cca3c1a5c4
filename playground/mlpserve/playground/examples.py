"""Examples: the test images that a visitor steps through."""

from pathlib import Path
from typing import Any

import numpy.typing as npt

from mlpserve.datasets import load_test_split
from mlpserve.datasets.dataset import Split


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

    @property
    def count(self) -> int:
        """Return how many images there are; 0 before the first was asked for."""
        return 0 if self._split is None else len(self._split.labels)

    def get(self, number: int) -> tuple[npt.NDArray[Any], str]:
        """Return an image and its class label; after the last comes the first again.

        Raises:
            DatasetError: The data cannot be used.
        """
        if self._split is None:
            self._split = load_test_split(self.name, data_dir=self._data_dir)
        number %= self.count
        return self._split.images[number], str(int(self._split.labels[number]))
