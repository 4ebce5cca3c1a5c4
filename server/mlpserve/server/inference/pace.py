"""Pace of passes: how long one will take, as the last ones tell."""

from typing import Final

from mlpserve.server.telemetry.request_record import BatchTiming

# Of the last pass in what is expected of the next, where it was slower or quicker. A machine that
# was busy for a moment is soon forgotten: what is expected is held against deadlines.
_SLOWER_SHARE: Final = 0.2
_QUICKER_SHARE: Final = 0.5


class Pace:
    """Learns how long passes take. For one thread at a time.

    Args:
        min_rows: As so many count fewer rows. A pass takes time however few its rows are: of small
            ones nothing follows for large ones.

    Attributes:
        seconds_per_row: What is expected of the next; 0 as long as there was none.
    """

    def __init__(self, min_rows: int) -> None:
        self._min_rows = min_rows
        self._busy_since_ns: int | None = None  # when the last pass ended, if some waited then
        self.seconds_per_row = 0.0

    def learn(self, timing: BatchTiming | None, *, is_busy: bool) -> None:
        """Note how long a pass took, and what was done between it and the last.

        Args:
            timing: That of the pass; None where there was none.
            is_busy: Whether more waits, so that another pass follows at once.
        """
        if timing is None:
            self._busy_since_ns = None
            return
        began_ns = self._busy_since_ns or timing.started_ns
        self._busy_since_ns = timing.ended_ns if is_busy else None
        rows = max(timing.images, self._min_rows)
        change = (timing.ended_ns - began_ns) / 1e9 / rows - self.seconds_per_row
        share = _SLOWER_SHARE if change > 0 else _QUICKER_SHARE
        self.seconds_per_row += change * (share if self.seconds_per_row else 1)
