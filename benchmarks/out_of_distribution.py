"""Out-of-distribution scores: how well they tell digits from what is none, beside the baseline.

    python benchmarks/out_of_distribution.py --data-dir FOLDER_OF_MNIST

Trains by some recipes, shows each network MNIST's test images and images of other kinds, and prints
a table in Markdown. AUROC is how often, of a digit and another image, the other has the higher
score: 100 % is always, and 50 % is guessing. The baseline is the maximum probability; both are
asked to alarm for one in a hundred digits. Letters are those of the system's fonts.
"""

import argparse
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mlpserve.datasets import load_test_split
from mlpserve.model.compiled import CompiledModel, Workspace
from mlpserve.model.versions import load_version
from mlpserve.model.weights import Model

Images: TypeAlias = npt.NDArray[np.uint8]
Floats: TypeAlias = npt.NDArray[np.floating[Any]]
_RECIPES: Final = ("seed-fast", "fast", "good")
_FONTS: Final = Path("/usr/share/fonts/truetype")
_FAMILIES: Final = ("LiberationS*.ttf", "LiberationM*.ttf", "DejaVuS*.ttf")
# O, o, I and l are drawn as 0 and 1 are, so nobody can tell them apart.
_LETTERS: Final = [letter for letter in string.ascii_letters if letter not in "OoIl"]
_PAGE_PX: Final = 160
_SIDE_PX: Final = 28
_BOX_PX: Final = 20
_FALSE_ALARMS: Final = 0.01


def as_mnist(page: Image.Image) -> Images:
    """Return what is drawn on a page as MNIST's digits are: in a box, centred by its mass."""
    box = page.getbbox()
    if box is None:
        return np.zeros((_SIDE_PX, _SIDE_PX), np.uint8)
    drawn = page.crop(box)
    scale = _BOX_PX / max(drawn.size)
    width, height = (max(1, round(side * scale)) for side in drawn.size)
    small = np.asarray(drawn.resize((width, height), Image.Resampling.BOX), np.float64)
    middle = [
        float(np.arange(side) @ small.sum(axis=1 - axis) / small.sum())
        for axis, side in enumerate(small.shape)
    ]
    wide = np.zeros((3 * _SIDE_PX, 3 * _SIDE_PX))
    top, left = (round(1.5 * _SIDE_PX - 0.5 - place) for place in middle)
    wide[top : top + small.shape[0], left : left + small.shape[1]] = small
    return wide[_SIDE_PX : 2 * _SIDE_PX, _SIDE_PX : 2 * _SIDE_PX].astype(np.uint8)


def letters(count: int, fonts: list[Path], rng: np.random.Generator) -> Images:
    """Return letters of some fonts, each slanted a little."""

    def one() -> Images:
        font = ImageFont.truetype(str(fonts[rng.integers(len(fonts))]), 72)
        page = Image.new("L", (_PAGE_PX, _PAGE_PX))
        letter = _LETTERS[rng.integers(len(_LETTERS))]
        middle = _PAGE_PX / 2
        ImageDraw.Draw(page).text((middle, middle), letter, 255, font=font, anchor="mm")
        a, b = rng.normal(0, 0.12, 2)
        slant = (1, a, -middle * a, b, 1, -middle * b)
        return as_mnist(
            page.transform(page.size, Image.Transform.AFFINE, slant, Image.Resampling.BILINEAR)
        )

    return np.stack([one() for _ in range(count)])


def scribbles(count: int, rng: np.random.Generator) -> Images:
    """Return strokes through a few random points, of a pen's width."""

    def one() -> Images:
        corners = rng.uniform(20, _PAGE_PX - 20, (rng.integers(5, 12), 2))
        places = np.linspace(0, len(corners) - 1, 200)
        window = np.hanning(31) / np.hanning(31).sum()
        curve = [
            np.convolve(
                np.pad(np.interp(places, np.arange(len(corners)), corners[:, axis]), 15, "edge"),
                window,
                "valid",
            )
            for axis in (0, 1)
        ]
        page = Image.new("L", (_PAGE_PX, _PAGE_PX))
        points = [(float(x), float(y)) for x, y in zip(*curve, strict=True)]
        ImageDraw.Draw(page).line(points, 255, width=int(rng.integers(10, 18)), joint="curve")
        return as_mnist(page)

    return np.stack([one() for _ in range(count)])


def at_the_edge(digits: Images, rng: np.random.Generator) -> Images:
    """Return digits in one of the four corners."""
    moved = np.zeros_like(digits)
    for digit, target in zip(digits, moved, strict=True):
        rows, columns = np.flatnonzero(digit.any(axis=1)), np.flatnonzero(digit.any(axis=0))
        part = digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        top, left = rng.integers(0, 2, 2) * (_SIDE_PX - np.array(part.shape))
        target[top : top + part.shape[0], left : left + part.shape[1]] = part
    return moved


def kinds(digits: Images, fonts: list[Path]) -> dict[str, Images]:
    """Return images of each kind by its name."""
    rng = np.random.default_rng(1)
    count, shape = len(digits), digits.shape
    shifts = rng.choice([-4, 4], (count, 2))
    greys = np.arange(1, 256, dtype=np.uint8)
    return {
        "letters": letters(count, fonts, rng),
        "scribbles": scribbles(count, rng),
        "noise, each value as likely": rng.integers(0, 256, shape, np.uint8),
        "noise, as bright as digits": np.clip(rng.normal(33, 79, shape), 0, 255).astype(np.uint8),
        "digits with noise": np.clip(digits + rng.normal(0, 51, shape), 0, 255).astype(np.uint8),
        "digits, inverted": 255 - digits,
        "digits, at the edge": at_the_edge(digits, rng),
        "digits, 4 pixels off": np.stack(
            [np.roll(digit, shift, (0, 1)) for digit, shift in zip(digits, shifts, strict=True)]
        ),
        "digits, turned by 90°": np.rot90(digits, axes=(1, 2)).copy(),
        "all black": np.zeros((1, _SIDE_PX, _SIDE_PX), np.uint8),
        "one grey": np.broadcast_to(greys[:, None, None], (255, _SIDE_PX, _SIDE_PX)).copy(),
    }


def auroc(known: Floats, strange: Floats) -> float:
    """Return how often a strange image has the higher score of two; a tie is a half."""
    ordered = np.sort(known)
    below, not_above = (np.searchsorted(ordered, strange, side) for side in ("left", "right"))
    return float((below + not_above).mean() / 2 / len(known))


def table(model: Model, digits: Images, strange: Mapping[str, Images]) -> list[str]:
    """Return the rows of one network's table."""
    spec, detector = model.metadata.input, model.detector
    if detector is None:
        raise SystemExit("the version has no out-of-distribution score")

    def score(images: Images) -> Floats:
        return detector.scores(images, model.network.probabilities(spec.scale(images)), spec)

    def doubt(images: Images) -> Floats:
        doubts: Floats = -model.network.probabilities(spec.scale(images)).max(axis=1)
        return doubts

    known, doubts = score(digits), doubt(digits)
    limit = np.quantile(doubts, 1 - _FALSE_ALARMS)
    rows = ["| kind | maximum probability | alarms | score | alarms |", "|---|---|---|---|---|"]
    for name, images in strange.items():
        found, baseline = score(images), doubt(images)
        figures = (
            auroc(doubts, baseline),
            (baseline > limit).mean(),
            auroc(known, found),
            (found > detector.threshold).mean(),
        )
        rows.append(f"| {name} | " + " | ".join(f"{100 * each:.1f} %" for each in figures) + " |")
    alarms = (known > detector.threshold).mean()
    return [*rows, f"| digits themselves | | 1.0 % | | {100 * alarms:.1f} % |"]


def share_of_a_pass(model: Model, digits: Images) -> str:
    """Return the processor's time of scores beside that of the pass, for one image and for 64."""
    compiled, workspace, detector = CompiledModel(model), Workspace(), model.detector
    if detector is None:
        return ""
    told = []
    for count in (1, 64):
        images = digits[:count].reshape(count, -1)
        answers = compiled.classify([images], workspace).probabilities
        calls: tuple[Callable[[], object], ...] = (
            lambda images=images: compiled.answers([images], workspace),  # type: ignore[misc]
            lambda images=images, answers=answers: detector.scores(  # type: ignore[misc]
                images, answers, model.metadata.input
            ),
        )
        rounds = [[_cpu_us(call) for call in calls] for _ in range(21)]
        of_pass, of_scores = np.median(rounds, axis=0)
        told.append(f"{of_scores:.0f} µs after a pass of {of_pass:.0f} µs for {count} image(s)")
    return ", ".join(told)


def _cpu_us(call: Callable[[], object], times: int = 100) -> float:
    began_s = time.process_time()
    for _ in range(times):
        call()
    return 1e6 * (time.process_time() - began_s) / times


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, help="folder with the four MNIST files")
    parser.add_argument("--fonts", type=Path, default=_FONTS, help=f"default: {_FONTS}")
    parser.add_argument("--count", type=int, default=2000, help="images of a kind; default: 2000")
    options = parser.parse_args()
    fonts = sorted(path for family in _FAMILIES for path in options.fonts.rglob(family))
    if not fonts:
        raise SystemExit(f"{options.fonts}: expected the fonts Liberation or DejaVu")
    digits = load_test_split("mnist", data_dir=options.data_dir).images.astype(np.uint8)
    strange = kinds(digits[: options.count], fonts)
    with tempfile.TemporaryDirectory() as folder:
        for recipe in _RECIPES:
            command = [sys.executable, "-m", "mlpserve.trainer", "--data", "mnist", "--no-report"]
            command += ["--recipe", recipe, "--name", recipe, "--models", folder]
            if options.data_dir is not None:
                command += ["--data-dir", str(options.data_dir)]
            subprocess.run(command, check=True, capture_output=True)
            model = load_version(Path(folder), recipe, 1)
            sizes = "-".join(map(str, model.metadata.layer_sizes))
            accuracy = 100 * model.metadata.training.test_accuracy
            print(f"\n{recipe}, {sizes}, test accuracy {accuracy:.2f} %:\n")
            print("\n".join(table(model, digits, strange)))
            print(f"\nThe scores take {share_of_a_pass(model, digits)}.", flush=True)


if __name__ == "__main__":
    main()
