"""Refusals of the queue: what a request is told that may not wait, or may not any longer."""

from typing import Any, Final, TypeAlias

from mlpserve.server.errors import ExpiredError, OverloadedError
from mlpserve.server.inference.fair_share import FairShare
from mlpserve.server.inference.request import ParsedRequest

_Request: TypeAlias = ParsedRequest[Any]

_EXPIRED: Final = "the call was cancelled, or its deadline passed, before its turn came"
_TIMED_OUT: Final = "Request timeout expired: the request waited longer than its 'timeout' says"
_LATE: Final = "the deadline cannot be met any more: a turn takes about {:.0f} ms"
_PUSHED_OUT: Final = (
    "the server is busy: this request waited beyond its caller's share of the queue, which others "
    "need now; try again later"
)


def no_room(room: FairShare, request: _Request) -> OverloadedError:
    """Return what a request is told for which there is no room."""
    return OverloadedError(
        f"the server is busy: {room.taken} images wait, {room.taken_by(request.record.caller)} "
        f"of them yours, and these {request.rows} do not fit; at most {room.most} may wait, and of "
        "one caller no more than are left for others; try again later"
    )


def pushed_out() -> OverloadedError:
    """Return what a request is told whose room others need."""
    return OverloadedError(_PUSHED_OUT)


def will_be_late(room: FairShare, request: _Request, seconds_per_row: float) -> ExpiredError | None:
    """Return what a request is told that will be late, in its caller's fair share of the turns.

    Args:
        room: What waits.
        request: The request, which is not among that.
        seconds_per_row: The pace of passes.
    """
    record = request.record
    first = room.before(record.caller, room.taken_by(record.caller) + request.rows)
    expected_s = first * seconds_per_row
    if expected_s <= record.remaining_s:
        return None
    remaining_ms = max(0.0, record.remaining_s) * 1000
    return ExpiredError(
        f"the deadline cannot be met: it is in {remaining_ms:.0f} ms, and the {first} "
        f"images up to there take about {1000 * expected_s:.0f} ms; allow more time, or "
        "ask later"
    )


def is_late(pass_s: float) -> ExpiredError:
    """Return what a request is told whose turn has come too late, where a pass takes so long."""
    return ExpiredError(_LATE.format(1000 * pass_s))


def why_unwanted(request: _Request, now_ns: int) -> Exception | None:
    """Return what a request is told of whose answer nobody waits for any more; else None."""
    if request.has_timed_out(now_ns):
        return OverloadedError(_TIMED_OUT)
    return None if request.is_wanted() else ExpiredError(_EXPIRED)
