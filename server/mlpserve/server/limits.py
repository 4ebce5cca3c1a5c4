"""How many calls of a kind may be open at once."""

from threading import BoundedSemaphore
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
