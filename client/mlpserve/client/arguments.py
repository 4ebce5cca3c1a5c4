"""Arguments of the client's methods: checked, and brought to one type each.

``None`` is the default everywhere.
"""

import math
import operator
from typing import Final, SupportsFloat, SupportsIndex, cast

import grpc
import numpy as np

from mlpserve.client.errors import InvalidRequestError, invalid_argument

# Thirty years; gRPC's own arithmetic goes wrong somewhere above.
_MAX_TIMEOUT_S: Final = 1e9
_MAX_SHOWN: Final = 80


def shown(value: object) -> str:
    """Return what a message shows of a value, even of one whose ``repr`` fails."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - it is the caller's code that runs here
        text = "a value that cannot be shown"
    text = text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
    return text if isinstance(value, str) else f"{text} ({type(value).__name__})"


def checked_timeout_s(
    timeout_s: object, name: str = "timeout_s", *, may_be_zero: bool = False
) -> float:
    """Return seconds as a float.

    Raises:
        InvalidRequestError: They are no number above 0, or are more than thirty years.
    """
    expected = "seconds from 0" if may_be_zero else "seconds above 0"
    try:
        # Text would be a number as well.
        seconds = (
            math.nan
            if isinstance(timeout_s, str | bytes)
            else float(cast(SupportsFloat, timeout_s))
        )
    except Exception as error:
        raise invalid_argument(name, expected, shown(timeout_s)) from error
    if not (seconds > 0 or (may_be_zero and seconds == 0)):
        raise invalid_argument(name, expected, shown(timeout_s))
    if seconds > _MAX_TIMEOUT_S:
        limit = int(_MAX_TIMEOUT_S)
        raise invalid_argument(name, f"at most {limit} seconds", shown(timeout_s), limit=limit)
    return seconds


def checked_number(value: object, name: str, expected: str, *, least: int, limit: int) -> int:
    """Return a whole number of Python's, NumPy's or another library's.

    Raises:
        InvalidRequestError: It is none, or out of the range.
    """
    try:
        number = operator.index(cast(SupportsIndex, value))
    except Exception as error:
        raise invalid_argument(name, expected, shown(value)) from error
    if isinstance(value, bool) or not least <= number <= limit:
        raise invalid_argument(name, expected, shown(value), limit=limit)
    return number


def checked_text(value: object, name: str) -> str:
    """Return a text that a message can hold; empty for None.

    Raises:
        InvalidRequestError: It is no text, or no valid Unicode.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise invalid_argument(name, "text", shown(value))
    # A command line that is no Unicode becomes half characters, and those no message can hold.
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise invalid_argument(name, "valid Unicode text", shown(value)) from error
    return value


def checked_flag(value: object, name: str) -> bool:
    """Return a truth value of Python's or NumPy's; False for None.

    Raises:
        InvalidRequestError: It is none.
    """
    if value is None or isinstance(value, bool | np.bool_):
        return bool(value)
    raise invalid_argument(name, "True or False", shown(value))


def checked_credentials(credentials: object) -> grpc.ChannelCredentials | None:
    """Return what ``grpc.ssl_channel_credentials`` makes; None where nothing is encrypted.

    Raises:
        InvalidRequestError: It is something else.
    """
    if credentials is None or isinstance(credentials, grpc.ChannelCredentials):
        return credentials
    # Not shown: it may hold a key.
    raise invalid_argument(
        "credentials", "what grpc.ssl_channel_credentials makes", f"a {type(credentials).__name__}"
    )


def authorization(token: object) -> tuple[tuple[str, str], ...]:
    """Return the metadata that carries a bearer token; none without one.

    Raises:
        InvalidRequestError: No header can hold the token. The message does not show it.
    """
    if token is None or token == "":
        return ()
    if not isinstance(token, str) or not (token.isascii() and token.isprintable()) or " " in token:
        raise InvalidRequestError(
            "token: expected printable ASCII characters without spaces", field="token"
        )
    return (("authorization", f"Bearer {token}"),)
