"""How errors appear on the wire: the one place that knows both our errors and the statuses."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import grpc

from mlpserve.server.errors import (
    ExpiredError,
    NotAllowedError,
    NotReadyError,
    NotServedError,
    OverloadedError,
    RequestError,
    ServerError,
    TooLargeError,
    UnauthenticatedError,
    UnsupportedError,
    UnusableError,
)

logger = logging.getLogger(__name__)

STATUS_OF_ERROR: Final[Mapping[type[ServerError], grpc.StatusCode]] = {
    TooLargeError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    RequestError: grpc.StatusCode.INVALID_ARGUMENT,
    NotServedError: grpc.StatusCode.NOT_FOUND,
    UnsupportedError: grpc.StatusCode.UNIMPLEMENTED,
    NotAllowedError: grpc.StatusCode.UNAVAILABLE,
    NotReadyError: grpc.StatusCode.UNAVAILABLE,
    UnusableError: grpc.StatusCode.FAILED_PRECONDITION,
    OverloadedError: grpc.StatusCode.UNAVAILABLE,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    ExpiredError: grpc.StatusCode.DEADLINE_EXCEEDED,
}

_INTERNAL: Final = 500
HTTP_OF_STATUS: Final[Mapping[grpc.StatusCode, int]] = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 413,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


def refusal(method: str, error: Exception) -> tuple[grpc.StatusCode, str]:
    """Log why a call gets no answer, and return the status and the message that it gets instead."""
    if isinstance(error, tuple(STATUS_OF_ERROR)):
        logger.info("refused %s: %s", method, error)
        return _status(error), str(error)
    logger.error("%s failed", method, exc_info=error)
    return grpc.StatusCode.INTERNAL, "internal error; the server's log has the cause"


def http_refusal(method: str, error: Exception) -> tuple[int, str]:
    """As ``refusal``, with the status of HTTP."""
    status, message = refusal(method, error)
    return HTTP_OF_STATUS.get(status, _INTERNAL), message


@contextmanager
def statuses(method: str, context: grpc.ServicerContext) -> Iterator[None]:
    """End the call with the right status where the block raises.

    Left to itself, gRPC would answer with the text of any exception, and so show our internals.
    """
    try:
        yield
    except grpc.RpcError:
        # gRPC's own way to say that the caller is gone; nobody is left to be told.
        raise
    except Exception as error:  # noqa: BLE001 - it is logged, and the caller told
        context.abort(*refusal(method, error))


def _status(error: Exception) -> grpc.StatusCode:
    return next(status for kind, status in STATUS_OF_ERROR.items() if isinstance(error, kind))
