"""Shared generation: the number of what is served, which all processes see at the same instant.

It is in a block of memory that the processes share, of no file that anybody else could open. It is
one aligned word, which processors store and load in one step, so that no lock is needed: whoever
reads finds the number from before a change or that from after it.
"""

import mmap
import os
from typing import Final

from mlpserve.server.system.descriptors import anonymous_file

_WORD_FORMAT: Final = "Q"  # the machine's own, which is copied whole; "<Q" goes byte by byte
_MEMORY_BYTES: Final = 8


class SharedGeneration:
    """The number of the generation that is served: made by ``create``, attached by other processes.

    Safe to read from many threads and processes. One thread writes, in the process that made it.

    Args:
        descriptor: That of the memory; this object closes it.

    Attributes:
        descriptor: What another process is to be sent, to attach the memory there.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor: Final = descriptor
        self._memory = mmap.mmap(descriptor, _MEMORY_BYTES)
        self._words = memoryview(self._memory).cast(_WORD_FORMAT)

    @classmethod
    def create(cls) -> "SharedGeneration":
        """Return a new one, at generation 0."""
        descriptor = anonymous_file("mlpserve-generation")
        os.ftruncate(descriptor, _MEMORY_BYTES)
        return cls(descriptor)

    @classmethod
    def attach(cls, descriptor: int) -> "SharedGeneration":
        """Return the one that another process made.

        Args:
            descriptor: One of this process, for the same memory; a copy of it is used.

        Raises:
            ValueError: It is that of something else.
        """
        size = os.fstat(descriptor).st_size
        if size != _MEMORY_BYTES:
            raise ValueError(f"descriptor: expected memory of {_MEMORY_BYTES} bytes, got {size}")
        return cls(os.dup(descriptor))

    @property
    def generation(self) -> int:
        """Return the number of the plan that is served."""
        return self._words[0]

    @generation.setter
    def generation(self, value: int) -> None:
        self._words[0] = value

    def close(self) -> None:
        """Let go of the memory; the other processes keep theirs."""
        self._words.release()
        self._memory.close()
        os.close(self.descriptor)
