"""The models of one process that serves, one registry for each generation that is prepared."""

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Final

from mlpserve.model.folder import VersionKey
from mlpserve.server.inference.compiled import CompiledModel
from mlpserve.server.inference.registry import Registry, ServedModel
from mlpserve.server.models.loader import load_checked
from mlpserve.server.models.plan import Plan, PlannedModel
from mlpserve.server.models.worker_pool import GenerationNumber

_MOST_TRIES: Final = 1000


@dataclass
class LocalGeneration:
    """The board of a server of one process.

    Attributes:
        generation: The number of the generation that is served.
    """

    generation: int = 0


class Generations:
    """Prepares generations, and knows the one that is served. Safe to use from many threads.

    Generation 0 is there from the beginning, and has no models.

    Args:
        board: Says which generation is served; read at each request.
        reproducible: As ``CompiledModel`` has it; checked with each version.
    """

    def __init__(self, board: GenerationNumber, *, reproducible: bool) -> None:
        self._board = board
        self._reproducible = reproducible
        self._lock = Lock()
        self._loaded: dict[VersionKey, CompiledModel] = {}
        self._registries = {0: Registry({})}

    @property
    def current(self) -> Registry:
        """Return the models that are served now; for one request, take it once."""
        registry = self._registries.get(self._board.generation)
        return self._current_after_change() if registry is None else registry

    def prepare(
        self, generation: int, plan: Plan, files: Mapping[VersionKey, int]
    ) -> dict[VersionKey, str]:
        """Load and check what is planned; requests see nothing of it.

        What was loaded stays loaded until a later generation is activated, also where others have
        problems, so that the next attempt needs no file of it.

        Args:
            generation: Its number.
            plan: What is to be served.
            files: Descriptors of snapshots, of planned versions only. A version that is not among
                them is the one that was loaded before. They may be closed afterwards.

        Returns:
            Why versions cannot be served, in a sentence each; none where all is prepared.
        """
        with self._lock:
            found = {key: self._load(key, descriptor) for key, descriptor in files.items()}
            problems = {key: problem for key, problem in found.items() if problem is not None}
            if not problems:
                registry = _registry(plan, self._loaded)
                self._registries = {**self._registries, generation: registry}
            return problems

    def load(self, key: VersionKey, descriptor: int) -> str | None:
        """Load and check one version; a later ``prepare`` needs no file of it.

        Returns:
            Why it cannot be served, in a sentence; None where it can.
        """
        with self._lock:
            return self._load(key, descriptor)

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

    def _load(self, key: VersionKey, descriptor: int) -> str | None:
        found = load_checked(descriptor, key, reproducible=self._reproducible)
        if not isinstance(found, CompiledModel):
            return found
        self._loaded = {**self._loaded, key: found}
        return None

    def _current_after_change(self) -> Registry:
        # The number was read, and its generation forgotten before it was looked up.
        for _ in range(_MOST_TRIES):
            registry = self._registries.get(self._board.generation)
            if registry is not None:
                return registry
        raise LookupError(f"generation {self._board.generation} was not prepared in this process")


def _registry(plan: Plan, loaded: Mapping[VersionKey, CompiledModel]) -> Registry:
    return Registry(
        {name: _served_model(name, model, loaded) for name, model in plan.models.items()}
    )


def _served_model(
    name: str, planned: PlannedModel, loaded: Mapping[VersionKey, CompiledModel]
) -> ServedModel:
    return ServedModel(
        versions=tuple(loaded[VersionKey(name, version)] for version in planned.versions),
        labels=planned.labels,
        default_version=planned.default_version,
        quarantined=planned.quarantined,
    )
