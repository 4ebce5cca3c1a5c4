"""How requests are to be divided between labels, as a setting says it: ``stable=95,canary=5``."""

import re
from typing import Final

from mlpserve.model.labels import is_label
from mlpserve.server.errors import StartError

DEFAULT_SPLIT_HEADER: Final = "x-user-id"
_HEADER: Final = re.compile(r"[0-9a-z_.-]{1,64}")
_LARGEST_SHARE: Final = 10**6
_LONGEST_SHARE_DIGITS: Final = 7


def parse_shares(text: str) -> dict[str, int]:
    """Return the shares that a setting gives to labels: ``stable=95,canary=5``.

    Returns:
        Whole numbers that are at least 1, in any unit; none for an empty text.

    Raises:
        StartError: It is no such list.
    """
    shares: dict[str, int] = {}
    for part in text.split(",") if text.strip() else ():
        label, _, share = part.strip().partition("=")
        is_share = (
            share.isascii()
            and share.isdecimal()
            and 1 <= int(share[:_LONGEST_SHARE_DIGITS]) <= _LARGEST_SHARE
        )
        if not is_label(label) or not is_share or label in shares:
            raise StartError(
                f"split: expected labels, each once, with whole numbers from 1 to {_LARGEST_SHARE}"
                f" as 'stable=95,canary=5', got {part[:80]!r}"
            )
        shares[label] = int(share)
    return shares


def check_header(name: str) -> None:
    """Refuse what is no name of a header.

    Raises:
        StartError: It is none.
    """
    if not _HEADER.fullmatch(name):
        raise StartError(
            f"split_header: expected lower-case letters, digits, '-', '_' or '.', got {name[:80]!r}"
        )
