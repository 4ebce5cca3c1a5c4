"""Files without a name: memory that processes share by descriptor, and nobody else can open."""

import os
import tempfile


def anonymous_file(label: str) -> int:
    """Return the descriptor of an empty file that has no name.

    Args:
        label: What lists of open files call it, where the system can say.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create(label, os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
