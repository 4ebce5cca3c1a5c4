"""Who serves: the processes that load what is planned, and change over to it together."""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from mlpserve.model.folder import VersionKey
from mlpserve.server.models.plan import Plan
from mlpserve.server.models.snapshots import Snapshot


class WorkerPool(Protocol):
    """The processes that serve. For one thread at a time."""

    def prepare(
        self, generation: int, plan: Plan, snapshots: Mapping[VersionKey, Snapshot]
    ) -> Mapping[VersionKey, str]:
        """Load and check what is planned, in every process; requests see nothing of it yet.

        Args:
            generation: A number that is higher than all before.
            plan: What is to be served.
            snapshots: The weights of all versions of the plan. A version that is loaded already is
                loaded anew only where its snapshot is another object than then.

        Returns:
            Why versions cannot be served, in a sentence each that may be shown to callers, a
            ``PassingProblem`` where it may be otherwise the next time; none where the generation
            can be activated.
        """

    def activate(self, generation: int) -> None:
        """Serve a generation that was prepared, in all processes from the same moment on.

        What older generations alone hold is then forgotten.
        """


class LoadedSnapshots:
    """Which snapshots one process has loaded, so that it is given only what it lacks."""

    def __init__(self) -> None:
        self._held: dict[VersionKey, Snapshot] = {}

    def lacking(self, snapshots: Mapping[VersionKey, Snapshot]) -> dict[VersionKey, Snapshot]:
        """Return those of the snapshots that the process has not loaded."""
        held = self._held
        return {key: wanted for key, wanted in snapshots.items() if held.get(key) is not wanted}

    def add(
        self, snapshots: Mapping[VersionKey, Snapshot], problems: Iterable[VersionKey] = ()
    ) -> None:
        """Note that the process has loaded the snapshots, but for those with problems."""
        failed = set(problems)  # it goes on with what it had of them before
        self._held.update((key, held) for key, held in snapshots.items() if key not in failed)

    def keep(self, keys: Iterable[VersionKey]) -> None:
        """Note that the process has forgotten all but these."""
        kept = set(keys)
        self._held = {key: held for key, held in self._held.items() if key in kept}


class Process(Protocol):
    """What ``LocalPool`` needs of ``Generations``."""

    def prepare(
        self, generation: int, plan: Plan, files: Mapping[VersionKey, int]
    ) -> Mapping[VersionKey, str]:
        """See ``Generations.prepare``."""

    def forget_before(self, generation: int) -> None:
        """See ``Generations.forget_before``."""


class GenerationNumber(Protocol):
    """Where the processes read which generation is served."""

    generation: int


class LocalPool:
    """The crew of a server of one process: that process.

    Args:
        process: The process's generations.
        board: The board that they read.
        activated: Called after each change.
    """

    def __init__(
        self, process: Process, board: GenerationNumber, *, activated: Callable[[], None]
    ) -> None:
        self._process = process
        self._board = board
        self._activated = activated
        self._held = LoadedSnapshots()
        self._prepared = Plan({})

    def prepare(
        self, generation: int, plan: Plan, snapshots: Mapping[VersionKey, Snapshot]
    ) -> Mapping[VersionKey, str]:
        """See ``WorkerPool.prepare``."""
        lacking = self._held.lacking(snapshots)
        files = {key: snapshot.descriptor for key, snapshot in lacking.items()}
        problems = self._process.prepare(generation, plan, files)
        self._held.add(lacking, problems)
        self._prepared = plan
        return problems

    def activate(self, generation: int) -> None:
        """See ``WorkerPool.activate``."""
        self._board.generation = generation
        self._process.forget_before(generation)
        self._held.keep(self._prepared.version_keys())
        self._activated()
