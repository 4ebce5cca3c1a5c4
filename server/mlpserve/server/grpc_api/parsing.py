"""Parsing of requests: of small ones whole, and else apart from their one large field.

The requests of a caller are alike but for that field. So what one was parsed to is kept, with the
bytes before its large field and after it. Another one that is as long, and begins and ends with the
same bytes, has the same fields of the same lengths: its large field is in the same place, and the
rest of it means the same.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Generic, NamedTuple, TypeVar

from google.protobuf.message import DecodeError, Message

from mlpserve.server.errors import RequestError
from mlpserve.server.grpc_api.wire import cut_out

_MAX_KEPT: Final = 1024  # and then all are forgotten: whoever comes often is soon kept again
_MAX_KEPT_BYTES: Final = 256  # of names and labels; as long as these may be, others are not kept
_MAX_OF_A_LENGTH: Final = 4

_MessageT = TypeVar("_MessageT", bound=Message)


def parsed(kind: type[_MessageT], data: bytes) -> _MessageT:
    """Return the message that the bytes are.

    Raises:
        RequestError: They are none of this kind.
    """
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise RequestError(
            f"request: expected a {kind.DESCRIPTOR.full_name}, got {len(data)} bytes that are none"
        ) from error


class _Kept(NamedTuple, Generic[_MessageT]):
    """A message that was parsed, without its large field, and the bytes around that."""

    before: bytes
    after: bytes
    message: _MessageT


class Parser(Generic[_MessageT]):
    """Parses messages of one kind, each apart from one field. Safe to use from many threads.

    Args:
        kind: The kind of the messages.
        path: The number of the field, after those of the messages that it is in.
        min_bytes: What is smaller is parsed whole. Looking for the field in Python takes longer
            than copying a small one, which is worth it only where messages are alike.
    """

    def __init__(self, kind: type[_MessageT], path: Sequence[int], *, min_bytes: int = 0) -> None:
        self._kind = kind
        self._path = path
        self._min_bytes = min_bytes
        self._kept: dict[int, tuple[_Kept[_MessageT], ...]] = {}  # by the length of the whole

    def parse(self, data: bytes) -> tuple[_MessageT, memoryview | None]:
        """Return the message that the bytes are, in two parts.

        Returns:
            The message without the field, and the field, a view of ``data``; or the whole message,
            and None. Others may get the same message: it is not to be changed.

        Raises:
            RequestError: As for ``parsed``.
        """
        for kept in self._kept.get(len(data), ()):
            if data.startswith(kept.before) and data.endswith(kept.after):
                end = len(data) - len(kept.after)
                return kept.message, memoryview(data)[len(kept.before) : end]
        return self._parse_anew(data)

    def _parse_anew(self, data: bytes) -> tuple[_MessageT, memoryview | None]:
        cut = None if len(data) < self._min_bytes else cut_out(data, self._path)
        if cut is not None:
            with suppress(DecodeError):  # which is told of the whole message
                message = self._kind.FromString(cut.rest)
                end = cut.start + len(cut.field)
                self._keep(len(data), _Kept(data[: cut.start], data[end:], message))
                return message, cut.field
        return parsed(self._kind, data), None

    def _keep(self, length: int, new: _Kept[_MessageT]) -> None:
        if len(new.before) + len(new.after) > _MAX_KEPT_BYTES:
            return
        if len(self._kept) >= _MAX_KEPT:
            self._kept.clear()
        alike = self._kept.get(length, ())
        self._kept[length] = (new, *alike)[:_MAX_OF_A_LENGTH]
