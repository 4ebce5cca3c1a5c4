"""How often two versions agreed, counted by all processes of a server together.

Each process adds to a block of its own, in memory that they share, and whoever asks adds up all
blocks. So nobody waits for a lock, and what a process has counted outlives it.
"""

import fcntl
from collections.abc import Iterator
from hashlib import blake2b
from typing import Final, NamedTuple

WORD_BYTES: Final = 8
_PLACES: Final = 128  # processes
_SLOTS: Final = 32  # pairs of versions that one process counts at once
_SLOT_WORDS: Final = 8  # the pair and its counts, filled up to a line of the processor's cache
_BLOCK_WORDS: Final = _SLOTS * _SLOT_WORDS
TALLY_WORDS: Final = _PLACES * _BLOCK_WORDS


class Pair(NamedTuple):
    """Two versions of a model that are compared.

    Attributes:
        name: The model's name.
        answering: The version whose answers are given.
        shadow: The version that they are compared with.
    """

    name: str
    answering: int
    shadow: int


class Counts(NamedTuple):
    """What became of the images that a version answered.

    Attributes:
        compared: So many the other version classified too.
        agreeing: So many of these it gave the same label.
        dropped: So many were left out, for want of time.
        failed: So many the other version could not classify.
    """

    compared: int = 0
    agreeing: int = 0
    dropped: int = 0
    failed: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """Return the sums."""
        return Counts(*(own + more for own, more in zip(self, other, strict=True)))


class Tallies:
    """Counts of pairs. One thread of each process adds, any may ask.

    Args:
        words: Shared memory of ``TALLY_WORDS`` unsigned numbers of 8 bytes, zeros at first.
        place: Which block to write to; no other process that lives may have the same.
    """

    def __init__(self, words: memoryview, place: int) -> None:
        self._words = words
        self._block = place * _BLOCK_WORDS
        # The slot of each pair that was counted, the latest last.
        self._slots = {words[slot]: slot for slot in self._own_slots() if words[slot]}

    @classmethod
    def alone(cls) -> "Tallies":
        """Return tallies that no other process shares."""
        return cls(memoryview(bytearray(TALLY_WORDS * WORD_BYTES)).cast("Q"), 0)

    @classmethod
    def join(cls, words: memoryview, descriptor: int) -> "Tallies":
        """Return tallies that processes share, with a free block of them.

        Args:
            words: As above.
            descriptor: That of the file in which they are. The block is held by a lock on it, which
                ends with the process, or where it closes the file.

        Raises:
            OSError: More processes than there are blocks.
        """
        for place in range(_PLACES):
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            except (BlockingIOError, PermissionError):
                continue
            return cls(words, place)
        raise OSError(f"tallies: expected at most {_PLACES} processes")

    @property
    def is_first(self) -> bool:
        """Return whether this is the process that speaks for all."""
        return self._block == 0

    def add(self, pair: Pair, counts: Counts) -> None:
        """Add to the counts of a pair."""
        digest = _digest(pair)
        slot = self._slots.pop(digest, None)
        if slot is None:
            slot = self._free_slot(digest)
        self._slots[digest] = slot
        for word, more in enumerate(counts, start=slot + 1):
            self._words[word] += more

    def total(self, pair: Pair) -> Counts:
        """Return what all processes have counted of a pair."""
        digest, total = _digest(pair), Counts()
        for slot in range(0, len(self._words), _SLOT_WORDS):
            if self._words[slot] == digest:
                total = total.plus(Counts(*self._words[slot + 1 : slot + 1 + len(total)]))
        return total

    def _free_slot(self, digest: int) -> int:
        free = (slot for slot in self._own_slots() if not self._words[slot])
        slot = next(free, None)
        if slot is None:  # the pair that was counted longest ago is served no longer
            slot = self._slots.pop(next(iter(self._slots)))
        self._words[slot] = 0
        for word in range(slot + 1, slot + _SLOT_WORDS):
            self._words[word] = 0
        self._words[slot] = digest
        return slot

    def _own_slots(self) -> Iterator[int]:
        return iter(range(self._block, self._block + _BLOCK_WORDS, _SLOT_WORDS))


def _digest(pair: Pair) -> int:
    """Return a number for a pair that no other has, and that is not 0."""
    text = f"{pair.name}/{pair.answering}/{pair.shadow}"
    return int.from_bytes(blake2b(text.encode(), digest_size=WORD_BYTES).digest()) or 1
