"""Controller of what is served: has it be what the models folder, its labels and callers say.

    scan -> select -> snapshots -> pool.prepare -> pool.activate
              ^------- quarantine <------' (what failed its checks; then select again)

Whatever goes wrong with a version, what was served before goes on being served.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Final, Protocol

from mlpserve.model.folder import VersionKey, is_model_name
from mlpserve.server.errors import NotServedError, RequestError, UnusableError
from mlpserve.server.models.plan import Plan, PlannedModel
from mlpserve.server.models.quarantine import LoadError, Quarantine
from mlpserve.server.models.scanner import FolderState, scan, scan_model, signature
from mlpserve.server.models.selection import Overrides, Rules, select
from mlpserve.server.models.snapshots import Snapshot, SnapshotCache
from mlpserve.server.telemetry import metrics
from mlpserve.server.telemetry.snapshots import MetricsSnapshot

logger = logging.getLogger(__name__)

_MAX_SHOWN_CHARACTERS: Final = 80
_STATES: Final = {True: "ready", False: "not ready"}


class WorkerPool(Protocol):
    """The processes that serve. For one thread at a time."""

    def prepare(
        self, generation: int, plan: Plan, snapshots: Mapping[VersionKey, Snapshot]
    ) -> Mapping[VersionKey, LoadError]:
        """Load and check what is planned, in every process; requests see nothing of it yet.

        Args:
            generation: A number that is higher than all before.
            plan: What is to be served.
            snapshots: The weights of all versions of the plan. A version that is loaded already is
                loaded anew only where its snapshot is another object than then.

        Returns:
            Why versions cannot be served; none where the generation can be activated.
        """

    def activate(self, generation: int) -> None:
        """Serve a generation that was prepared, in all processes from the same moment on.

        What older generations alone hold is then forgotten.
        """


class Controller:
    """Decides what is served, and has it served. Safe to use from many threads.

    Args:
        models: The models folder.
        pool: The processes that serve.
        rules: What the operator has decided.
        max_version_mb: A weights file of more MB is not read.
    """

    def __init__(
        self, models: Path, pool: WorkerPool, rules: Rules, *, max_version_mb: int
    ) -> None:
        self._models = models
        self._pool = pool
        self._rules = rules
        self._lock = Lock()
        self._state = FolderState()
        self._overrides = Overrides()
        self._quarantine = Quarantine()
        self._snapshots = SnapshotCache(models, self._quarantine, max_version_mb=max_version_mb)
        self._generation = 0  # of the latest plan, whether it could be served or not
        self._loads: Counter[str] = Counter()
        self._plan = Plan({})
        self._is_started = False

    @property
    def plan(self) -> Plan:
        """Return what is served."""
        return self._plan

    def metrics(self) -> MetricsSnapshot:
        """Return what is served, and how often versions were loaded or failed their checks."""
        models = self._plan.models
        loaded, failed = self._loads.copy(), self._quarantine.failures.copy()
        return {
            metrics.GENERATION.name: [([], self._generation)],
            metrics.SERVED_VERSIONS.name: [([n], len(m.versions)) for n, m in models.items()],
            metrics.QUARANTINED_VERSIONS.name: [
                ([name], len(model.quarantined)) for name, model in models.items()
            ],
            metrics.LOADS.name: [
                *(([name, "loaded"], count) for name, count in loaded.items()),
                *(([name, "failed"], count) for name, count in failed.items()),
            ],
        }

    def reload(self) -> bool:
        """Look into the models folder, and serve what is to be served now.

        Returns:
            Whether anything changed.
        """
        with self._lock:
            self._take_state(scan(self._models, self._state))
            there = self._state.version_keys()
            self._overrides = self._overrides.only(there)
            self._quarantine.keep(there)
            self._quarantine.release_changed(lambda key: signature(self._models, key))
            has_changed = self._apply()
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
        check_load_request(name, version)
        with self._lock:
            state = scan_model(self._models, name, self._state)
            found = state.models[name].versions
            if not found or (version and version not in found):
                raise NotServedError(f"{_words(name, version)} is not in the models folder")
            if version:
                self._load_version(VersionKey(name, version))
            else:
                self._take_state(state)
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
        check_load_request(name, version)
        with self._lock:
            served = self._planned(name).versions
            if not served or (version and version not in served):
                raise NotServedError(f"{_words(name, version)} is not served")
            if version:
                self._overrides = self._overrides.unload(VersionKey(name, version))
            else:
                self._overrides = self._overrides.unload_model(name)
            self._apply()

    def _load_version(self, key: VersionKey) -> None:
        before = self._overrides
        self._overrides = before.load(key)
        self._quarantine.release([key])
        self._apply()
        if key.version not in self._planned(key.name).versions:
            reason = self._quarantine.reasons[key]
            self._overrides = before
            self._apply()
            raise UnusableError(f"{_words(*key)} failed its checks: {reason}")

    def _load_model(self, name: str, versions: tuple[int, ...]) -> None:
        self._overrides = self._overrides.load_model(name)
        self._quarantine.release(VersionKey(name, version) for version in versions)
        self._apply()
        planned = self._planned(name)
        if not planned.versions:
            reasons = [f"version {version}: {why}" for version, why in planned.quarantined.items()]
            reason = next(iter(reasons), "the policy chooses none of its versions")
            raise UnusableError(f"{_words(name, 0)} cannot be served: {reason}")

    def _planned(self, name: str) -> PlannedModel:
        return self._plan.models.get(name, PlannedModel(()))

    def _take_state(self, state: FolderState) -> None:
        if state.problems != self._state.problems:
            for problem in state.problems:
                logger.warning("%s; what was known of it before stays", problem)
        self._state = state

    def _apply(self) -> bool:
        """Serve what is selected; what fails goes into quarantine, and it is selected anew.

        Each version is looked at once, and given up at most twice: what it has become, and what is
        served of it. So this ends, whatever fails, and the next look comes after a pause.
        """
        self._snapshots.begin()
        while True:
            plan = select(self._state, self._quarantine.reasons, self._overrides, self._rules)
            found = {key: self._snapshots.get(key) for key in plan.version_keys()}
            snapshots = {key: snapshot for key, snapshot in found.items() if snapshot is not None}
            if len(snapshots) < len(found):
                continue
            if plan == self._plan and snapshots == self._snapshots.served:
                self._snapshots.commit(plan.version_keys())
                return False
            self._generation += 1
            errors = self._pool.prepare(self._generation, plan, snapshots)
            if not errors:
                self._activate(plan)
                return True
            for key, error in errors.items():
                self._snapshots.reject(key, error)

    def _activate(self, plan: Plan) -> None:
        self._pool.activate(self._generation)
        before, self._plan = self._plan, plan
        added = set(plan.version_keys()).difference(before.version_keys())
        self._loads.update(key.name for key in added)
        self._snapshots.commit(plan.version_keys())
        self._quarantine.note_passed(plan.version_keys())
        # What is served at the start is said by whoever starts the server.
        if self._is_started and plan.summary != before.summary:
            state = "changed" if before.is_ready and plan.is_ready else _STATES[plan.is_ready]
            logger.info("%s: serving %s", state, plan.summary)
        if self._lacks_default(plan) and not self._lacks_default(before):
            logger.warning(
                "default_model: model %r is not served; requests that name no model are refused",
                self._rules.default_model,
            )

    def _lacks_default(self, plan: Plan) -> bool:
        default = self._rules.default_model
        is_lacking = default not in plan.models or not plan.models[default].versions
        return bool(default) and is_lacking and plan.is_ready


def check_load_request(name: str, version: int) -> None:
    """Check what a caller wants to be loaded or unloaded.

    Raises:
        RequestError: ``name`` is no name of a model, or ``version`` is negative.
    """
    if not is_model_name(name):
        shown = name[:_MAX_SHOWN_CHARACTERS]
        raise RequestError(f"model_name: expected the name of a model, got {shown!r}")
    if version < 0:
        raise RequestError(f"model_version: expected a positive number, or 0, got {version}")


def _words(name: str, version: int) -> str:
    if version:
        return f"model_version: version {version} of model {name!r}"
    return f"model_name: model {name!r}"
