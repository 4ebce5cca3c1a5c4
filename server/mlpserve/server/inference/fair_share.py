"""Room that callers share, so that none of them can take all of it.

No caller may have more than is left free for all others. Where nothing is taken, there is room for
anything.
Source: Choudhury and Hahne, Dynamic Queue Length Thresholds (1998), with alpha 1.
"""


class FairShare:
    """Room for so many things at once. For one thread at a time.

    Args:
        most: How many.

    Attributes:
        most: How many.
        taken: How many there are.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0
        self._taken_by: dict[str | bytes, int] = {}

    @property
    def callers(self) -> int:
        """Return how many callers have some."""
        return len(self._taken_by)

    def taken_by(self, caller: str | bytes) -> int:
        """Return how many a caller has."""
        return self._taken_by.get(caller, 0)

    def before(self, caller: str | bytes, count: int) -> int:
        """Return how many have their turn up to the last of so many of a caller, in fair turns."""
        others = (taken for other, taken in self._taken_by.items() if other != caller)
        return sum(min(taken, count) for taken in others) + count

    def is_free(self, caller: str | bytes, count: int) -> bool:
        """Return whether there is room for so many more of a caller."""
        free = self.most - self.taken - count
        return not self.taken or (free >= 0 and self._taken_by.get(caller, 0) <= free)

    def is_left(self, caller: str | bytes, count: int) -> bool:
        """Return whether so many more fit of a caller that is the only one to have any."""
        return self.taken == self.taken_by(caller) and self.taken + count <= self.most

    def take(self, caller: str | bytes, count: int) -> None:
        """Take room, whether or not it is free."""
        taken = self.taken + count
        self._taken_by[caller] = self._taken_by.get(caller, 0) + count
        self.taken = taken  # what may fail for lack of memory comes before: all or nothing

    def give_back(self, caller: str | bytes, count: int) -> None:
        """Give back room that was taken."""
        taken, left = self.taken - count, self._taken_by[caller] - count
        if left:
            self._taken_by[caller] = left
        else:
            del self._taken_by[caller]
        self.taken = taken
