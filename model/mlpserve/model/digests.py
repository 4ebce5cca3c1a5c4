"""The digest beside a weights file: ``weights.npz.sha256``, as the program sha256sum writes it.

So that a file that a disk, a copy or a person has changed is found, ``sha256sum --check`` in the
folder of a version does it as well. Whoever can change the weights can change the digest: it is
against accidents, not against enemies. Needs no NumPy.
"""

import hashlib
import re
from pathlib import Path
from typing import Final

from mlpserve.model.errors import WeightsFileError
from mlpserve.model.folder import WEIGHTS_FILE_NAME, open_file

DIGEST_FILE_NAME: Final = f"{WEIGHTS_FILE_NAME}.sha256"
# The star says that the file was read as bytes, which on POSIX makes no difference.
_LINE: Final = re.compile(rf"([0-9a-f]{{64}}) [ *]{re.escape(WEIGHTS_FILE_NAME)}\n?")
_MAX_LINE_BYTES: Final = 100


def digest_line(weights_file: Path) -> bytes:
    """Return what the digest file beside a weights file is to hold.

    Raises:
        OSError: The weights file cannot be read.
    """
    return f"{_digest(weights_file)}  {WEIGHTS_FILE_NAME}\n".encode()


def read_digest(version_folder: Path) -> str | None:
    """Return the SHA-256 that the weights file of a version is to have.

    Returns:
        64 hexadecimal digits in lower case; None where there is no digest file, as with versions
        of earlier releases.

    Raises:
        WeightsFileError: The digest file is malformed or cannot be read; the message begins with
            its path.
    """
    path = version_folder / DIGEST_FILE_NAME
    try:
        text = _read_start(path)
    except FileNotFoundError:
        return None
    except WeightsFileError as error:
        raise WeightsFileError(f"{path}: {error}") from error
    except OSError as error:
        raise WeightsFileError(f"{path}: cannot be read: {error.strerror}") from error
    match = _LINE.fullmatch(text)
    if match is None:
        raise WeightsFileError(
            f"{path}: expected one line of 64 hexadecimal digits, two spaces and "
            f"{WEIGHTS_FILE_NAME}, as sha256sum writes it, got {text[:80]!r}"
        )
    return match[1]


def check_digest(version_folder: Path) -> None:
    """Check that the weights file of a version is the one that was published.

    A version without a digest file passes.

    Raises:
        WeightsFileError: It has another digest, or one of the two files cannot be read.
    """
    expected = read_digest(version_folder)
    if expected is None:
        return
    path = version_folder / WEIGHTS_FILE_NAME
    try:
        actual = _digest(path)
    except OSError as error:
        raise WeightsFileError(f"{path}: cannot be read: {error.strerror}") from error
    if actual != expected:
        raise WeightsFileError(
            f"{path}: expected the SHA-256 {expected}, which {DIGEST_FILE_NAME} has, got {actual}: "
            "the file was changed after it was published; publish the version anew"
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_start(path: Path) -> str:
    with open_file(path) as file:
        return file.read(_MAX_LINE_BYTES + 1).decode("latin-1")
