"""The README's picture: one digit on its way through the network of the tutorial.

    mlpserve-train --data mnist --recipe seed --name tutorial
    python docs/picture.py models/tutorial/1/weights.npz > docs/network.svg

All that it shows is real: the pixels of ``examples/digit.json``, what each neuron answers to them,
and the products of outputs and weights as lines, the larger the stronger.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.floating[Any]]
Point: TypeAlias = tuple[float, float]

DIGIT: Final = Path(__file__).parents[1] / "examples" / "digit.json"
WIDTH, HEIGHT, MIDDLE = 880, 330, 152
IMAGE_LEFT, PIXEL = 20, 7
COLUMNS: Final = (330, 470, 610)  # the x of each layer's neurons
RADIUS = 6
SHADES = 4
POSITIVE, NEGATIVE = "#2563c9", "#d9822b"
HEAD: Final = f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" \
font-family="DejaVu Sans, Verdana, sans-serif" font-size="13">
<title>A digit of 784 pixels goes through layers of 16, 16 and 10 neurons.</title>
<rect width="{WIDTH}" height="{HEIGHT}" rx="10" fill="#fbfcfe"/>
<style>.p{{stroke:{POSITIVE}}}.n{{stroke:{NEGATIVE}}}</style>
"""
CAPTIONS: Final = (
    (IMAGE_LEFT + 14 * PIXEL, "784 pixels", "x"),
    (COLUMNS[0], "16 neurons", "a₁ = tanh(x W₁ + b₁)"),
    (COLUMNS[1], "16 neurons", "a₂ = tanh(a₁ W₂ + b₂)"),
    (COLUMNS[2] + 110, "10 probabilities", "p = softmax(a₂ W₃ + b₃)"),
)


def main(weights_file: str) -> None:
    """Print the picture."""
    image = np.array(json.loads(DIGIT.read_text())["inputs"][0]["data"]) / 255  # (28, 28)
    with np.load(weights_file, allow_pickle=False) as file:
        layers = [(file[f"W{number}"], file[f"b{number}"]) for number in (1, 2, 3)]
    outputs = [image.reshape(1, -1)]
    for weights, bias in layers[:-1]:
        outputs.append(np.tanh(outputs[-1] @ weights + bias))
    logits = (outputs[-1] @ layers[-1][0] + layers[-1][1])[0]
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    hidden = [column(x, 16) for x in COLUMNS[:2]]
    last = column(COLUMNS[2], 10)
    print(HEAD, end="")
    print("\n".join(pixels(image)))
    print("\n".join(rays(hidden[0], outputs[1][0])))
    print("\n".join(lines(hidden[0], hidden[1], outputs[1].T * layers[1][0])))
    print("\n".join(lines(hidden[1], last, outputs[2].T * layers[2][0])))
    for points, values in zip(hidden, (outputs[1][0], outputs[2][0]), strict=True):
        print("\n".join(neurons(points, values)))
    print("\n".join(bars(last, probabilities)))
    print("\n".join(captions()))
    print("</svg>")


def column(x: float, count: int) -> list[Point]:
    """Return the centers of a layer's neurons, from top to bottom."""
    gap = 264 / count
    return [(x, MIDDLE + gap * (index - (count - 1) / 2)) for index in range(count)]


def pixels(image: Array) -> Iterator[str]:
    """Draw the digit, white on black: one path for each shade of gray."""
    top = MIDDLE - 14 * PIXEL
    side = 28 * PIXEL
    yield f'<rect x="{IMAGE_LEFT}" y="{top}" width="{side}" height="{side}" fill="#10151d"/>'
    shades = np.ceil(image * SHADES).astype(int)
    for shade in range(1, SHADES + 1):
        squares = "".join(
            f"M{IMAGE_LEFT + PIXEL * x} {top + PIXEL * y}h{PIXEL}v{PIXEL}h-{PIXEL}z"
            for y, x in np.argwhere(shades == shade)
        )
        yield f'<path d="{squares}" fill="#fff" fill-opacity="{shade / SHADES:g}"/>'


def rays(neurons: Sequence[Point], values: Array) -> Iterator[str]:
    """Draw a line from the image to each neuron of the first layer."""
    left = IMAGE_LEFT + 28 * PIXEL
    for (x, y), value in zip(neurons, values, strict=True):
        start = MIDDLE + (y - MIDDLE) * 0.7
        yield line((left, start), (x, y), 0.9 * value)


def lines(left: Sequence[Point], right: Sequence[Point], products: Array) -> Iterator[str]:
    """Draw what each neuron of one layer (rows) adds to those of the next (columns)."""
    largest = np.abs(products).max()
    for (i, j), product in np.ndenumerate(products / largest):
        if abs(product) > 0.15:  # noqa: PLR2004 - weaker ones cannot be seen
            yield line(left[i], right[j], product)


def line(start: Point, end: Point, value: float) -> str:
    """Draw one line, blue above 0 and orange below."""
    (x1, y1), (x2, y2) = start, end
    sign, size = "p" if value > 0 else "n", abs(value)
    return (
        f'<path class="{sign}" d="M{x1} {y1:.0f}L{x2} {y2:.0f}" '
        f'stroke-width="{0.4 + 2.2 * size:.1f}" opacity="{0.15 + 0.6 * size:.2f}"/>'
    )


def neurons(points: Sequence[Point], values: Array) -> Iterator[str]:
    """Draw the neurons of a hidden layer, filled the more the further they are from 0."""
    for (x, y), value in zip(points, values, strict=True):
        color = POSITIVE if value > 0 else NEGATIVE
        circle = f'<circle cx="{x}" cy="{y:.1f}" r="{RADIUS}"'
        yield f'{circle} fill="#fff"/>'
        yield f'{circle} fill="{color}" fill-opacity="{abs(value):.2f}" stroke="{color}"/>'


def bars(points: Sequence[Point], probabilities: Array) -> Iterator[str]:
    """Draw the output layer: a circle with its digit, and a bar of its probability."""
    for digit, ((x, y), probability) in enumerate(zip(points, probabilities, strict=True)):
        found = digit == probabilities.argmax()
        text = 'fill="#1d2733" font-weight="bold"' if found else 'fill="#1d2733"'
        color, fill = (POSITIVE, "#cfe0fa") if found else ("#8a99ad", "#fff")
        yield (
            f'<circle cx="{x}" cy="{y:.1f}" r="10" fill="{fill}" stroke="{color}"/>'
            f'<text x="{x}" y="{y + 4.5:.1f}" text-anchor="middle" {text}>{digit}</text>'
            f'<rect x="{x + 20}" y="{y - 6:.1f}" width="{max(1, 150 * probability):.1f}" '
            f'height="12" fill="{color}"/>'
        )
        if probability >= 0.01:  # noqa: PLR2004 - the others are next to nothing
            end = x + 28 + 150 * probability
            yield f'<text x="{end:.0f}" y="{y + 4.5:.1f}" {text}>{100 * probability:.1f} %</text>'


def captions() -> Iterator[str]:
    """Write under each part what it is, and its formula."""
    for x, name, formula in CAPTIONS:
        yield (
            f'<text x="{x}" y="303" text-anchor="middle" font-weight="bold" fill="#1d2733">'
            f'{name}</text><text x="{x}" y="320" text-anchor="middle" font-size="11" '
            f'fill="#44546a">{formula}</text>'
        )


if __name__ == "__main__":
    main(sys.argv[1])
