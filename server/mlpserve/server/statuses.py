"""How errors appear on the wire: the one place that knows both our errors and gRPC's statuses."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import grpc

from mlpserve.server.errors import (
    ExpiredError,
    NotReadyError,
    NotServedError,
    OverloadedError,
    RequestError,
    ServerError,
    UnauthenticatedError,
    UnusableError,
)

logger = logging.getLogger(__name__)

STATUS_OF_ERROR: Final[Mapping[type[ServerError], grpc.StatusCode]] = {
    RequestError: grpc.StatusCode.INVALID_ARGUMENT,
    NotServedError: grpc.StatusCode.NOT_FOUND,
    NotReadyError: grpc.StatusCode.UNAVAILABLE,
    UnusableError: grpc.StatusCode.FAILED_PRECONDITION,
    OverloadedError: grpc.StatusCode.UNAVAILABLE,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    ExpiredError: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def refusal(method: str, error: Exception) -> tuple[grpc.StatusCode, str]:
    """Log why a call gets no answer, and return the status and the message that it gets instead."""
    if isinstance(error, tuple(STATUS_OF_ERROR)):
        logger.info("refused %s: %s", method, error)
        return _status(error), str(error)
    logger.error("%s failed", method, exc_info=error)
    return grpc.StatusCode.INTERNAL, "internal error; the server's log has the cause"


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
