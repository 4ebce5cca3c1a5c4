"""Paths as users write them: ``~`` is the home folder.

``mlpserve.model.command_line`` has the same for the commands that know models: neither part may
import the other.
"""

import argparse
import os
from pathlib import Path

from mlpserve.datasets.errors import DatasetError


class NoHomeError(DatasetError, argparse.ArgumentTypeError):
    """A path begins in the home folder, and there is none."""


def user_path(text: str) -> Path:
    """Return a path; ``~`` at its beginning is the home folder, and ``~name`` that of a user.

    Raises:
        NoHomeError: There is no home folder.
    """
    if text.partition("/")[0] == "~" and not has_home():
        raise NoHomeError(
            f"{text!r}: there is no home folder, because HOME is empty, or is not set for a user "
            "without a name; give the path in full"
        )
    return Path(os.path.expanduser(text))  # noqa: PTH111 - leaves the ~name of nobody as it is


def has_home() -> bool:
    """Return whether there is a home folder."""
    # Of a user whom the system does not know, as in a container, nothing is expanded; and an empty
    # variable would make the root folder of it.
    return os.environ.get("HOME") != "" and os.path.expanduser("~").startswith("/")  # noqa: PTH111
