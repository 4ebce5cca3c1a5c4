"""The board: a few numbers that all processes of a server see at the same instant.

It is a block of memory that the processes share, of no file that anybody else could open. Each
number is one aligned word, which processors store and load in one step, so that no lock is needed:
whoever reads finds the number from before a change or that from after it.
"""

import mmap
import os
from typing import Final

from mlpserve.server.system.anonymous_file import anonymous_file
from mlpserve.server.telemetry.tallies import TALLY_WORDS

_WORD_BYTES: Final = 8
_WORD_FORMAT: Final = "Q"  # the machine's own, which is copied whole; "<Q" goes byte by byte
# Regions begin on lines of their own in the processor's cache, so that writing to one does not slow
# down those who read another.
_REGION_BYTES: Final = 64
_GENERATION: Final = 0
_TALLIES: Final = _REGION_BYTES // _WORD_BYTES  # their first word, after the generation's region
_BOARD_BYTES: Final = _REGION_BYTES + TALLY_WORDS * _WORD_BYTES


class SharedGeneration:
    """Numbers that processes share: made by ``create`` in one, and attached in the others.

    Safe to read from many threads and processes. Each number has one thread that writes it; the
    generation's is of the process that made the board.

    Args:
        descriptor: That of the memory; the board closes it.

    Attributes:
        descriptor: What another process is to be sent, to attach the board there.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor: Final = descriptor
        self._memory = mmap.mmap(descriptor, _BOARD_BYTES)
        self._words = memoryview(self._memory).cast(_WORD_FORMAT)

    @classmethod
    def create(cls) -> "SharedGeneration":
        """Return a board of zeros."""
        descriptor = anonymous_file("mlpserve-board")
        os.ftruncate(descriptor, _BOARD_BYTES)
        return cls(descriptor)

    @classmethod
    def attach(cls, descriptor: int) -> "SharedGeneration":
        """Return the board that another process made.

        Args:
            descriptor: One of this process, for the same memory; the board uses a copy of it.

        Raises:
            ValueError: It is that of no board, or of one with other regions.
        """
        size = os.fstat(descriptor).st_size
        if size != _BOARD_BYTES:
            raise ValueError(f"descriptor: expected a board of {_BOARD_BYTES} bytes, got {size}")
        return cls(os.dup(descriptor))

    @property
    def generation(self) -> int:
        """Return the number of the plan that is served."""
        return self._words[_GENERATION]

    @generation.setter
    def generation(self, value: int) -> None:
        self._words[_GENERATION] = value

    @property
    def tallies(self) -> memoryview:
        """Return the words of ``Tallies``, which say who may write where."""
        return self._words[_TALLIES:]

    def close(self) -> None:
        """Let go of the memory; the other processes keep theirs."""
        self._words.release()
        self._memory.close()
        os.close(self.descriptor)
