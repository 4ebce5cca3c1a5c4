"""Runner of a sweep on a Ray cluster: Ray Tune with its ASHA scheduler.

Ray places trials, starts them again where a node is lost, and decides which are stopped. Each is a
training with checkpoints in the sweep's folder, which all nodes share, so it goes on wherever it is
started again. Ray's own files are of no further use, and are removed.
"""

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from mlpserve.model.ray_cluster import ClusterError, Room
from mlpserve.trainer.config import JobConfig
from mlpserve.trainer.errors import StoppedError, TrainingError
from mlpserve.trainer.history import EpochRecord
from mlpserve.trainer.progress import Display
from mlpserve.trainer.signals import StopSignals
from mlpserve.trainer.sweep.plan import Plan
from mlpserve.trainer.sweep.state import SweepFolder
from mlpserve.trainer.sweep.tracker import Tracker
from mlpserve.trainer.sweep.worker_process import failure_of, run_when_free
from mlpserve.trainer.trials import Rules, Trial, TrialState

_RETRIES: Final = 3  # of a trial whose node or process is lost
_CHECK_EVERY: Final = 100  # times that Ray Tune asks whether to stop
_WORST: Final = 1e30  # the badness of a trial that has none: Ray reckons with what is finite
_QUIET: Final[Mapping[str, str]] = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints to standard output, however quiet it is to be
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours stops the sweep in order
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that failed has none
}


@dataclass(frozen=True)
class _Trials:
    """What a node needs to know.

    Attributes:
        configs: The training of each trial.
        trials: Each as it was left.
        rules: How they are judged.
        working_folder: What paths of the configurations begin at.
    """

    configs: tuple[JobConfig, ...]
    trials: tuple[Trial, ...]
    rules: Rules
    working_folder: str


def run_on_ray(plan: Plan, folder: SweepFolder, tracker: Tracker, signals: StopSignals) -> None:
    """Train the trials of a sweep on a cluster until Ray Tune is done with them.

    Args:
        plan: The trials.
        folder: Where their checkpoints go; all nodes share it.
        tracker: Takes what comes of them.
        signals: Tell whether to stop.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        StoppedError: A stop was wanted; trials go on from their last checkpoints.
        TrainingError: The state of the sweep cannot be written, or no node of the cluster has had
            the processors of a trial for long.
    """
    os.environ.update(_QUIET)  # read when Ray is imported
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # of trials that fail we tell
    watch = _Watch(plan, tracker, signals)
    rays_own = folder.path / "ray"
    # The best so far first: where the sweep was resumed, the others are measured by them.
    order = [trial.number for trial in tracker.sweep.ranked()]
    tuner = _tuner(_trials(plan, folder, tracker), order, plan, rays_own, watch)
    shutil.rmtree(rays_own, ignore_errors=True)
    try:
        tuner.fit()
    finally:
        shutil.rmtree(rays_own, ignore_errors=True)
    if watch.error is not None:
        raise watch.error
    if signals.is_stop_wanted:
        raise StoppedError("stopped; the same command goes on")


def _trials(plan: Plan, folder: SweepFolder, tracker: Tracker) -> _Trials:
    return _Trials(
        configs=tuple(
            replace(config, checkpoint_folder=folder.trial_folder(number).absolute())
            for number, config in enumerate(plan.configs, 1)
        ),
        trials=tracker.sweep.trials,
        rules=tracker.sweep.rules,
        working_folder=str(Path.cwd()),
    )


def _tuner(
    trials: _Trials, order: Sequence[int], plan: Plan, rays_own: Path, watch: "_Watch"
) -> Any:  # noqa: ANN401 - a class of Ray's
    """Return what trains the trials, each in a process of its own."""
    from ray import tune  # noqa: PLC0415 - an extra

    return tune.Tuner(
        tune.with_resources(
            tune.with_parameters(_train, trials=trials), {"CPU": plan.config.threads}
        ),
        param_space={"number": tune.grid_search(list(order))},
        tune_config=tune.TuneConfig(
            metric="badness",
            mode="min",
            scheduler=_scheduler(trials.rules),
            max_concurrent_trials=plan.parallel,
            trial_dirname_creator=lambda trial: f"trial-{trial.config['number']}",
        ),
        run_config=tune.RunConfig(
            name=rays_own.name,
            storage_path=str(rays_own.parent.absolute()),
            callbacks=[_follower(watch)],
            stop=_stopper(watch),
            failure_config=tune.FailureConfig(max_failures=_RETRIES),
            verbose=0,
        ),
    )


def _scheduler(rules: Rules) -> Any:  # noqa: ANN401
    from ray.tune.schedulers import ASHAScheduler  # noqa: PLC0415 - an extra

    return ASHAScheduler(
        time_attr="epochs",
        max_t=rules.rungs[-1],
        grace_period=rules.rungs[0],
        reduction_factor=rules.reduction,
    )


def _train(setting: Mapping[str, int], trials: _Trials) -> None:
    """Train one trial, in a process of the cluster."""
    from ray import tune  # noqa: PLC0415 - see above

    number = setting["number"]
    trial = trials.trials[number - 1]
    reporter = _Reporter(tune.report, trials.rules, replace(trial, records=()))
    for record in trial.records:
        reporter.epoch(record)
    try:
        if trial.state is not TrialState.ENDED:
            os.chdir(trials.working_folder)
            run_when_free(trials.configs[number - 1], reporter, StopSignals())
        reporter.report(is_ended=True)
    except Exception as error:  # noqa: BLE001 - it is told by the sweep
        reporter.report(failure=failure_of(error))


class _Reporter(Display):
    """Reports each epoch to Ray Tune, once."""

    def __init__(self, report: Any, rules: Rules, trial: Trial) -> None:  # noqa: ANN401 - Ray's
        self._report = report
        self._rules = rules
        self._trial = trial

    def epoch(self, record: EpochRecord) -> None:
        if record.epoch == self._trial.epochs:
            self._trial = replace(self._trial, records=(*self._trial.records, record))
            self.report(record=asdict(record))

    def event(self, name: str, text: str, **details: Any) -> None:  # noqa: ANN401, ARG002
        if name == "resumed":
            for record in details["epochs"]:
                self.epoch(EpochRecord(**record))

    def report(self, **more: object) -> None:
        self._report(
            {
                "number": self._trial.number,
                "epochs": self._trial.epochs,
                "badness": min(self._rules.badness(self._trial), _WORST),
                **more,
            }
        )


class _Watch:
    """What the driver sees of the trials, and whether it has to stop them.

    Attributes:
        error: Why the sweep cannot go on.
    """

    def __init__(self, plan: Plan, tracker: Tracker, signals: StopSignals) -> None:
        import ray  # noqa: PLC0415 - an extra

        self.error: TrainingError | None = None
        self._tracker = tracker
        self._signals = signals
        self._room = Room(ray, plan.config.threads or 1, tracker.warn)
        self._asked = 0

    def result(self, number: int, result: Mapping[str, Any]) -> None:
        """Take what a trial has reported."""
        found = result.get("record")
        if found is not None and found["epoch"] >= self._tracker.trial(number).epochs:
            self._tracker.epoch(number, EpochRecord(**found))

    def complete(self, number: int, result: Mapping[str, Any]) -> None:
        """Take how a trial came to its end, by its last report."""
        failure = result.get("failure")
        state = TrialState.STOPPED
        if failure is not None:
            state = TrialState.FAILED
        elif (
            result.get("is_ended") or result.get("epochs", 0) >= self._tracker.sweep.rules.rungs[-1]
        ):
            state = TrialState.ENDED
        self._ran(number, state, failure)

    def failed(self, number: int, error: object) -> None:
        """Take that a trial was lost, and why."""
        lines = str(error or "").splitlines()
        self._ran(number, TrialState.FAILED, lines[-1] if lines else "its process was lost")

    def _ran(self, number: int, state: TrialState, failure: str | None) -> None:
        try:
            self._tracker.ran(number, state, failure)
        except TrainingError as error:
            self.error = error

    def is_over(self) -> bool:
        """Return whether to stop all trials; Ray Tune asks ten times a second."""
        self._asked += 1
        if self._asked % _CHECK_EVERY == 0:
            try:
                self._room.check()
            except ClusterError as error:
                self.error = TrainingError(f"{error}; the same command goes on")
        return self._signals.is_stop_wanted or self.error is not None


def _follower(watch: _Watch) -> Any:  # noqa: ANN401 - a class of Ray's
    """Return what Ray Tune calls with what trials report."""
    from ray.tune import Callback  # noqa: PLC0415 - see above

    class Follower(Callback):  # type: ignore[misc]
        def __reduce__(self) -> tuple[Any, ...]:
            return Callback, ()  # what Ray keeps to restore a run, which our own state does

        def on_trial_result(self, *, trial: Any, result: Any, **_: Any) -> None:  # noqa: ANN401
            watch.result(trial.config["number"], result)

        def on_trial_complete(self, *, trial: Any, **_: Any) -> None:  # noqa: ANN401
            watch.complete(trial.config["number"], trial.last_result)

        def on_trial_error(self, *, trial: Any, **_: Any) -> None:  # noqa: ANN401
            watch.failed(trial.config["number"], trial.get_error())

    return Follower()


def _stopper(watch: _Watch) -> Any:  # noqa: ANN401 - a class of Ray's
    """Return what Ray Tune asks whether to stop."""
    from ray.tune import Stopper  # noqa: PLC0415 - see above

    class WatchStopper(Stopper):  # type: ignore[misc]
        def __reduce__(self) -> tuple[Any, ...]:
            from ray.tune.stopper import NoopStopper  # noqa: PLC0415

            return NoopStopper, ()

        def __call__(self, trial_id: str, result: Any) -> bool:  # noqa: ANN401, ARG002
            return False

        def stop_all(self) -> bool:
            return watch.is_over()

    return WatchStopper()
