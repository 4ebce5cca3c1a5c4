from pathlib import Path

import numpy as np
import pytest

from mlpserve.datasets import Dataset, load_dataset
from mlpserve.datasets.drawn import draw_digits


@pytest.fixture(scope="session")
def digits_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an .npz with 60 drawn digits to learn from and 20 to be judged by."""
    split = draw_digits(80, seed=4)
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    np.savez(
        path,
        x_train=split.images[:60],
        y_train=split.labels[:60],
        x_test=split.images[60:],
        y_test=split.labels[60:],
    )
    return path


@pytest.fixture(scope="session")
def digits(digits_path: Path) -> Dataset:
    """Return the digits of ``digits_path``."""
    return load_dataset(str(digits_path), data_dir=None)
