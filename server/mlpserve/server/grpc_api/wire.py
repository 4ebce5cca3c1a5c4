"""Wire format of protobuf: large fields cut out of a message, so that parsing does not copy them.

Parsing copies a field of bytes into the message, and reading it copies it out again. With the
images of a large request these are two passes over cold memory, and take longer than half of the
network's own pass. So the field is cut out where it is, and what is left of the message is parsed.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

# Source: protobuf.dev, "Encoding".
VARINT, FIXED_64, LENGTH, GROUP, END_OF_GROUP, FIXED_32 = range(6)
KIND_BITS: Final = 3
KIND: Final = (1 << KIND_BITS) - 1
HAS_MORE: Final = 0x80
_VALUE_BITS: Final = 7
_MAX_VARINT_BYTES: Final = 10

_MAX_FIELDS: Final = 64  # of a message on the way; as libraries write them they have five
_MAX_HEAD_BYTES: Final = 6  # a tag below 16, and a length of 32 bits


class Cut(NamedTuple):
    """A message in two parts.

    Attributes:
        rest: A message with all its fields but one.
        field: The content of that one, a view of the message.
        start: Where in the message it begins.
    """

    rest: bytes
    field: memoryview
    start: int


def cut_out(data: bytes, path: Sequence[int]) -> Cut | None:
    """Return a message without one large field, and that field.

    Args:
        data: The message.
        path: The number of the field, after those of the messages that it is in; all below 16.

    Returns:
        None where the message is not as libraries write it: the field is not there exactly once, or
        there are groups, very many fields, or bytes that are no field. Such a message is to be
        parsed whole, which finds out what it means, or what is wrong with it.
    """
    return _cut_out(data, 0, len(data), path)


def _cut_out(data: bytes, at: int, end: int, path: Sequence[int]) -> Cut | None:
    number, *inner_path = path
    place = _only_place(data, at, end, number)
    if place is None:
        return None
    start, content, content_end = place
    before, after = data[at:start], data[content_end:end]
    if not inner_path:
        return Cut(before + after, memoryview(data)[content:content_end], content)
    inner = _cut_out(data, content, content_end, inner_path)
    if inner is None:
        return None
    head = length_head(number, len(inner.rest))
    return Cut(before + head + inner.rest + after, inner.field, inner.start)


def _only_place(data: bytes, at: int, end: int, number: int) -> tuple[int, int, int] | None:
    """Return where a field starts, where its content does and ends; None if that is not certain."""
    place = None
    for _ in range(_MAX_FIELDS):
        if at == end:
            return place
        start = at
        tag, at = varint(data, at)
        kind = tag & KIND
        if kind == VARINT:
            _, at = varint(data, at)
        elif kind == LENGTH:
            length, at = varint(data, at)
            if tag >> KIND_BITS == number:
                if place is not None or at - start > _MAX_HEAD_BYTES:
                    return None
                place = start, at, at + length
            at += length
        elif kind in (FIXED_32, FIXED_64):
            at += 4 if kind == FIXED_32 else 8
        else:
            return None
        if at > end:
            return None
    return None


def varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Return a number and where it ends; the end of the data where it is none."""
    value = 0
    for index, byte in enumerate(data[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & HAS_MORE - 1) << _VALUE_BITS * index
        if byte < HAS_MORE:
            return value, at + index + 1
    return 0, len(data)


@lru_cache
def length_head(number: int, length: int) -> bytes:
    """Return what stands before so many bytes of a field, whose number is below 16."""
    return bytes([number << KIND_BITS | LENGTH]) + _encoded(length)


def _encoded(value: int) -> bytes:
    encoded = bytearray()
    while value >= HAS_MORE:
        encoded.append(value & HAS_MORE - 1 | HAS_MORE)
        value >>= _VALUE_BITS
    encoded.append(value)
    return bytes(encoded)
