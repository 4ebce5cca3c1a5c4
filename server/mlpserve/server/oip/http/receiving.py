"""The body of a request: never longer than it may be, and never waited for without end."""

import asyncio
import zlib
from typing import Final

from starlette.requests import Request

from mlpserve.server.errors import ExpiredError, RequestError, TooLargeError, UnsupportedError

_TIMEOUT_S: Final = 60.0
_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS  # zlib's way to say: whichever the data begin with
_COMPRESSIONS: Final = ("gzip", "deflate")


async def received_body(request: Request, *, most: int) -> bytes:
    """Return a request's body, decompressed.

    Args:
        request: The request; its body has not been read yet.
        most: The most bytes that it may have, both as it is sent and decompressed.

    Raises:
        TooLargeError: It has more; what is beyond is not read.
        ExpiredError: It did not arrive in time.
        RequestError: It is not compressed as its headers say.
        UnsupportedError: It is compressed in a way that is not known here.
    """
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding not in {"identity", *_COMPRESSIONS}:
        raise UnsupportedError(f"Content-Encoding: expected {' or '.join(_COMPRESSIONS)}")
    _check_length(request.headers.get("content-length", "0"), most)
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            body = await _read(request, most)
    except TimeoutError as error:
        raise ExpiredError(f"the body did not arrive in {_TIMEOUT_S:g} s") from error
    return body if encoding == "identity" else _decompressed(body, most)


async def _read(request: Request, most: int) -> bytes:
    parts = bytearray()
    async for part in request.stream():
        parts += part
        if len(parts) > most:
            raise _too_large(most)
    return bytes(parts)


def _check_length(announced: str, most: int) -> None:
    # The ASGI server has refused what is no number.
    if len(announced) > len(str(most)) or int(announced) > most:
        raise _too_large(most)


def _decompressed(body: bytes, most: int) -> bytes:
    decompressor = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        found = decompressor.decompress(body, most + 1)
    except zlib.error as error:
        raise RequestError("body: it is not compressed as Content-Encoding says") from error
    if len(found) > most:
        raise _too_large(most)
    if not decompressor.eof:
        raise RequestError("body: it ends before its compressed data do")
    return found


def _too_large(most: int) -> TooLargeError:
    return TooLargeError(
        f"body: expected at most {most} bytes, got more; send fewer images at once"
    )
