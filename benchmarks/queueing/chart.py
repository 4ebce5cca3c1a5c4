"""Chart of the 99th percentile against the load, as an SVG file of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mlpserve.trainer.report.axes import Axis, logarithmic_axis

_WIDTH, _HEIGHT = 880, 470
_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 30, 62, 62
_COLOURS: Final = ("#2f6db5", "#b5532f")
_INK, _GRID, _PAPER = "#1d2733", "#d5dce6", "#fbfcfe"
_FONT: Final = 'font-family="DejaVu Sans, Verdana, sans-serif" font-size="13"'
_TITLE: Final = "99 of 100 requests are answered within ... ms"


@dataclass(frozen=True)
class Curve:
    """A line of the chart.

    Attributes:
        name: What stands at its upper end.
        colour: Which of the chart's two colours it has, 0 or 1.
        points: Images a second, and milliseconds.
        is_measured: Whether its points are marks of measurements, without a line.
    """

    name: str
    colour: int
    points: Sequence[tuple[float, float]]
    is_measured: bool = False


def svg(curves: Sequence[Curve], legend: Sequence[tuple[str, int]], note: str) -> str:
    """Return the picture.

    Args:
        curves: What is drawn.
        legend: What each colour means.
        note: What stands below.
    """
    points = [point for curve in curves for point in curve.points]
    x_axis = logarithmic_axis([x for x, _ in points])
    y_axis = logarithmic_axis([y for _, y in points])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" {_FONT}>',
        f"  <title>{_TITLE}</title>",
        f'  <rect width="{_WIDTH}" height="{_HEIGHT}" rx="10" fill="{_PAPER}"/>',
        *_axes(x_axis, y_axis),
        *(_curve(curve, x_axis, y_axis) for curve in curves),
        *_legend(legend, any(curve.is_measured for curve in curves)),
        _text(_WIDTH / 2, _HEIGHT - 8, note, size=11),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _x(axis: Axis, value: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * axis.share(value)


def _y(axis: Axis, value: float) -> float:
    return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - axis.share(value))


def _axes(x_axis: Axis, y_axis: Axis) -> list[str]:
    parts = []
    for tick in x_axis.ticks:
        x = _x(x_axis, tick)
        parts += [_rule(x, _TOP, x, _HEIGHT - _BOTTOM)]
        anchor = "middle" if x < _WIDTH - 2 * _RIGHT else "end"
        parts += [_text(x, _HEIGHT - _BOTTOM + 18, _count(tick), anchor=anchor)]
    for tick in y_axis.ticks:
        y = _y(y_axis, tick)
        parts += [_rule(_LEFT, y, _WIDTH - _RIGHT, y)]
        parts += [_text(_LEFT - 8, y + 4, f"{tick:g}", anchor="end")]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts += [_text(middle, _HEIGHT - _BOTTOM + 38, "images a second, offered to all workers")]
    return [*parts, _text(_LEFT - 60, 26, _TITLE, anchor="start", size=15)]


def _curve(curve: Curve, x_axis: Axis, y_axis: Axis) -> str:
    colour = _COLOURS[curve.colour]
    places = [(_x(x_axis, x), _y(y_axis, y)) for x, y in curve.points]
    if curve.is_measured:
        return "\n".join(
            f'  <circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{_PAPER}" stroke="{colour}" '
            'stroke-width="2"/>'
            for x, y in places
        )
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    end_x, end_y = places[-1]
    return (
        f'  <polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>\n'
        + _text(end_x, end_y - 6, curve.name, colour=colour)
    )


def _legend(legend: Sequence[tuple[str, int]], has_measured: bool) -> list[str]:  # noqa: FBT001
    parts, x = [], _LEFT
    for name, colour in legend:
        parts.append(_rule(x, 43, x + 26, 43, colour=_COLOURS[colour], width=3))
        parts.append(_text(x + 34, 47, name, anchor="start"))
        x += 250
    if has_measured:
        parts.append(
            f'  <circle cx="{x + 13}" cy="43" r="5" fill="{_PAPER}" stroke="{_INK}" '
            'stroke-width="2"/>'
        )
        parts.append(_text(x + 34, 47, "measured, one worker", anchor="start"))
    return parts


def _rule(
    x1: float, y1: float, x2: float, y2: float, *, colour: str = _GRID, width: float = 1
) -> str:
    return (
        f'  <path d="M{x1:.1f},{y1:.1f} L{x2:.1f},{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width}"/>'
    )


def _text(
    x: float, y: float, text: str, *, anchor: str = "middle", size: int = 12, colour: str = _INK
) -> str:
    return (
        f'  <text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="{colour}">{text}</text>'
    )


def _count(value: float) -> str:
    for unit, name in ((1e6, " million"), (1e3, ",000")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"
