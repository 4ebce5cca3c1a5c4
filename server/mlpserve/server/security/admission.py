"""Admission of requests, by token and by number: before anything of them is read or computed."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from threading import Lock
from typing import Final

from mlpserve.server.errors import OverloadedError
from mlpserve.server.inference.fair_share import FairShare
from mlpserve.server.security.tokens import Tokens
from mlpserve.server.settings.config import NO_PORT, ServerConfig

logger = logging.getLogger(__name__)

_ATTEMPTS: Final = 2
# Who asks, in the thread that answers: the token's name, or the connection.
CALLER_NAME: Final[ContextVar[str | bytes]] = ContextVar("caller_name")


class Admission:
    """Admits requests that carry a right token, where they must, and for which there is room.

    One for all endpoints of a process. Callers share the room, see
    `mlpserve.server.inference.fair_share`. Safe to use from many threads.

    Args:
        config: Its tokens, and how many requests may be open at once.

    Raises:
        StartError: The token file cannot be used.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._tokens: Tokens | None = None
        if config.token_file is not None:
            self._tokens = Tokens(config.token_file, required=config.require_token)
        self._open = FairShare(config.max_concurrent_requests)
        self._lock = Lock()

    def enter(
        self,
        metadata: Sequence[tuple[str, str | bytes]] | None,
        connection: str | bytes = "",
        *,
        places: int = 1,
    ) -> str | bytes:
        """Admit a request until ``leave``; return who asks: the token's name, or the connection.

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
        with self._lock:
            if not self._open.is_free(caller, places):
                raise self._refusal(caller)
            self._open.take(caller, places)
        return caller

    def leave(self, caller: str | bytes, *, places: int = 1) -> None:
        """Note that a request was answered, or will never be.

        Args:
            caller: What ``enter`` returned.
            places: As there.
        """
        with self._lock:
            self._open.give_back(caller, places)

    def reload(self) -> None:
        """Read the token file now, if it has changed."""
        if self._tokens is not None:
            self._tokens.reload()

    def _refusal(self, caller: str | bytes) -> OverloadedError:
        return OverloadedError(
            f"the server is busy: {self._open.taken} of at most {self._open.most} requests are "
            f"open, {self._open.taken_by(caller)} of them yours, and one caller may have no more "
            "than are left for others; try again later"
        )


class Place:
    """The place of a request that was admitted: given back once, whatever becomes of the request.

    Args:
        leave: Gives it back.
    """

    __slots__ = ("_leave",)

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave: Callable[[], None] | None = leave

    def leave(self) -> None:
        """Give it back, where that was not done; it comes to that at the latest when it is dropped.

        Never raises.
        """
        for _ in range(_ATTEMPTS):
            if self._leave is None:
                return
            try:
                self._leave()
                self._leave = None
            except Exception:
                logger.exception("a place could not be given back; it is tried again")

    __del__ = leave


class CallLimit:
    """Lets some calls in, each for as long as its ``with`` block runs, and refuses the next.

    Callers share the room, as that of all requests. Safe to use from many threads.

    Args:
        max_calls: So many calls may be open at once.
        opening: How the refusal begins; " at once is" and the number follow.

    Raises:
        OverloadedError: On entering, where so many calls are open, or too many of this caller.
    """

    def __init__(self, max_calls: int, opening: str) -> None:
        self._refusal = (
            f"{opening} at once is {max_calls}, and one caller may have no more than are left for "
            "others; try again later"
        )
        self._open = FairShare(max_calls)
        self._lock = Lock()

    def __enter__(self) -> None:
        caller = CALLER_NAME.get("")
        with self._lock:
            if not self._open.is_free(caller, 1):
                raise OverloadedError(self._refusal)
            self._open.take(caller, 1)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._open.give_back(CALLER_NAME.get(""), 1)


def exposure_warnings(config: ServerConfig) -> Iterator[str]:
    """Yield a sentence for each thing that strangers may do, and how to have it otherwise."""
    asks_for_tokens = config.token_file is not None and config.require_token
    is_encrypted = config.tls_certificate is not None
    if not (_is_local(config.host) or asks_for_tokens or is_encrypted):
        yield (
            f"anybody who can reach {config.host} may call, and read what others send: see "
            "--token-file and --tls-certificate"
        )
    if config.allow_management and not (asks_for_tokens or config.tls_client_ca is not None):
        yield (
            "anybody who may call may load and unload models, with neither a token nor a "
            "certificate: see --token-file and --tls-client-ca, or leave out --allow-management"
        )
    if config.metrics_port != NO_PORT and not _is_local(config.metrics_host):
        yield (
            f"anybody who can reach {config.metrics_host} may read the metrics, which tell names "
            "of models and how busy they are: keep --metrics-host to Prometheus's network"
        )


def _is_local(host: str) -> bool:
    return host in {"localhost", "::1"} or host.startswith(("127.", "unix:"))
