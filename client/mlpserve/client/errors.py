"""Errors of calls, one class for each reaction of the caller.

    ClientError
    |-- InvalidRequestError    the images or arguments are wrong: mend them; also a ValueError
    |-- NotFoundError          no such model or version is served: ask for another
    |-- UnauthenticatedError   the server asks for a token, or for another one: give it
    |-- UnavailableError       nothing answers there, or it is too busy: try again later
    |-- TimeoutExceededError   the answer took too long: allow more time; also a TimeoutError
    `-- ServerFaultError       the server failed or broke the contract: tell its operator

No ``grpc.RpcError`` leaves the client; it is kept as the ``__cause__``.
"""

import copy
import re
from collections.abc import Iterable, Mapping
from typing import Final, Self, cast

import grpc

# Source: gRPC proposal A6, client retries, "pushback".
_PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"
_FIELD: Final = re.compile(r"([a-z_]+(?:\.[a-z_]+)*): ")
# The latter is how gRPC refuses a message.
_LIMIT: Final = re.compile(r"expected (?:from \d+ to|at most) (\d+)|larger than max .* (\d+)\)")


class ClientError(Exception):
    """A call failed. The message says why.

    Attributes:
        field: The argument, or the field of the request, that is wrong; None where none is.
        limit: The most that the field may be, or the most bytes of a message; None where it is not
            a matter of that.
        retry_after_s: Seconds after which the server wants to be asked again; None where it did
            not say.
    """

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        limit: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.field = field
        self.limit = limit
        self.retry_after_s = retry_after_s

    def copy(self) -> Self:
        """Return the same error for another caller, who adds frames of its own."""
        own = copy.copy(self)
        own.__cause__ = self.__cause__
        return own


class InvalidRequestError(ClientError, ValueError):
    """The images or arguments are not what the model or the library takes."""


class NotFoundError(ClientError):
    """The server serves no such model, or no such version of it."""


class UnauthenticatedError(ClientError):
    """The server asks for a token, or does not know the one that it was given."""


class UnavailableError(ClientError):
    """Nothing answers at the target, or the server is starting, stopping or too busy."""


class TimeoutExceededError(ClientError, TimeoutError):
    """There was no answer within the time that the call was given."""


class ServerFaultError(ClientError):
    """The server failed, or answered something that breaks the contract."""


ERROR_OF_STATUS: Final[Mapping[grpc.StatusCode, type[ClientError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    # The message is larger than the server's transport takes: fewer images a request.
    grpc.StatusCode.RESOURCE_EXHAUSTED: InvalidRequestError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: TimeoutExceededError,
}


def invalid_argument(
    name: str, expected: str, got: object, *, limit: int | None = None
) -> InvalidRequestError:
    """Return the exception to raise for an argument that cannot be taken."""
    return InvalidRequestError(f"{name}: expected {expected}, got {got}", field=name, limit=limit)


def client_error(error: grpc.RpcError, target: str) -> ClientError:
    """Return the exception to raise for a failed call; any other status is the server's fault."""
    kind = ERROR_OF_STATUS.get(error.code(), ServerFaultError)
    details = error.details() or ""
    field, limit = _FIELD.match(details), _LIMIT.search(details)
    return kind(
        f"{target}: {error.code().name}: {details}",
        field=field[1] if field and kind in (InvalidRequestError, NotFoundError) else None,
        limit=int(limit[1] or limit[2]) if limit else None,
        retry_after_s=pushback_s(error),
    )


def pushback_s(error: grpc.RpcError) -> float | None:
    """Return after how many seconds a server wants to be asked again, if it said so."""
    sent = cast(Iterable[tuple[str, str | bytes]], error.trailing_metadata() or ())
    # Not by dict(): earlier releases of grpc.aio have an object here that is a mapping by halves.
    pushback = next((value for key, value in sent if key == _PUSHBACK_KEY), None)
    return int(pushback) / 1000 if pushback and pushback.isdigit() else None
