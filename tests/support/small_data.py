"""Small data that a few epochs learn, for tests of training."""

from pathlib import Path

import numpy as np


def save_thirds(folder: Path) -> Path:
    """Save an .npz with three classes that differ in which third of the image is bright."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 300)
    images = rng.integers(0, 100, (300, 4, 6), np.uint8)
    for index, label in enumerate(labels):
        images[index, :, 2 * label : 2 * label + 2] += 150
    path = folder / "thirds.npz"
    np.savez(
        path, x_train=images[:200], y_train=labels[:200], x_test=images[200:], y_test=labels[200:]
    )
    return path
