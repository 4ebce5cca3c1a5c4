"""Named arrays in an uncompressed .npz file, read without trusting it.

``numpy.load`` believes the sizes that a file declares. Here every declared size is held against the
size of the file before anything of that size is allocated, so that no file, however it was made,
takes more memory than it takes disk. Pickled objects are neither written nor read.

What is read is not a copy: the file is mapped, so that several processes share one in memory.

Knows nothing of networks.
"""

import math
import mmap
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.model.errors import WeightsFileError

_SUFFIX: Final = ".npy"
_NPY_VERSION: Final = (1, 0)
_ALIGNMENT_BYTES: Final = 4
# The directory is read at once, and each of its entries takes ten times its bytes. A network has
# two entries of some 80 bytes a layer.
_MAX_READ_BYTES: Final = 1 << 18
# What the zipfile module and NumPy's header parser raise for files that are not what they claim.
_DAMAGE: Final = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ValueError,  # also UnicodeDecodeError
    SyntaxError,
    tokenize.TokenError,
    TypeError,
    LookupError,
    NotImplementedError,
    RuntimeError,  # an encrypted entry; also RecursionError
    OverflowError,
    MemoryError,
)


def write_arrays(file: IO[bytes], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays as an uncompressed .npz that ``numpy.load`` reads as well."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(name + _SUFFIX, "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, _NPY_VERSION, allow_pickle=False)


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read all arrays of an uncompressed .npz file; see ``read_open_arrays``."""
    with path.open("rb") as file:
        return read_open_arrays(file)


def read_open_arrays(file: IO[bytes]) -> dict[str, npt.NDArray[Any]]:
    """Read all arrays of an uncompressed .npz file that is open; it may be closed afterwards.

    Returns:
        Read-only arrays, which are the file as it is mapped into memory. It may be deleted or
        replaced by another, but is not to be changed.

    Raises:
        WeightsFileError: The file is damaged, is no such file, is compressed, holds pickled
            objects, or declares more than it holds.
        OSError: The file cannot be read.
    """
    try:
        with zipfile.ZipFile(_SmallReads(file)) as archive:
            _check_entries(archive, os.fstat(file.fileno()).st_size)
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            return {
                entry.filename.removesuffix(_SUFFIX): _read_array(archive, entry, mapped)
                for entry in archive.infolist()
            }
    except _DAMAGE as error:
        # Some of zipfile's errors have no message.
        cause = str(error) or type(error).__name__
        raise WeightsFileError(f"expected an .npz file, but it is damaged: {cause}") from error


class _SmallReads:
    """A file of which nobody reads much at once: all that is long here is mapped instead."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        found = self._file.read(size if 0 <= size <= _MAX_READ_BYTES else _MAX_READ_BYTES + 1)
        if len(found) > _MAX_READ_BYTES:
            raise zipfile.BadZipFile(f"its directory has more than {_MAX_READ_BYTES} bytes")
        return found


def _check_entries(archive: zipfile.ZipFile, file_size: int) -> None:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED:
            raise WeightsFileError(
                f"entry {entry.filename[:80]!r}: expected it uncompressed; "
                "write it with numpy.savez, not numpy.savez_compressed"
            )
        if not entry.filename.endswith(_SUFFIX):
            raise WeightsFileError(
                f"entry {entry.filename[:80]!r}: expected only arrays, named *{_SUFFIX}"
            )
    if len(set(names)) != len(names):
        raise WeightsFileError("expected each entry once, but a name stands twice")
    declared = sum(entry.file_size for entry in entries)
    if declared > file_size:
        raise WeightsFileError(
            f"the entries declare {declared} bytes, more than the {file_size} of the file"
        )


def _read_array(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, mapped: mmap.mmap
) -> npt.NDArray[Any]:
    name = entry.filename.removesuffix(_SUFFIX)
    with archive.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        if version != _NPY_VERSION:
            raise WeightsFileError(f"entry {name[:80]!r}: expected .npy 1.0, got {version}")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
        if dtype.hasobject:
            raise WeightsFileError(
                f"entry {name[:80]!r}: expected numbers, got pickled objects, which are never read"
            )
        header_bytes = stream.tell()
    data = _content(entry, mapped)[header_bytes:]
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected or min(shape, default=0) < 0:
        raise WeightsFileError(
            f"entry {name[:80]!r}: expected {expected} bytes for {dtype} {shape}, got {len(data)}"
        )
    array = np.frombuffer(_aligned(data), dtype) if expected else np.empty(0, dtype)
    return array.reshape(shape, order="F" if fortran_order else "C")


def _content(entry: zipfile.ZipInfo, mapped: mmap.mmap) -> memoryview:
    """Return the bytes of an entry as they are mapped, after a check of their CRC.

    Reading them through ``zipfile`` would copy them, and keep all other threads waiting meanwhile.
    """
    # An entry's own header has 30 bytes, the last four of which say how long its name and its
    # further fields are.
    lengths = struct.unpack_from("<HH", mapped, entry.header_offset + 26)
    start = entry.header_offset + 30 + sum(lengths)
    content = memoryview(mapped)[start : start + entry.file_size]
    if len(content) != entry.file_size or zlib.crc32(content) != entry.CRC:
        raise zipfile.BadZipFile(f"Bad CRC-32 for file {entry.filename[:80]!r}")
    return content


def _aligned(data: memoryview) -> "memoryview | bytes":
    # BLAS is slow with numbers that do not stand at multiples of their size.
    address = np.frombuffer(data, np.uint8).ctypes.data if len(data) else 0
    return bytes(data) if address % _ALIGNMENT_BYTES else data
