"""The parameters of a request: how urgent it is, and how long it may wait."""

from typing import Final

from mlpserve.server.errors import RequestError, UnsupportedError
from mlpserve.server.inference.queue import HIGHEST_PRIORITY, LOWEST_PRIORITY, NORMAL_PRIORITY
from mlpserve.server.oip.requests import Parameters

PRIORITY: Final = "priority"
TIMEOUT: Final = "timeout"
SEQUENCES: Final = ("sequence_id", "sequence_start", "sequence_end")
REQUEST_PARAMETERS: Final = (PRIORITY, TIMEOUT, *SEQUENCES)
_NS_PER_US: Final = 1000


def priority(parameters: Parameters) -> int:
    """Return a request's priority; one that is not among ours is the normal one.

    Raises:
        RequestError: It is no whole number.
    """
    level = whole_number(parameters, PRIORITY)
    return level if HIGHEST_PRIORITY <= level <= LOWEST_PRIORITY else NORMAL_PRIORITY


def timeout_ns(parameters: Parameters) -> int:
    """Return how long a request may wait for its turn; 0 for as long as it takes.

    Raises:
        RequestError: The timeout is no whole number, or negative.
    """
    timeout_us = whole_number(parameters, TIMEOUT)
    if timeout_us < 0:
        raise RequestError(f"{TIMEOUT}: expected microseconds, 0 for no limit, got {timeout_us}")
    return timeout_us * _NS_PER_US


def refuse_sequences(parameters: Parameters) -> None:
    """Refuse a request that belongs to a sequence: our models remember nothing.

    Raises:
        UnsupportedError: It does.
    """
    for name in SEQUENCES:
        if name in parameters:
            raise UnsupportedError(f"{name}: sequences are not supported")


def whole_number(parameters: Parameters, name: str) -> int:
    """Return a parameter; 0 where it is not there.

    Raises:
        RequestError: It is something else.
    """
    value = parameters.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestError(
            f"invalid value type for {name!r} parameter, expected a whole number (int64_param)"
        )
    return value
