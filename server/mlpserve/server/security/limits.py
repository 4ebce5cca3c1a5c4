"""How many calls may be open at once."""

from threading import BoundedSemaphore, Lock
from types import TracebackType

from mlpserve.server.errors import OverloadedError
from mlpserve.server.inference.fair_share import FairShare


class CallLimit:
    """Lets some calls in, each for as long as its ``with`` block runs, and refuses the next.

    Safe to use from many threads.

    Args:
        most: So many calls may be open at once.
        opening: How the refusal begins; " at once is" and the number follow.

    Raises:
        OverloadedError: On entering, where ``most`` calls are open.
    """

    def __init__(self, most: int, opening: str) -> None:
        self._refusal = f"{opening} at once is {most}"
        self._free = BoundedSemaphore(most)

    def __enter__(self) -> None:
        """Let a call in, or refuse it."""
        if not self._free.acquire(blocking=False):
            raise OverloadedError(self._refusal)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the call's place back."""
        self._free.release()


class OpenRequests:
    """Counts the requests that are open, and refuses those over a limit.

    Callers share it, see `mlpserve.server.inference.fair_share`.

    Safe to use from many threads.

    Args:
        most: So many requests may be open at once.
    """

    def __init__(self, most: int) -> None:
        self._room = FairShare(most)
        self._lock = Lock()

    def enter(self, caller: str | bytes, places: int = 1) -> None:
        """Count a request of a caller.

        Args:
            caller: Who asks.
            places: As how many it counts.

        Raises:
            OverloadedError: There is no room; it was not counted.
        """
        with self._lock:
            if not self._room.is_free(caller, places):
                raise self._refusal(self._room.taken_by(caller))
            self._room.take(caller, places)

    def leave(self, caller: str | bytes, places: int = 1) -> None:
        """Give back the places of a request that was counted."""
        with self._lock:
            self._room.give_back(caller, places)

    def _refusal(self, own: int) -> OverloadedError:
        return OverloadedError(
            f"the server is busy: {self._room.taken} of at most {self._room.most} requests are "
            f"open, {own} of them yours, and one caller may have no more than are left for others; "
            "try again later"
        )
