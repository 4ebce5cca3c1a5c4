"""Registry and router: find the version of a model that answers a request.

A registry has the models of one moment, by name and version or label; the router knows the registry
of now, and splits traffic.

A request that names neither version nor label may be split between labels by given shares. It has a
point on a circle, and each label an arc of it, as long as its share. The point is a digest of who
asks, where a header of the request says so: a user stays on one version, in every process and after
every start. Where it does not, the points are those of a golden-ratio sequence, which after any
number of requests has given each label its share to within a few requests.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from itertools import accumulate, count
from types import MappingProxyType
from typing import Final, NoReturn, TypeAlias

from mlpserve.model.compiled import CompiledModel
from mlpserve.server.errors import NotReadyError, NotServedError, RequestError

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]
# Who asks, as a header says; or the number of a call whose requests belong together; or nothing.
SplitKey: TypeAlias = str | bytes | int | None

NO_SHARES: Final[Mapping[str, int]] = MappingProxyType({})
_CIRCLE: Final = 2**64
# The fraction of the golden ratio: its multiples are spread more evenly than those of any other.
_STEP: Final = 0x9E3779B97F4A7C15
_NAMES_IN_MESSAGE: Final = 10
_SHOWN_CHARACTERS: Final = 80


@dataclass(frozen=True)
class ServedModel:
    """What is served of one model; see ``PlannedModel``.

    Attributes:
        versions: The versions, the newest first; none where all are quarantined.
        labels: What each label means: the number of one of ``versions``.
        default_version: What answers where neither version nor label is asked for; 0 where there is
            no version.
        quarantined: Versions that failed their checks, the newest first, and why in a sentence.
    """

    versions: tuple[CompiledModel, ...]
    labels: Mapping[str, int] = field(default_factory=dict)
    default_version: int = 0
    quarantined: Mapping[int, str] = field(default_factory=dict)

    def version(self, number: int) -> CompiledModel:
        """Return one of ``versions`` by its number."""
        return next(model for model in self.versions if model.metadata.version == number)


class Registry:
    """Models by name.

    Safe to use from many threads: nothing in it changes.

    Args:
        models: The models by their names.
        default_model: The name of the one that answers where a request names none, served or not;
            empty for the only one that is served.
    """

    def __init__(self, models: Mapping[str, ServedModel], *, default_model: str = "") -> None:
        self._models = dict(sorted(models.items()))
        self._served = [name for name, model in self._models.items() if model.versions]
        only = self._served[0] if len(self._served) == 1 else ""
        self._default = default_model or only
        self._found = {
            asked: model for name in self._served for asked, model in self._asked_for(name)
        }

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """Return all models, in the order of their names, also those of which nothing is served."""
        return self._models

    @property
    def is_ready(self) -> bool:
        """Return whether there is anything that could answer."""
        return bool(self._served)

    def model(self, name: str) -> tuple[str, ServedModel]:
        """Return a model with its name.

        Args:
            name: The model's name; may be empty where one is the default, or the only one served.

        Raises:
            RequestError: ``name`` is empty though several models are served, none by default.
            NotServedError: There is no model of this name.
            NotReadyError: Nothing is served yet.
        """
        meant = name or self._default
        if meant in self._models:
            return meant, self._models[meant]
        if not self._served:
            raise NotReadyError("no model is served yet: the server waits for the first version")
        if not meant:
            raise RequestError(
                f"model_name: required, because several models are served: {_listed(self._served)}"
            )
        if not name:
            raise NotServedError(
                f"model_name: required, because the server's default_model {meant!r} is not "
                f"served; served are: {_listed(self._served)}"
            )
        raise NotServedError(
            f"model_name: no model {name[:_SHOWN_CHARACTERS]!r} is served; "
            f"served are: {_listed(self._served)}"
        )

    def find(self, name: str, version: int, label: str = "") -> CompiledModel:
        """Return one version of a model.

        Args:
            name: As for ``model``.
            version: The version's number; 0 to leave it to ``label``.
            label: The label of the version; empty for the default version.

        Raises:
            RequestError: As for ``model``, or ``version`` is negative, or both are given.
            NotServedError: There is no such model, or no such version or label of it.
            NotReadyError: Nothing is served yet.
        """
        found = self._found.get((name, version, label))
        return self._refuse(name, version, label) if found is None else found

    def labelled(self, name: str, label: str) -> CompiledModel | None:
        """Return the version of a model that a label means; None where there is none."""
        return self._found.get((name, 0, label))

    def _asked_for(self, name: str) -> Iterator[tuple[tuple[str, int, str], CompiledModel]]:
        """Yield what a request may ask for to mean a version of a model, with that version."""
        model = self._models[name]
        for asked in (name, "") if name == self._default else (name,):
            yield (asked, 0, ""), model.version(model.default_version)
            yield from (((asked, found.metadata.version, ""), found) for found in model.versions)
            for label, number in model.labels.items():
                yield (asked, 0, label), model.version(number)

    def _refuse(self, name: str, version: int, label: str) -> NoReturn:
        if version < 0:
            raise RequestError(
                f"model_version: expected a positive number, or 0 for the default, got {version}"
            )
        if version and label:
            raise RequestError(
                f"model_label: expected none beside model_version {version}, "
                f"got {label[:_SHOWN_CHARACTERS]!r}"
            )
        if not self._served:
            raise NotReadyError("no model is served yet: the server waits for the first version")
        name, model = self.model(name)
        if label:
            raise NotServedError(
                f"model_label: no version of model {name!r} that can be served has the label "
                f"{label[:_SHOWN_CHARACTERS]!r}; labels are: {_listed(list(model.labels))}"
            )
        numbers = [str(served.metadata.version) for served in model.versions]
        asked = f"version {version}" if version else "any version"
        raise NotServedError(
            f"model_version: {asked} of model {name!r} is not served; served are: "
            f"{_listed(numbers)}{_why(model, version)}"
        )


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
            name: As for ``Registry.model``.
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


def _why(model: ServedModel, version: int) -> str:
    """Return the rest of a message about a version that is not served, where there is a reason."""
    if version in model.quarantined:
        return f"; it failed its checks: {model.quarantined[version]}"
    return ""


def _listed(names: Sequence[str]) -> str:
    """Return names for a message; a few, because the transport limits how long a message may be."""
    more = len(names) - _NAMES_IN_MESSAGE
    listed = ", ".join(names[:_NAMES_IN_MESSAGE]) or "none"
    return f"{listed} and {more} more (see ListModels)" if more > 0 else listed


@cache
def _person(name: str) -> bytes:
    """Return the model's name as what makes a digest another."""
    return blake2b(name.encode(), digest_size=blake2b.PERSON_SIZE).digest()
