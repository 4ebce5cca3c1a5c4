"""Charts: what is drawn of lines, of points and of shares with their uncertainty, and where.

The template draws them as SVG. The colours are the style sheet's, so a chart suits a light page and
a dark one. What tells two lines apart is never the colour alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from mlpserve.trainer.report.axes import Axis

_WIDTH, _HEIGHT = 340, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 20, 12, 40
_INNER_WIDTH: Final = _WIDTH - _LEFT - _RIGHT
_INNER_HEIGHT: Final = _HEIGHT - _TOP - _BOTTOM
_HALF_TEXT_HEIGHT: Final = 4
_TICK_TEXT: Final = 17  # from the axis to the foot of its texts
_NAME_HEIGHT: Final = 17  # of a row of intervals
_INTERVAL_HEIGHT: Final = 10
_SIDE: Final = 24  # half a text below the first or the last tick
_MAX_MARKED_POINTS: Final = 40  # more would run into each other


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: What it shows.
        style: Its class in the style sheet: "first", "second", "third", or "trial" for one of many.
        points: Its points, from left to right.
        has_marks: Whether they may be marked.
    """

    name: str
    style: str
    points: Sequence[tuple[float, float]]
    has_marks: bool = True

    @property
    def marked_points(self) -> Sequence[tuple[float, float]]:
        """Return the points that are marked: all, or where there are too many, none."""
        is_marked = self.has_marks and len(self.points) <= _MAX_MARKED_POINTS
        return self.points if is_marked else ()


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


@dataclass(frozen=True)
class Dot:
    """A point of a chart that stands for itself.

    Attributes:
        style: Its class in the style sheet: "first", or "trial", maybe with "hollow".
        x: Where it is.
        y: How high it is.
        text: What is said of it when it is pointed at.
    """

    style: str
    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Chart:
    """A chart of lines, of dots, or of points that should be on the diagonal.

    Attributes:
        title: What stands above it.
        description: What it shows, for those who cannot see it.
        x_label: What stands below the horizontal axis.
        x_axis: The horizontal axis.
        y_axis: The vertical axis.
        lines: What is drawn, the last one on top.
        dots: What is drawn above the lines, the last one on top.
        points: What is drawn beside the diagonal.
        style: The class of the points in the style sheet: "first" or "second".
    """

    title: str
    description: str
    x_label: str
    x_axis: Axis
    y_axis: Axis
    lines: Sequence[Line] = ()
    dots: Sequence[Dot] = ()
    points: Sequence[UncertainPoint] = ()
    style: str = "first"

    # In the units of the drawing, which the page scales.
    width: ClassVar[int] = _WIDTH
    height: ClassVar[int] = _HEIGHT
    radius: ClassVar[float] = 3.2
    tick_text_x: ClassVar[int] = _LEFT - 8
    tick_text_y: ClassVar[int] = _HEIGHT - _BOTTOM + _TICK_TEXT
    label_x: ClassVar[float] = _LEFT + _INNER_WIDTH / 2
    label_y: ClassVar[int] = _HEIGHT - 5

    def x(self, value: float) -> float:
        """Return how far from the left a value of the horizontal axis is."""
        return _LEFT + _INNER_WIDTH * self.x_axis.share(value)

    def y(self, value: float) -> float:
        """Return how far from the top a value of the vertical axis is."""
        return _TOP + _INNER_HEIGHT * (1 - self.y_axis.share(value))

    def beside(self, value: float) -> float:
        """Return where the text beside a tick stands, whose middle is at its height."""
        return self.y(value) + _HALF_TEXT_HEIGHT


@dataclass(frozen=True)
class Interval:
    """A share that is known to within a range only.

    Attributes:
        style: Its class in the style sheet: "first" or "second".
        low: How large it is at least.
        middle: What was counted.
        high: How large it is at most.
        text: What is said of it when it is pointed at.
    """

    style: str
    low: float
    middle: float
    high: float
    text: str


@dataclass(frozen=True)
class IntervalPlot:
    """A plot of intervals on one axis, row below row.

    Attributes:
        title: What stands above it.
        description: What it shows, for those who cannot see it.
        axis: The horizontal axis.
        rows: What each row is called, and its intervals, in each row as many.
    """

    title: str
    description: str
    axis: Axis
    rows: Sequence[tuple[str, Sequence[Interval]]]

    width: ClassVar[int] = _WIDTH
    left: ClassVar[int] = _SIDE
    top: ClassVar[int] = 4
    radius: ClassVar[float] = Chart.radius

    @property
    def bottom(self) -> int:
        """Return how far from the top the rows end."""
        return self.top + len(self.rows) * self._row_height + _HALF_TEXT_HEIGHT

    @property
    def tick_text_y(self) -> int:
        """Return how far from the top the texts of the ticks stand."""
        return self.bottom + _TICK_TEXT

    @property
    def height(self) -> int:
        """Return how high it is."""
        return self.tick_text_y + _HALF_TEXT_HEIGHT

    def x(self, value: float) -> float:
        """Return how far from the left a value is."""
        return self.left + (self.width - self.left - _SIDE) * self.axis.share(value)

    def name_y(self, row: int) -> int:
        """Return how far from the top the name of a row stands."""
        return self.top + row * self._row_height + _NAME_HEIGHT - _HALF_TEXT_HEIGHT

    def y(self, row: int, place: int) -> int:
        """Return how far from the top the interval at a place of a row is."""
        return self.top + row * self._row_height + _NAME_HEIGHT + 5 + place * _INTERVAL_HEIGHT

    @property
    def _row_height(self) -> int:
        return _NAME_HEIGHT + _INTERVAL_HEIGHT * max(len(row) for _, row in self.rows)
