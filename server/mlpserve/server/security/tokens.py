"""Bearer tokens: they name callers, and the server keeps only their digests.

A token file has a line for each caller, ``NAME sha256:DIGEST``; empty lines and those that begin
with # are passed over. Tokens are 32 random bytes, so a digest without salt or many rounds tells
nobody what they are.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from mlpserve.server.errors import StartError, UnauthenticatedError
from mlpserve.server.security.reloading_files import ReloadingFiles

AUTHORIZATION: Final = "authorization"
_SCHEME: Final = "bearer "
_TOKEN_BYTES: Final = 32
_MAX_TOKEN_LENGTH: Final = 4096
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LINE: Final = re.compile(rf"({_NAME.pattern})\s+sha256:([0-9a-f]{{64}})")


def new_token(name: str) -> tuple[str, str]:
    """Return a token for a caller, and the line of the token file that lets it in.

    Raises:
        StartError: The name is none.
    """
    if not _NAME.fullmatch(name):
        raise StartError(
            f"name: expected 1 to 64 letters, digits, '.', '_' or '-', got {name[:80]!r}"
        )
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    return token, f"{name} sha256:{_digest(token.encode())}"


class Tokens:
    """The tokens of a file, which may change.

    Safe to use from many threads.

    Args:
        path: The file.
        required: Whether callers without a token are refused. One that is wrong always is.

    Raises:
        StartError: The file cannot be read, or has a line that is none of a token.
    """

    def __init__(self, path: Path, *, required: bool) -> None:
        self._required = required
        self._names = ReloadingFiles([path], lambda contents: _names(path, contents))

    def caller(self, metadata: Sequence[tuple[str, str | bytes]] | None) -> str:
        """Return the name of who sends this metadata; empty where nobody has to say.

        Raises:
            UnauthenticatedError: There is no token though there must be, or no such token.
        """
        given = [value for key, value in metadata or () if key == AUTHORIZATION]
        if not given:
            if self._required:
                raise UnauthenticatedError(
                    "authorization: expected metadata 'authorization: Bearer TOKEN', got none"
                )
            return ""
        return self._name(given[0])

    def reload(self) -> None:
        """Read the file now, if it has changed."""
        self._names.reload()

    def _name(self, given: str | bytes) -> str:
        text = given.decode(errors="replace") if isinstance(given, bytes) else given
        if text[: len(_SCHEME)].lower() != _SCHEME or len(text) > _MAX_TOKEN_LENGTH:
            raise UnauthenticatedError("authorization: expected 'Bearer TOKEN', got something else")
        digest = _digest(text[len(_SCHEME) :].strip().encode())
        found = ""
        # All are compared, so that the time tells nothing.
        for known, name in self._names.get().items():
            if hmac.compare_digest(known, digest):
                found = name
        if not found:
            raise UnauthenticatedError("authorization: expected a token that is known here")
        return found


def _digest(token: bytes) -> str:
    return hashlib.sha256(token).hexdigest()


def _names(path: Path, contents: Sequence[bytes]) -> Mapping[str, str]:
    """Return names by digests."""
    names: dict[str, str] = {}
    for number, line in enumerate(contents[0].decode(errors="replace").splitlines(), start=1):
        written = line.strip()
        if not written or written.startswith("#"):
            continue
        parts = _LINE.fullmatch(written)
        if parts is None:  # the line is not shown: somebody may have put a token there
            raise StartError(
                f"{path}: line {number}: expected NAME sha256:DIGEST, as printed by: "
                "mlpserve-serve token NAME"
            )
        names[parts[2]] = parts[1]
    return names
