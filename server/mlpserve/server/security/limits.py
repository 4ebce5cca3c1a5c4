"""How many calls may be open at once."""

from threading import BoundedSemaphore, Lock
from types import TracebackType

from mlpserve.server.errors import OverloadedError


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

    Fair by the same thought as the queue of rows, see `row_queue`: no caller may have more places
    than are left free for all others. A request always finds room where no other is open.

    Safe to use from many threads.

    Args:
        most: So many requests may be open at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        self._open = 0
        self._open_of: dict[str | bytes, int] = {}

    def enter(self, caller: str | bytes, places: int = 1) -> None:
        """Count a request of a caller.

        Args:
            caller: Who asks.
            places: As how many it counts.

        Raises:
            OverloadedError: There is no room; it was not counted.
        """
        with self._lock:
            own = self._open_of.get(caller, 0)
            free = self._most - self._open - places
            if self._open and (free < 0 or own > free):
                raise self._refusal(own)
            self._open += places
            self._open_of[caller] = own + places

    def leave(self, caller: str | bytes, places: int = 1) -> None:
        """Give back the places of a request that was counted."""
        with self._lock:
            self._open -= places
            left = self._open_of[caller] - places
            if left:
                self._open_of[caller] = left
            else:
                del self._open_of[caller]

    def _refusal(self, own: int) -> OverloadedError:
        return OverloadedError(
            f"the server is busy: {self._open} of at most {self._most} requests are open, {own} of "
            "them yours, and one caller may have no more than are left for others; try again later"
        )
