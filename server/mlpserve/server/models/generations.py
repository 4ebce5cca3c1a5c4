"""Generations: the models of one process that serves, one registry for each that is prepared."""

from collections.abc import Callable, Mapping
from threading import Lock
from typing import Final, Protocol

from mlpserve.model.compiled import CompiledModel
from mlpserve.model.folder import VersionKey
from mlpserve.server.inference.registry import Registry, ServedModel
from mlpserve.server.models.loader import load_checked
from mlpserve.server.models.plan import Plan, PlannedModel
from mlpserve.server.models.quarantine import LoadError
from mlpserve.server.models.snapshots import Snapshot, load_lacking

_MAX_TRIES: Final = 1000


class GenerationNumber(Protocol):
    """Where the processes read which generation is served."""

    @property
    def generation(self) -> int:
        """Return its number."""


class Generations:
    """Prepares generations, and knows the one that is served. Safe to use from many threads.

    Generation 0 is there from the beginning, and has no models.

    Args:
        number: Says which generation is served; read at each request.
        reproducible: As ``CompiledModel`` has it; checked with each version.
        default_model: As ``Registry`` has it.
    """

    def __init__(
        self, number: GenerationNumber, *, reproducible: bool, default_model: str = ""
    ) -> None:
        self._number = number
        self._reproducible = reproducible
        self._default_model = default_model
        self._lock = Lock()
        self._loaded: dict[VersionKey, CompiledModel] = {}
        self._registries = {0: Registry({})}

    @property
    def current(self) -> Registry:
        """Return the models that are served now; for one request, take it once."""
        registry = self._registries.get(self._number.generation)
        return self._current_after_change() if registry is None else registry

    def load(self, key: VersionKey, descriptor: int) -> LoadError | None:
        """Load and check one version, in place of one that was loaded before; requests see nothing.

        It stays loaded until a later generation is served, whatever becomes of others.

        Args:
            key: Which version it is.
            descriptor: Of the snapshot of its weights file; may be closed afterwards.

        Returns:
            Why it cannot be served; None where it can.
        """
        with self._lock:
            loaded = load_checked(descriptor, key, reproducible=self._reproducible)
            if isinstance(loaded, LoadError):
                return loaded
            self._loaded = {**self._loaded, key: loaded}
            return None

    def prepare(self, generation: int, plan: Plan) -> None:
        """Make a registry of what is planned, all versions of which are loaded."""
        with self._lock:
            served = {
                name: _served_model(name, it, self._loaded) for name, it in plan.models.items()
            }
            registry = Registry(served, default_model=self._default_model)
            self._registries = {**self._registries, generation: registry}

    def forget_before(self, generation: int) -> None:
        """Let go of all generations before this one, which is served."""
        with self._lock:
            kept = {n: known for n, known in self._registries.items() if n >= generation}
            self._registries = kept
            in_use = {
                VersionKey(name, version.metadata.version)
                for registry in kept.values()
                for name, model in registry.models.items()
                for version in model.versions
            }
            self._loaded = {key: model for key, model in self._loaded.items() if key in in_use}

    def _current_after_change(self) -> Registry:
        # The number was read, and its generation forgotten before it was looked up.
        for _ in range(_MAX_TRIES):
            registry = self._registries.get(self._number.generation)
            if registry is not None:
                return registry
        raise LookupError(f"generation {self._number.generation} was not prepared in this process")


def _served_model(
    name: str, planned: PlannedModel, loaded: Mapping[VersionKey, CompiledModel]
) -> ServedModel:
    return ServedModel(
        versions=tuple(loaded[VersionKey(name, version)] for version in planned.versions),
        labels=planned.labels,
        default_version=planned.default_version,
        quarantined=planned.quarantined,
    )


class LocalPool:
    """The ``WorkerPool`` of a server of one process: that process.

    Args:
        reproducible: See ``Generations``.
        default_model: See ``Generations``.
        activated: Called after each change.

    Attributes:
        generation: The number of the generation that is served.
        generations: What is served, and prepared to be.
    """

    def __init__(
        self, *, reproducible: bool, default_model: str = "", activated: Callable[[], None]
    ) -> None:
        self.generation = 0
        self.generations: Final = Generations(
            self, reproducible=reproducible, default_model=default_model
        )
        self._activated = activated
        self._loaded: dict[VersionKey, Snapshot] = {}
        self._prepared: Mapping[VersionKey, Snapshot] = {}

    def prepare(
        self, generation: int, plan: Plan, snapshots: Mapping[VersionKey, Snapshot]
    ) -> Mapping[VersionKey, LoadError]:
        """See ``WorkerPool.prepare``."""
        errors = load_lacking(self._loaded, snapshots, self._load)
        if not errors:
            self.generations.prepare(generation, plan)
            self._prepared = snapshots
        return errors

    def activate(self, generation: int) -> None:
        """See ``WorkerPool.activate``."""
        self.generation = generation
        self.generations.forget_before(generation)
        self._loaded = dict(self._prepared)
        self._activated()

    def _load(self, key: VersionKey, snapshot: Snapshot) -> LoadError | None:
        return self.generations.load(key, snapshot.descriptor)
