"""Router: finds the version of a model that answers a request, by number, label or traffic split.

A request that names neither version nor label may be split between labels by given shares. It has a
point on a circle, and each label an arc of it, as long as its share. The point is a digest of who
asks, where a header of the request says so: a user stays on one version, in every process and after
every start. Where it does not, the points are those of a golden-ratio sequence, which after any
number of requests has given each label its share to within a few requests.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from hashlib import blake2b
from itertools import accumulate, count
from types import MappingProxyType
from typing import Final, TypeAlias

from mlpserve.server.inference.compiled import CompiledModel
from mlpserve.server.inference.registry import Registry

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]
# Who asks, as a header says; or the number of a call whose requests belong together; or nothing.
SplitKey: TypeAlias = str | bytes | int | None

NO_SHARES: Final[Mapping[str, int]] = MappingProxyType({})
_CIRCLE: Final = 2**64
# The fraction of the golden ratio: its multiples are spread more evenly than those of any other.
_STEP: Final = 0x9E3779B97F4A7C15


class Router:
    """Finds who answers. Safe to use from many threads.

    Args:
        current: Returns the models that are served at the moment.
        shares: What each label is to get of the requests that name neither version nor label; none
            for no split.
        header: The name of the header that says who asks.
    """

    def __init__(
        self,
        current: Callable[[], Registry],
        shares: Mapping[str, int] = NO_SHARES,
        *,
        header: str = "",
    ) -> None:
        self._current = current
        self._labels = list(shares)
        total = sum(shares.values())
        self._ends = [end * _CIRCLE // total for end in accumulate(shares.values())]
        self._header = header
        # A count is one step of the interpreter, so that threads need no lock.
        self._counts: dict[str, count[int]] = {}
        self._calls = count(1)

    @property
    def registry(self) -> Registry:
        """Return the models that are served now; for one request, take it once."""
        return self._current()

    def key(self, metadata: Metadata | None) -> SplitKey:
        """Return who asks, where there is a split and the headers of a request say so."""
        if self._labels:
            for name, value in metadata or ():
                if name == self._header and value:
                    return value
        return None

    def stream_key(self, metadata: Metadata | None) -> SplitKey:
        """Return the same for a call of many requests, which stay together in any case."""
        key = self.key(metadata)
        return next(self._calls) if key is None else key

    def find(
        self, name: str, version: int = 0, label: str = "", key: SplitKey = None
    ) -> CompiledModel:
        """Return the version that is to answer; arguments and errors as of ``Registry.find``.

        The share of a label that the model does not have goes to its default version.

        Args:
            name: The model's name; may be empty where one model only is served.
            version: The version's number; 0 to leave it to ``label``.
            label: The label; empty for the split, or the default version.
            key: Who asks.
        """
        registry = self._current()
        found = registry.find(name, version, label)
        return found if version or label else self.split(registry, found, key)

    def split(self, registry: Registry, default: CompiledModel, key: SplitKey) -> CompiledModel:
        """Return who answers in place of a model's default version; that where there is no split.

        Args:
            registry: The models that are served.
            default: The default version.
            key: Who asks.
        """
        if not self._labels:
            return default
        name = default.metadata.name
        return registry.labelled(name, self.label(name, key)) or default

    def label(self, name: str, key: SplitKey) -> str:
        """Return the label that the split chooses.

        Args:
            name: The model's name. A user's place in one model says nothing of that in another.
            key: Who asks.
        """
        return self._labels[bisect_right(self._ends, self._point(name, key))]

    def _point(self, name: str, key: SplitKey) -> int:
        if key is None:
            key = next(self._counts.setdefault(name, count(1)))
        if isinstance(key, int):
            return key * _STEP % _CIRCLE
        value = key.encode(errors="replace") if isinstance(key, str) else key
        return int.from_bytes(blake2b(value, digest_size=8, person=_person(name)).digest())


@cache
def _person(name: str) -> bytes:
    """Return the model's name as what makes a digest another."""
    return blake2b(name.encode(), digest_size=blake2b.PERSON_SIZE).digest()
