"""Charts as SVG: a frame with its axes, lines, and points with their uncertainty.

The colours are the style sheet's, so a chart suits a light page and a dark one. What tells two
lines apart is never the colour alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from mlpserve.trainer.report.axes import Axis
from mlpserve.trainer.report.markup import Markup, element, joined, number

_WIDTH, _HEIGHT = 340, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 20, 12, 40
_INNER_WIDTH: Final = _WIDTH - _LEFT - _RIGHT
_INNER_HEIGHT: Final = _HEIGHT - _TOP - _BOTTOM
_TEXT_GAP: Final = 8
_TICK_TEXT_Y: Final = _HEIGHT - _BOTTOM + 17
_LABEL_Y: Final = _HEIGHT - 5
_HALF_TEXT_HEIGHT: Final = 4
_RADIUS: Final = 3.2
_MOST_MARKED_POINTS: Final = 40  # more would run into each other


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: What it shows.
        style: Its class in the style sheet: "first" or "second".
        points: Its points, from left to right.
    """

    name: str
    style: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class UncertainPoint:
    """A point of which the height is known to within a range only.

    Attributes:
        x: Where it is.
        y: How high it is.
        y_low: How high it is at least.
        y_high: How high it is at most.
        text: What is said of it when it is pointed at.
    """

    x: float
    y: float
    y_low: float
    y_high: float
    text: str


def line_chart(
    lines: Sequence[Line], x_axis: Axis, y_axis: Axis, *, x_label: str, description: str
) -> Markup:
    """Return a chart of some lines.

    Args:
        lines: What is drawn, the last one on top.
        x_axis: The horizontal axis.
        y_axis: The vertical axis.
        x_label: What stands below the horizontal axis.
        description: What the chart shows, for those who cannot see it.
    """
    frame = _Frame(x_axis, y_axis)
    return _chart(frame, x_label, description, [frame.line(line) for line in lines])


def reliability_chart(
    points: Sequence[UncertainPoint], axis: Axis, *, style: str, x_label: str, description: str
) -> Markup:
    """Return a chart of points that should be on the diagonal.

    Args:
        points: What is drawn, with the range of each height.
        axis: Both axes.
        style: The class of the points in the style sheet: "first" or "second".
        x_label: What stands below the horizontal axis.
        description: What the chart shows, for those who cannot see it.
    """
    frame = _Frame(axis, axis)
    diagonal = frame.segment((axis.low, axis.low), (axis.high, axis.high), "ideal")
    drawn = (frame.uncertain_point(point) for point in points)
    return _chart(frame, x_label, description, [diagonal, element("g", *drawn, class_=style)])


@dataclass(frozen=True)
class _Frame:
    """The area between two axes, which knows where a value is in it."""

    x_axis: Axis
    y_axis: Axis

    def x(self, value: float) -> float:
        return _LEFT + _INNER_WIDTH * self.x_axis.share(value)

    def y(self, value: float) -> float:
        return _TOP + _INNER_HEIGHT * (1 - self.y_axis.share(value))

    def line(self, line: Line) -> Markup:
        path = " ".join(f"{number(self.x(x))},{number(self.y(y))}" for x, y in line.points)
        drawn = [element("polyline", points=path)]
        if len(line.points) <= _MOST_MARKED_POINTS:
            drawn += [
                self._mark(x, y, f"{line.name}: {self.y_axis.tick_text(y)}") for x, y in line.points
            ]
        return element("g", *drawn, class_=line.style)

    def segment(
        self, start: tuple[float, float], end: tuple[float, float], style: str | None
    ) -> Markup:
        (x1, y1), (x2, y2) = start, end
        return element(
            "line", x1=self.x(x1), y1=self.y(y1), x2=self.x(x2), y2=self.y(y2), class_=style
        )

    def uncertain_point(self, point: UncertainPoint) -> Markup:
        bar = self.segment((point.x, point.y_low), (point.x, point.y_high), None)
        return joined([bar, self._mark(point.x, point.y, point.text)])

    def _mark(self, x: float, y: float, text: str) -> Markup:
        return element("circle", element("title", text), cx=self.x(x), cy=self.y(y), r=_RADIUS)


def _chart(frame: _Frame, x_label: str, description: str, drawn: Sequence[Markup]) -> Markup:
    label = element("text", x_label, x=_LEFT + _INNER_WIDTH / 2, y=_LABEL_Y, class_="label")
    return element(
        "svg",
        element("g", *_horizontal_ticks(frame), *_vertical_ticks(frame), class_="axes"),
        label,
        *drawn,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=description,
    )


def _horizontal_ticks(frame: _Frame) -> Iterator[Markup]:
    axis = frame.x_axis
    for tick in axis.ticks:
        yield element("text", axis.tick_text(tick), x=frame.x(tick), y=_TICK_TEXT_Y, class_="below")


def _vertical_ticks(frame: _Frame) -> Iterator[Markup]:
    axis = frame.y_axis
    for tick in axis.ticks:
        yield frame.segment((frame.x_axis.low, tick), (frame.x_axis.high, tick), None)
        y = frame.y(tick) + _HALF_TEXT_HEIGHT
        yield element("text", axis.tick_text(tick), x=_LEFT - _TEXT_GAP, y=y, class_="beside")
