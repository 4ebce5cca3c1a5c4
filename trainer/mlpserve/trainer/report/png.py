"""PNG pictures as data URIs, written with zlib and struct alone.

Source: Portable Network Graphics (PNG) Specification, W3C, sections 5 and 11.
"""

import base64
import struct
import zlib
from typing import Final

import numpy as np
import numpy.typing as npt

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_GREY, _COLOUR, _PALETTE = 0, 2, 3  # colour types
_BITS: Final = 8
_NO_FILTER: Final = 0

Bytes = npt.NDArray[np.uint8]


def picture_uri(pixels: Bytes) -> str:
    """Return a picture as a data URI.

    Args:
        pixels: (height, width) greys, or (height, width, 3) red, green and blue.
    """
    colour_type = _GREY if pixels.ndim == 2 else _COLOUR  # noqa: PLR2004 - a matrix
    return _uri(pixels, colour_type)


def palette_picture_uri(indices: Bytes, palette: Bytes) -> str:
    """Return a picture whose pixels are indices into a palette as a data URI.

    Args:
        indices: (height, width), each below the length of the palette.
        palette: (count, 4) red, green, blue and opacity, at most 256.
    """
    extra = _chunk(b"PLTE", palette[:, :3].tobytes()) + _chunk(b"tRNS", palette[:, 3].tobytes())
    return _uri(indices, _PALETTE, extra)


def _uri(pixels: Bytes, colour_type: int, extra: bytes = b"") -> str:
    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, _BITS, colour_type, 0, 0, 0)
    # Each row of pixels begins with the number of its filter.
    rows = np.pad(pixels.reshape(height, -1), ((0, 0), (1, 0)), constant_values=_NO_FILTER)
    data = b"".join(
        (
            _SIGNATURE,
            _chunk(b"IHDR", header),
            extra,
            _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)),
            _chunk(b"IEND", b""),
        )
    )
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)
