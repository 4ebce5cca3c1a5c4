"""Glyphs of the ten digits: smooth pen strokes through a few control points, as people write them.

Knows the ideal shapes and how to trace them; nothing of chance, pixels or ink.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Stroke: TypeAlias = npt.NDArray[np.float64]  # (control points, 2)
FloatArray: TypeAlias = npt.NDArray[np.float32]

GLYPH_SIZE = 100.0
"""Height and greatest width of a glyph: the unit of all control points."""

POINTS_PER_GLYPH = 80
"""Points that trace a glyph. One number for all, so that all fit one array."""

DRIFT_REACH = 1.5
"""Control points within which the hand errs in much the same direction."""

DENSE_POINTS_PER_SPAN = 16
"""Points per span at which a stroke is followed to measure its length."""


@dataclass(frozen=True, eq=False)
class Glyph:
    """One way to write a digit: C control points and what the pen does with them.

    Attributes:
        share: How common this way is, relative to the other glyphs of its digit.
        control_points: (C, 2) x to the right and y down, in the order of writing.
        drift: (C, C). Times C independent standard normal numbers it gives C numbers of variance 1
            that are alike for points written one after the other: how a hand strays.
        tracing: (POINTS_PER_GLYPH, C). Times control points, moved about or not, it gives points
            all along the strokes, evenly spaced where the control points are as designed.
        pen_down: (POINTS_PER_GLYPH - 1,) whether the pen draws between a point and the next.
    """

    share: float
    control_points: FloatArray
    drift: FloatArray
    tracing: FloatArray
    pen_down: npt.NDArray[np.bool_]


def _glyph(share: float, *strokes: str) -> Glyph:
    """Return the glyph with these strokes, each written as ``"x,y x,y x,y"``.

    A stroke is smooth; a corner is where one ends and the next begins. Points that are written
    alike are one control point, so whatever moves it, the strokes stay joined.
    """
    names = [stroke.split() for stroke in strokes]
    distinct = list(dict.fromkeys(name for stroke in names for name in stroke))
    columns = [[distinct.index(name) for name in stroke] for stroke in names]
    points = np.array([name.split(",") for name in distinct], np.float64)

    counts = _shared_out(POINTS_PER_GLYPH, [_length(points[stroke]) for stroke in columns])
    tracing = np.zeros((POINTS_PER_GLYPH, len(points)))
    ends = np.cumsum(counts)
    for stroke, end, count in zip(columns, ends, counts, strict=True):
        weights = _spline_weights(_even_positions(points[stroke], count), len(stroke))
        # Adds up where a stroke comes back to one of its own points; plain += would not.
        np.add.at(tracing[end - count : end].T, stroke, weights.T)
    pen_down = np.ones(POINTS_PER_GLYPH - 1, np.bool_)
    pen_down[ends[:-1] - 1] = False
    return Glyph(
        share=share,
        control_points=points.astype(np.float32),
        drift=_drift(len(points)),
        tracing=tracing.astype(np.float32),
        pen_down=pen_down,
    )


def _drift(count: int) -> FloatArray:
    """Return Gaussian averages over neighbours, scaled to keep the variance at 1."""
    order = np.arange(count)
    distances = order[:, None] - order
    kernel: npt.NDArray[np.float64] = np.exp(-np.square(distances / DRIFT_REACH) / 2)
    kernel /= np.sqrt(np.square(kernel).sum(axis=1, keepdims=True))
    return kernel.astype(np.float32)


def _spline_weights(
    positions: npt.NDArray[np.float64], point_count: int
) -> npt.NDArray[np.float64]:
    """Return how a smooth curve through control points weights them at some positions.

    It is the Catmull-Rom curve: at position i it passes through point i, in the direction from
    point i - 1 to point i + 1. In between, at i + t, it is a sum of the points i - 1 to i + 2,
    weighted with the cubics below. Beyond either end stands a mirrored point, 2 p0 - p1.

    Args:
        positions: (N,) values from 0 to point_count - 1.
        point_count: How many control points, at least 2.

    Returns:
        (N, point_count) weights, 1 in sum at every position.
    """
    before = np.minimum(positions.astype(np.intp), point_count - 2)
    t = positions - before
    cubics = (
        (-t + 2 * t**2 - t**3) / 2,
        (2 - 5 * t**2 + 3 * t**3) / 2,
        (t + 4 * t**2 - 3 * t**3) / 2,
        (-(t**2) + t**3) / 2,
    )
    points = np.eye(point_count)
    padded = np.vstack([2 * points[0] - points[1], points, 2 * points[-1] - points[-2]])
    weights = np.zeros((len(positions), point_count))
    for offset, cubic in enumerate(cubics):
        weights += cubic[:, None] * padded[before + offset]
    return weights


def _even_positions(stroke: Stroke, count: int) -> npt.NDArray[np.float64]:
    """Return positions, first to last, with the same length of line between neighbours."""
    positions, lengths = _lengths_along(stroke)
    return np.interp(np.linspace(0, lengths[-1], count), lengths, positions)


def _length(stroke: Stroke) -> float:
    return float(_lengths_along(stroke)[1][-1])


def _lengths_along(stroke: Stroke) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return closely spaced positions on a stroke and the length of the line up to each."""
    spans = len(stroke) - 1
    positions = np.linspace(0, spans, DENSE_POINTS_PER_SPAN * spans + 1)
    steps = np.diff(_spline_weights(positions, len(stroke)) @ stroke, axis=0)
    return positions, np.concatenate([[0.0], np.cumsum(np.hypot(*steps.T))])


def _shared_out(total: int, lengths: Sequence[float]) -> list[int]:
    """Return counts that add up to ``total``: 2 each, the rest in proportion to ``lengths``."""
    rest = total - 2 * len(lengths)
    bounds = np.cumsum([0.0, *lengths]) / sum(lengths) * rest
    return [2 + int(share) for share in np.diff(bounds.round())]


GLYPHS: tuple[tuple[Glyph, ...], ...] = (
    (  # 0
        # closed at the top
        _glyph(4, "55,0 27,13 15,50 25,87 50,100 77,85 85,50 75,15 53,1"),
        # ends crossing
        _glyph(3, "70,6 45,2 22,22 15,55 27,90 50,100 77,84 85,50 72,16 45,8 36,16"),
        # ends curling inwards
        _glyph(1, "40,0 18,25 15,62 30,93 60,98 82,75 84,35 68,8 45,12 45,28"),
        # open at the top
        _glyph(0.5, "38,2 18,28 15,65 32,95 62,97 82,70 84,35 72,8 62,2"),
        # begun with a slash inside
        _glyph(1, "62,50 70,15 55,0 27,13 15,50 25,87 50,100 77,85 85,50 75,15 60,3"),
    ),
    (  # 1
        _glyph(9, "50,0 50,50 50,100"),
        # with a flag
        _glyph(1, "30,20 50,0", "50,0 50,50 50,100"),
        # and a base
        _glyph(1, "28,22 50,0", "50,0 50,50 50,100", "15,100 50,100 85,98"),
    ),
    (  # 2
        # sharp at the bottom
        _glyph(3, "15,27 30,6 60,2 78,22 68,50 43,78 15,98", "15,98 50,96 88,97"),
        # small loop at the bottom
        _glyph(3, "15,25 32,4 62,3 78,24 65,55 40,88 18,96 12,85 28,78 55,92 90,95"),
        # large flat loop
        _glyph(3, "22,25 40,4 65,5 74,27 62,60 38,92 14,98 4,86 16,72 42,76 66,88 98,84"),
        # large round loop
        _glyph(1, "25,15 45,0 68,8 72,32 60,65 42,93 20,98 8,82 18,66 40,68 60,85 75,97 92,92"),
        # like a z
        _glyph(1, "15,12 45,5 80,4", "80,4 50,50 14,95", "14,95 50,96 88,92"),
        # wavy base
        _glyph(1, "18,22 38,2 66,6 75,28 58,60 22,95", "22,95 40,88 62,97 92,90"),
        # small and low, the base running on
        _glyph(1, "28,28 46,8 64,10 66,36 42,70 14,90", "14,90 40,80 70,82 110,78"),
        # the hook long, the base short
        _glyph(1, "10,40 20,10 50,0 76,14 74,44 48,76 22,98", "22,98 45,94 70,97"),
    ),
    (  # 3
        # sharp waist
        _glyph(4, "18,13 45,0 75,13 70,37 40,48", "40,48 75,57 82,80 55,100 15,91"),
        # waist with a loop
        _glyph(3, "18,13 45,0 73,12 68,36 44,50 42,44 70,52 82,76 55,100 15,91"),
        # flat top
        _glyph(1, "18,4 50,4 78,3", "78,3 60,22 42,40", "42,40 75,50 82,76 55,99 16,93"),
        # smooth waist, large below
        _glyph(2, "25,8 50,0 68,12 62,30 48,42 68,50 80,72 60,97 30,98 12,88"),
        # large above
        _glyph(1, "12,18 40,0 80,8 82,35 50,52", "50,52 74,62 72,86 48,100 18,94"),
        # the tail running down
        _glyph(1, "20,14 48,2 72,14 46,42", "46,42 70,52 70,74 46,100"),
    ),
    (  # 4
        # open, straight
        _glyph(3, "22,0 16,30 12,55", "12,55 50,53 88,50", "75,5 73,50 70,100"),
        # open, round like a u
        _glyph(3, "18,3 13,36 30,54 55,50 74,35", "78,0 74,35 68,70 65,100"),
        # open, with a long bar and a short stem
        _glyph(2, "35,0 22,32 10,62", "10,62 50,58 95,54", "66,28 60,65 55,100"),
        # open, drawn without lifting the pen
        _glyph(1, "22,5 14,35 22,52 48,50 72,32 82,5", "82,5 72,50 62,100"),
        # closed at the top
        _glyph(1, "65,0 35,35 10,65", "10,65 50,65 92,63", "65,0 65,50 64,100"),
        # nearly closed
        _glyph(1, "42,2 27,28 15,52", "15,52 48,54 82,50", "70,3 67,50 62,100"),
    ),
    (  # 5
        # one line from the top right
        _glyph(3, "85,2 55,3 32,5", "32,5 28,25 24,46", "24,46 50,39 77,56 75,86 48,100 15,92"),
        # round, like an s
        _glyph(2, "85,2 55,2 32,10 30,32 52,46 73,64 68,89 42,100 15,90"),
        # the bar drawn last, rising and long
        _glyph(2, "38,12 32,30 26,48", "26,48 52,46 64,64 54,90 30,100 8,92", "38,12 65,6 98,0"),
        # the bar apart
        _glyph(1, "30,8 27,28 24,46", "24,46 52,40 74,58 70,86 45,100 15,94", "40,4 62,3 88,0"),
        # large belly
        _glyph(1, "78,0 55,2 38,4", "38,4 28,18 20,34", "20,34 55,26 84,48 82,82 50,100 12,88"),
    ),
    (  # 6
        _glyph(3, "70,0 40,22 20,60 26,90 50,100 76,84 70,59 47,56 23,75"),
        # straight stem
        _glyph(2, "45,0 28,40 20,76 33,98 60,96 73,77 60,62 38,70 26,88"),
        # wide low bowl
        _glyph(2, "42,0 20,35 10,70 25,97 58,98 86,78 84,56 64,50 42,66 32,86"),
        # ring closed, crossing the stem
        _glyph(2, "62,0 36,28 22,62 28,92 52,100 74,86 76,64 56,54 32,68 14,80"),
        # large bowl
        _glyph(0.2, "68,2 38,12 18,45 20,82 45,100 75,90 82,62 62,40 36,46 20,68"),
    ),
    (  # 7
        _glyph(4, "15,10 50,8 84,4", "84,4 63,50 44,100"),
        # round
        _glyph(2, "13,15 42,5 78,7 75,35 58,65 45,100"),
        # with a bar
        _glyph(2, "15,10 50,8 84,4", "84,4 63,50 44,100", "32,54 55,52 85,50"),
        # round, with a bar
        _glyph(1, "18,14 45,3 74,10 66,45 45,100", "30,52 55,50 82,50"),
        # with a serif
        _glyph(1, "14,30 17,10", "17,10 50,8 84,4", "84,4 63,50 44,100"),
        # with a hook
        _glyph(1, "12,38 20,12 40,10 82,4", "82,4 66,50 56,100"),
        # upright stem
        _glyph(2, "18,6 50,4 80,4", "80,4 74,50 66,100"),
        # upright stem and a long serif
        _glyph(1, "14,40 18,6", "18,6 50,6 80,2", "80,2 76,40 68,100"),
    ),
    (  # 8
        # begins like an s
        _glyph(3, "76,16 50,0 27,17 42,44 70,66 72,90 48,100 25,86 36,62 65,38 75,14"),
        # two rings
        _glyph(
            1,
            "50,48 28,36 28,12 50,0 72,12 72,36 50,48",
            "50,48 26,60 24,86 50,100 76,86 74,60 50,48",
        ),
        # ends apart
        _glyph(2, "66,10 42,2 24,20 40,42 62,64 58,92 36,100 22,84 40,58 64,36 90,8"),
        # small ring below
        _glyph(1, "75,12 46,0 20,16 30,40 58,56 64,84 46,100 32,86 44,62 70,42 78,14"),
        # small ring above
        _glyph(1, "66,8 48,0 36,14 48,36 76,60 76,90 48,100 20,88 24,62 52,38 66,20 62,5"),
        # begins with a stroke to the left
        _glyph(1, "92,4 60,2 30,14 30,34 55,50 74,72 60,98 34,92 38,66 62,40 82,18"),
        # crosses itself once, open at the top
        _glyph(1, "22,8 45,42 70,72 60,98 35,98 25,76 50,42 72,12 50,0 28,6"),
    ),
    (  # 9
        # straight tail
        _glyph(3, "77,18 55,2 27,12 18,38 40,52 68,40 77,18", "77,18 73,55 68,100"),
        # curved tail
        _glyph(2, "77,18 55,2 27,12 18,38 40,52 68,40 77,18", "77,18 78,50 68,86 42,100 18,90"),
        # one smooth line
        _glyph(2, "73,10 48,2 22,20 24,46 48,49 70,28 76,10 73,45 63,75 52,100"),
        # small flat ring, slanting tail
        _glyph(1, "80,12 50,6 20,22 22,40 50,36 80,12", "80,12 62,52 40,100"),
        # ring not closed
        _glyph(2, "68,4 38,6 18,28 30,50 58,44 78,12", "78,12 72,55 64,100"),
        # large ring
        _glyph(1, "78,30 62,4 34,4 16,30 28,56 56,60 78,38", "80,10 78,50 74,100"),
    ),
)
"""The ways to write each digit, digit 0 first."""
