"""Statuses: how errors appear on the wire; the one place that knows both errors and statuses."""

import logging
from collections.abc import Mapping
from typing import Final, NamedTuple

import grpc

from mlpserve.server.errors import (
    ExpiredError,
    NotAllowedError,
    NotReadyError,
    NotServedError,
    OverloadedError,
    RequestError,
    ServerError,
    ShortageError,
    TooLargeError,
    UnauthenticatedError,
    UnsupportedError,
    UnusableError,
)
from mlpserve.server.telemetry.recorder import Recorder
from mlpserve.server.telemetry.request_log import REQUEST_ID_KEY
from mlpserve.server.telemetry.request_record import RequestRecord

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
    ShortageError: grpc.StatusCode.UNAVAILABLE,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    ExpiredError: grpc.StatusCode.DEADLINE_EXCEEDED,
}
# Tells a client that tries again when to do so, instead of by its own reckoning.
# Source: gRPC proposal A6, client retries, "pushback".
PUSHBACK: Final = ("grpc-retry-pushback-ms", "200")
_INTERNAL_DETAILS: Final = "internal error; the server's log has the cause"

_NO_MEMORY: Final = (
    "the server has not enough memory left for this request; send fewer images at once, or ask "
    "later"
)

_PYTHONS_NO_THREAD: Final = "can't start new thread"
_NO_THREAD: Final = "the server can start no thread for this request; try again later"

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


class Refusal(NamedTuple):
    """What a call gets instead of an answer.

    Attributes:
        code: The status.
        details: The message.
        metadata: What is sent along, at the end.
    """

    code: grpc.StatusCode
    details: str
    metadata: tuple[tuple[str, str], ...]

    @property
    def http_code(self) -> int:
        """Return the status of HTTP."""
        return HTTP_OF_STATUS.get(self.code, _INTERNAL)


def refuse(recorder: Recorder, record: RequestRecord, error: Exception) -> Refusal:
    """Count and log a request that gets no answer, and return what its caller gets instead."""
    raised = error
    if isinstance(error, MemoryError):
        error = ShortageError(_NO_MEMORY)
    elif isinstance(error, RuntimeError) and str(error).startswith(_PYTHONS_NO_THREAD):
        error = ShortageError(_NO_THREAD)
    code = _status(error)
    is_fault = code is grpc.StatusCode.INTERNAL
    known_as = ""
    try:
        known_as = recorder.refused(record, error, code.name, is_fault=is_fault)
    except Exception:  # the caller is to be told all the same
        logger.exception("a refusal could not be counted")
    # The text of any other error may show our internals.
    shown = _INTERNAL_DETAILS if is_fault else str(error)
    # Its frames hold the request; where they hold the error as well, as asyncio's do, both would
    # stay until the garbage is collected.
    raised.__traceback__ = None
    may_be_repeated = isinstance(error, OverloadedError | ShortageError)
    pushback = [PUSHBACK] if may_be_repeated else []
    return Refusal(code, shown, ((REQUEST_ID_KEY, known_as), *pushback))


def _status(error: Exception) -> grpc.StatusCode:
    """Return the status for an error; INTERNAL for any that is a fault of ours."""
    found = (status for kind, status in STATUS_OF_ERROR.items() if isinstance(error, kind))
    return next(found, grpc.StatusCode.INTERNAL)
