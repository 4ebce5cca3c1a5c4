"""Photographs of digits, before and after ``mlpserve.client.preprocess``: the table of accuracies.

    python benchmarks/photographs.py --data mnist --count 1000

The photographs are made: ink, drawn as the digits of the data are, on grey paper, with shadows,
uneven light, noise and colours. The network is trained on the data itself, by the default recipe.
"""

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from mlpserve.client import preprocess
from mlpserve.datasets import load_test_split
from mlpserve.model.versions import load_version
from mlpserve.model.weights import Model

_SIDE_PX = 240
_INKS = {
    "black": (0.12, 0.12, 0.14),
    "blue": (0.15, 0.25, 0.65),
    "red": (0.75, 0.15, 0.15),
    "pencil": (0.42, 0.42, 0.42),
}


@dataclass(frozen=True)
class Conditions:
    """How a photograph is taken.

    Attributes:
        ink: A key of the inks.
        paper: The brightness of the paper, 0 to 1.
        light: How much darker one edge is than the other, 0 to 1.
        shadow: How much darker a shadow is that covers a part, 0 for none.
        noise: The standard deviation of the noise.
        share: How much of the picture the digit's box takes.
        is_chalk: Whether it is light on dark.
        pen: How thick the stroke is of what it was; below 1 is a finer pen.
    """

    ink: str = "black"
    paper: float = 0.8
    light: float = 0.0
    shadow: float = 0.0
    noise: float = 0.01
    share: float = 0.6
    is_chalk: bool = False
    pen: float = 1.0


CONDITIONS = {
    "even light": Conditions(),
    "grey paper": Conditions(paper=0.5),
    "light from one side": Conditions(light=0.6, noise=0.02),
    "a hand's shadow": Conditions(shadow=0.45, noise=0.02),
    "both, and noise": Conditions(light=0.4, shadow=0.35, noise=0.04),
    "blue ink": Conditions(ink="blue", light=0.3, noise=0.02),
    "red ink": Conditions(ink="red", light=0.3, noise=0.02),
    "pencil": Conditions(ink="pencil", light=0.3, noise=0.02),
    "a fine pen": Conditions(pen=0.5, light=0.3, noise=0.02),
    "small, in a corner": Conditions(share=0.25, light=0.3, noise=0.02),
    "chalk": Conditions(is_chalk=True, paper=0.25, light=0.4, noise=0.02),
}


def photograph(
    digit: npt.NDArray[np.uint8], conditions: Conditions, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Return a photograph, (height, width, 3), of a drawn digit, (28, 28) light on dark."""
    ink = _strokes(digit, conditions, rng)[:, :, np.newaxis]
    paper = np.full(3, conditions.paper) * (1.0, 0.98, 0.93)
    colour = np.full(3, 0.9) if conditions.is_chalk else np.array(_INKS[conditions.ink])
    reflected = paper * (1 - ink) + (colour if conditions.is_chalk else colour * 0.9) * ink
    seen = reflected * _light(conditions, rng)[:, :, np.newaxis]
    seen += rng.normal(0, conditions.noise, seen.shape)
    return np.rint(np.clip(seen, 0, 1) * 255).astype(np.uint8)


def _strokes(
    digit: npt.NDArray[np.uint8], conditions: Conditions, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Return how much ink is where: the digit enlarged, with sharp edges, somewhere on the page."""
    rows, columns = np.flatnonzero(digit.any(axis=1)), np.flatnonzero(digit.any(axis=0))
    cropped = digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = conditions.share * _SIDE_PX / max(cropped.shape)
    size = tuple(max(1, round(side * scale)) for side in cropped.shape[::-1])
    large = np.asarray(Image.fromarray(cropped).resize(size, Image.Resampling.BICUBIC), np.float64)
    # The middle of a stroke is the brightest: of a finer pen only that is left.
    threshold = 255 * (1 - 0.5 * conditions.pen)
    inked = np.clip((large - threshold) / 40 + 0.5, 0, 1)
    page = np.zeros((_SIDE_PX, round(_SIDE_PX * 1.2)))
    margin = 0.06 * _SIDE_PX
    top, left = (
        round(rng.uniform(margin, space - side - margin))
        for space, side in zip(page.shape, inked.shape, strict=True)
    )
    page[top : top + inked.shape[0], left : left + inked.shape[1]] = inked
    return page


def _light(conditions: Conditions, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    height, width = _SIDE_PX, round(_SIDE_PX * 1.2)
    y, x = np.mgrid[0:height, 0:width]
    angle = rng.uniform(0, 2 * np.pi)
    along = (np.cos(angle) * (x / width - 0.5) + np.sin(angle) * (y / height - 0.5)) / 1.42 + 0.5
    light = 1 - conditions.light * np.clip(along, 0, 1)
    angle = rng.uniform(0, 2 * np.pi)
    beyond = np.cos(angle) * (x - width / 2) + np.sin(angle) * (y - height / 2)
    soft = np.clip((beyond - rng.uniform(-40, 40)) / 16 + 0.5, 0, 1)  # the edge of a shadow
    return np.asarray(light * (1 - conditions.shadow * soft))


def accuracies(
    data: str, *, data_dir: Path | None, count: int
) -> tuple[float, dict[str, tuple[float, float]]]:
    """Return accuracies in percent: of digits as in the data; of photographs, before and after.

    Args:
        data: ``mnist`` or ``drawn``.
        data_dir: Where MNIST is; the user's cache otherwise.
        count: How many digits of the test split are photographed under each condition.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mlpserve.trainer", "--data", data, "--name", "digits"]
        where = [] if data_dir is None else ["--data-dir", str(data_dir)]
        subprocess.run(
            [*command, *where, "--models", folder], check=True, stdout=subprocess.DEVNULL
        )
        model = load_version(Path(folder), "digits", 1)
    split = load_test_split(data, data_dir=data_dir)
    chosen = np.random.default_rng(4).permutation(len(split))[:count]
    digits, labels = split.images[chosen].astype(np.uint8), split.labels[chosen]
    rng = np.random.default_rng(3)
    found = {}
    for name, conditions in CONDITIONS.items():
        pictures = [photograph(digit, conditions, rng) for digit in digits]
        plain = np.stack([_resized(picture, conditions) for picture in pictures])
        found[name] = (
            _accuracy(model, plain, labels),
            _accuracy(model, preprocess(pictures), labels),
        )
    return _accuracy(model, digits, labels), found


def _resized(picture: npt.NDArray[np.uint8], conditions: Conditions) -> npt.NDArray[np.uint8]:
    """Return what one would send without preprocessing: scaled, and inverted where ink is dark."""
    grey = Image.fromarray(picture).convert("L").resize((28, 28), Image.Resampling.LANCZOS)
    values = np.asarray(grey)
    return values if conditions.is_chalk else 255 - values


def _accuracy(model: Model, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> float:
    found = model.network.probabilities(model.metadata.input.scale(images))
    return float(100 * (found.argmax(axis=1) == labels).mean())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=("mnist", "drawn"), default="mnist")
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--count", type=int, default=1000)
    options = parser.parse_args()
    clean, found = accuracies(options.data, data_dir=options.data_dir, count=options.count)
    print(f"| photographs of {options.data} | scaled and inverted | `--preprocess` |")
    print("|---|---|---|")
    for name, (before, after) in found.items():
        print(f"| {name} | {before:.1f} % | {after:.1f} % |")
    print(f"| the digits themselves | {clean:.1f} % | |")


if __name__ == "__main__":
    main()
