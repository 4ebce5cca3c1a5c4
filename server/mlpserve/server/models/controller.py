"""Brings about that what is served is what the models folder, its labels and people say.

    scan -> select -> snapshots -> crew.prepare -> crew.activate
              ^------- quarantine <------' (what failed its checks; then select again)

Whatever goes wrong with a version, what was served before goes on being served.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from threading import Lock
from typing import Final

from mlpserve.model.folder import VersionKey, is_model_name
from mlpserve.server.errors import NotServedError, RequestError, UnusableError
from mlpserve.server.models.overrides import Overrides
from mlpserve.server.models.plan import Plan, PlannedModel
from mlpserve.server.models.quarantine import Failure, Quarantine
from mlpserve.server.models.scanner import FolderState, scan, scan_model
from mlpserve.server.models.selection import Rules, select
from mlpserve.server.models.snapshot_cache import SnapshotCache, SnapshotTaker
from mlpserve.server.models.snapshots import Snapshot
from mlpserve.server.models.worker_pool import WorkerPool

logger = logging.getLogger(__name__)

_SHOWN_CHARACTERS: Final = 80
_STATES: Final = {True: "ready", False: "not ready"}


class Controller:
    """Decides what is served, and has it served. Safe to use from many threads.

    Args:
        taker: Copies versions out of the models folder.
        crew: Who serves.
        rules: What the operator has decided.

    Attributes:
        loads: How often versions of a model were loaded (True), or failed their checks (False).
    """

    def __init__(self, taker: SnapshotTaker, crew: WorkerPool, rules: Rules) -> None:
        self._taker = taker
        self._crew = crew
        self._rules = rules
        self._lock = Lock()
        self._state = FolderState()
        self._wishes = Overrides()
        self._quarantine = Quarantine()
        self._holdings = SnapshotCache(taker)
        self._generation = 0
        self.loads: Counter[tuple[str, bool]] = Counter()
        self._plan = Plan({})
        self._is_started = False

    @property
    def generation(self) -> int:
        """Return the number of the latest plan, whether it could be served or not."""
        return self._generation

    @property
    def plan(self) -> Plan:
        """Return what is served."""
        return self._plan

    def reload(self) -> bool:
        """Look into the models folder, and serve what is to be served now.

        Returns:
            Whether anything changed.
        """
        with self._lock:
            self._see(scan(self._taker.models, self._state))
            there = self._state.version_keys()
            self._wishes = self._wishes.only(there)
            self._quarantine.keep(there)
            self._quarantine.release_changed(self._taker.signature)
            has_changed = self._bring_about()
            self._is_started = True
            return has_changed

    def load(self, name: str, version: int = 0) -> None:
        """Serve a model, or one more version of it; look at nothing else in the models folder.

        Args:
            name: The model's name.
            version: The version; 0 for those that the policy chooses.

        Raises:
            RequestError: ``name`` is no name of a model, or ``version`` is negative.
            NotServedError: There is no such model or version in the models folder.
            UnusableError: It was tried, and failed its checks.
        """
        check_asked(name, version)
        with self._lock:
            seen = scan_model(self._taker.models, name, self._state)
            found = seen.models[name].versions
            if not found or (version and version not in found):
                raise NotServedError(f"{_words(name, version)} is not in the models folder")
            if version:
                self._load_version(VersionKey(name, version))
            else:
                self._see(seen)
                self._load_model(name, found)

    def unload(self, name: str, version: int = 0) -> None:
        """Serve a model, or one version of it, no longer, until it is loaded again.

        Args:
            name: The model's name.
            version: The version; 0 for all.

        Raises:
            RequestError: As for ``load``.
            NotServedError: No such model or version is served.
        """
        check_asked(name, version)
        with self._lock:
            served = self._planned(name).versions
            if not served or (version and version not in served):
                raise NotServedError(f"{_words(name, version)} is not served")
            if version:
                self._wishes = self._wishes.unloading(VersionKey(name, version))
            else:
                self._wishes = self._wishes.unloading_model(name)
            self._bring_about()

    def _load_version(self, key: VersionKey) -> None:
        wishes = self._wishes
        self._wishes = wishes.loading(key)
        self._quarantine.release([key])
        self._bring_about()
        if key.version not in self._planned(key.name).versions:
            reason = self._quarantine.reasons[key]
            self._wishes = wishes
            self._bring_about()
            raise UnusableError(f"{_words(*key)} failed its checks: {reason}")

    def _load_model(self, name: str, versions: tuple[int, ...]) -> None:
        self._wishes = self._wishes.loading_model(name)
        self._quarantine.release(VersionKey(name, version) for version in versions)
        self._bring_about()
        planned = self._planned(name)
        if not planned.versions:
            reasons = [f"version {version}: {why}" for version, why in planned.quarantined.items()]
            reason = next(iter(reasons), "the policy chooses none of its versions")
            raise UnusableError(f"{_words(name, 0)} cannot be served: {reason}")

    def _planned(self, name: str) -> PlannedModel:
        return self._plan.models.get(name, PlannedModel(()))

    def _see(self, state: FolderState) -> None:
        if state.problems != self._state.problems:
            for problem in state.problems:
                logger.warning("%s; what was known of it before stays", problem)
        self._state = state

    def _bring_about(self) -> bool:
        """Serve what is selected; whoever fails goes into quarantine, and it is selected anew."""
        while True:
            plan = select(self._state, self._quarantine.reasons, self._wishes, self._rules)
            snapshots = self._snapshots(plan)
            if snapshots is None:
                continue
            if plan == self._plan and snapshots == self._holdings.served:
                self._holdings.commit(plan.version_keys())
                return False
            self._generation += 1
            problems = self._crew.prepare(self._generation, plan, snapshots)
            if not problems:
                self._change_to(plan)
                return True
            self._reject(problems)

    def _snapshots(self, plan: Plan) -> dict[VersionKey, Snapshot] | None:
        """Return the snapshots of a plan; None where versions went into quarantine instead."""
        found = {key: self._holdings.get(key) for key in plan.version_keys()}
        snapshots = {key: held for key, held in found.items() if isinstance(held, Snapshot)}
        for key, failure in found.items():
            if isinstance(failure, Failure):
                self._put_into_quarantine(key, failure)
        return snapshots if len(snapshots) == len(found) else None

    def _reject(self, problems: Mapping[VersionKey, str]) -> None:
        for key, reason in problems.items():
            failure = self._holdings.reject(key, reason)
            if failure is not None:
                self._put_into_quarantine(key, failure)

    def _put_into_quarantine(self, key: VersionKey, failure: Failure) -> None:
        self._quarantine.add(key, failure)
        self.loads[key.name, False] += 1

    def _change_to(self, plan: Plan) -> None:
        self._crew.activate(self._generation)
        before, self._plan = self._plan, plan
        added = set(plan.version_keys()).difference(before.version_keys())
        self.loads.update((key.name, True) for key in added)
        self._holdings.commit(plan.version_keys())
        self._quarantine.note_passed(plan.version_keys())
        # What is served at the start is said by whoever starts the server.
        if self._is_started and plan.summary != before.summary:
            state = "changed" if before.is_ready and plan.is_ready else _STATES[plan.is_ready]
            logger.info("%s: serving %s", state, plan.summary)


def check_asked(name: str, version: int) -> None:
    """Check what a caller wants to be loaded or unloaded.

    Raises:
        RequestError: ``name`` is no name of a model, or ``version`` is negative.
    """
    if not is_model_name(name):
        raise RequestError(
            f"model_name: expected the name of a model, got {name[:_SHOWN_CHARACTERS]!r}"
        )
    if version < 0:
        raise RequestError(f"model_version: expected a positive number, or 0, got {version}")


def _words(name: str, version: int) -> str:
    if version:
        return f"model_version: version {version} of model {name!r}"
    return f"model_name: model {name!r}"
