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

from collections.abc import Mapping
from typing import Final

import grpc


class ClientError(Exception):
    """A call failed. The message says why."""


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


def client_error(error: grpc.RpcError, target: str) -> ClientError:
    """Return the exception to raise for a failed call; any other status is the server's fault."""
    kind = ERROR_OF_STATUS.get(error.code(), ServerFaultError)
    return kind(f"{target}: {error.code().name}: {error.details()}")
