"""Who is let in: the same for all doors of a process, and before anything is read or computed."""

from collections.abc import Sequence

from mlpserve.server.security.limits import OpenRequests
from mlpserve.server.security.tokens import Tokens


class Admission:
    """Lets requests in that carry a right token, where they must, and for which there is room.

    Safe to use from many threads.

    Args:
        tokens: Whose tokens requests must carry; None for anybody's.
        open_requests: Those of all doors.
    """

    def __init__(self, tokens: Tokens | None, open_requests: OpenRequests) -> None:
        self._tokens = tokens
        self._open = open_requests

    def enter(
        self,
        metadata: Sequence[tuple[str, str | bytes]] | None,
        connection: str | bytes = "",
        *,
        places: int = 1,
    ) -> str | bytes:
        """Let a request in until ``leave``; return who asks: the token's name, or the connection.

        Args:
            metadata: What the caller sent along.
            connection: Over which connection it comes, where that is known.
            places: As how many requests it counts.

        Raises:
            UnauthenticatedError: There is no token though there must be, or no such token.
            OverloadedError: Too many are open.
        """
        name = "" if self._tokens is None else self._tokens.caller(metadata)
        caller = name or connection
        self._open.enter(caller, places)
        return caller

    def look(self) -> None:
        """Look now whether there are other tokens."""
        if self._tokens is not None:
            self._tokens.look()

    def leave(self, caller: str | bytes, *, places: int = 1) -> None:
        """Note that a request was answered, or will never be.

        Args:
            caller: What ``enter`` returned.
            places: As there.
        """
        self._open.leave(caller, places)
