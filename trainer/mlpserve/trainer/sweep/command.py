"""The command ``mlpserve-train sweep``: trains trials of a search space, and publishes the best."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from mlpserve.model.command_line import percent, table, user_path
from mlpserve.model.ray_cluster import AUTO, LOCAL
from mlpserve.model.versions import prepare
from mlpserve.trainer.config import JobConfig
from mlpserve.trainer.errors import TrainingError
from mlpserve.trainer.output import unfailing
from mlpserve.trainer.progress import Display, display_for
from mlpserve.trainer.publishing_events import is_published, model_name
from mlpserve.trainer.signals import StopSignals
from mlpserve.trainer.sweep.local import LocalRunner
from mlpserve.trainer.sweep.plan import Plan, make_plan
from mlpserve.trainer.sweep.ray_cluster import connected
from mlpserve.trainer.sweep.state import Published, SweepFolder
from mlpserve.trainer.sweep.tracker import Tracker, outcome
from mlpserve.trainer.sweep.worker_process import Ended, Job
from mlpserve.trainer.sweep.workers import WorkerPool
from mlpserve.trainer.threshold import load_baseline
from mlpserve.trainer.trials import METRICS, Sweep, Trial, TrialState

_FOLDERS: Final = Path("sweeps")
_OF_PUBLICATION: Final = frozenset({"comparable", "published", "warning"})


def main(arguments: Sequence[str], signals: StopSignals) -> None:
    """Run the command.

    Raises:
        ModelError: The best trial cannot be published.
        ModuleNotFoundError: Ray is wanted, and is not installed.
        StoppedError: A stop was wanted; the same command goes on.
        TrainingError: A flag or the data cannot be used, all trials failed, or the state of the
            sweep cannot be read or written.
    """
    options, training = sweep_parser().parse_known_args(arguments)
    plan = make_plan(options, training)
    sys.stdout, sys.stderr = (stream and unfailing(stream) for stream in (sys.stdout, sys.stderr))
    display = display_for(plan.log_format)
    config = plan.config
    if config.unless_published and is_published(config, display):
        return
    if config.compare_to is not None:
        load_baseline(config.models, config.compare_to)
    if config.name is not None and config.publishes:
        prepare(config.models, model_name(config.name))
    with _engine(plan), WorkerPool() as pool:
        loaded = pool.run(Job(config, is_loading=True), display)
        plan = replace(plan, config=_named(config, loaded))
        path = plan.folder or _FOLDERS / str(plan.config.name)
        folder = SweepFolder(path, plan.identity(loaded.data_digest))
        with folder.taken():
            _Command(plan, folder, pool, display, signals).run()


def sweep_parser() -> argparse.ArgumentParser:
    """Return the parser of the flags that only a sweep has."""
    parser = argparse.ArgumentParser(
        prog="mlpserve-train sweep",
        description="Train many networks that differ in some settings, stop the worse ones early, "
        "and publish the best as a new version of a model.",
        epilog="All other flags are those of mlpserve-train, and of each trial; mlpserve-train "
        "--help lists them. A sweep that was stopped or killed goes on with the same command.",
        allow_abbrev=False,
    )
    _add_trials(parser)
    _add_comparison(parser)
    _add_engine(parser)
    return parser


def _add_trials(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="NAME=VALUES",
        help="a setting and its values: learning-rate=0.001..0.01, the same with :log at its end "
        "for equal factors, or layers=16,16|32|64; may be given several times",
    )
    parser.add_argument(
        "--space",
        type=user_path,
        metavar="FILE",
        help="the same in a TOML file, see docs/sweeps.md",
    )
    parser.add_argument(
        "--trials", type=int, default=20, metavar="N", help="how many are tried; default: 20"
    )


def _add_comparison(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--metric",
        choices=METRICS,
        default=METRICS[0],
        help="of the validation images, by which trials are compared; default: loss",
    )
    parser.add_argument(
        "--min-epochs",
        type=int,
        default=1,
        metavar="N",
        help="compare trials first after so many epochs; as many as --epochs to stop none early; "
        "default: 1",
    )
    parser.add_argument(
        "--reduction",
        type=int,
        default=3,
        metavar="N",
        help="one in N goes on, and is compared again after N times as many epochs; default: 3",
    )


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--parallel",
        type=int,
        metavar="N",
        help="trials at a time; default: as many as processors are granted",
    )
    parser.add_argument(
        "--folder",
        type=user_path,
        metavar="DIR",
        help="where the state of the sweep and the checkpoints are; default: sweeps/NAME",
    )
    parser.add_argument(
        "--no-publish",
        action="store_true",
        help="publish nothing; later, the same without this flag publishes the best",
    )
    parser.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="have Ray Tune train the trials on this cluster: HOST:6379, "
        f"{AUTO} for that of this machine, or {LOCAL} for one that is started here; default: none, "
        "but processes on this machine",
    )


def _engine(plan: Plan) -> AbstractContextManager[None]:
    """Return what connects to the cluster, where there is one."""
    if plan.ray_address is None:
        return nullcontext()
    threads = plan.config.threads or 1
    return connected(plan.ray_address, processors=plan.parallel_here * threads)


def _named(config: JobConfig, loaded: Ended) -> JobConfig:
    """Return the configuration with the name of the model."""
    name = model_name(config.name or loaded.data_name)
    if config.name is None and config.publishes:
        prepare(config.models, name)
    return replace(config, name=name)


class _Command:
    """One sweep, from where it was left to the published version."""

    def __init__(
        self,
        plan: Plan,
        folder: SweepFolder,
        pool: WorkerPool,
        display: Display,
        signals: StopSignals,
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._pool = pool
        self._display = display
        self._signals = signals

    def run(self) -> None:
        sweep, published = self._folder.load(self._plan.sweep)
        if published is not None:
            self._show_done(published)
            return
        self._folder.save(sweep)
        self._show_begin(sweep)
        with self._display.work("sweep", "trials") as note, self._signals.noted_only():
            tracker = Tracker(sweep, self._folder, self._display, note)
            self._train(tracker)
        best = tracker.sweep.best()
        if best is None:
            raise TrainingError(_all_failed(tracker.sweep))
        self._show_ranked(tracker.sweep, best)
        if self._plan.config.publishes:
            # A signal that comes now would gain nothing: a second one ends it all the same.
            with self._signals.noted_only():
                self._publish(tracker.sweep, best)

    def _train(self, tracker: Tracker) -> None:
        if self._plan.ray_address is None:
            LocalRunner(self._plan, self._folder, tracker, self._pool, self._signals).run()
        else:
            # Ray is an extra, and importing it takes a second.
            from mlpserve.trainer.sweep.ray_tune import run_on_ray  # noqa: PLC0415

            run_on_ray(self._plan, self._folder, tracker, self._signals)

    def _publish(self, sweep: Sweep, best: Trial) -> None:
        """Publish the best trial, whose run goes on after its last step.

        Raises:
            TrainingError: It is not good enough, or cannot be published.
        """
        config = replace(
            self._plan.config,
            recipe=self._plan.configs[best.number - 1].recipe,
            checkpoint_folder=self._folder.trial_folder(best.number),
            resume=True,
            unless_published=False,
        )
        ended = self._pool.run(Job(config, sweep=sweep), _Publication(self._display))
        if ended.published is not None:
            self._folder.save(sweep, Published(*ended.published))
            self._folder.remove_checkpoints()

    def _show_done(self, published: Published) -> None:
        self._display.event(
            "nothing-to-do",
            f"nothing to do: the sweep in {self._folder.path} is published as version "
            f"{published.version} of {published.model!r}; give another --folder for a new one",
            model=published.model,
            version=published.version,
        )

    def _show_begin(self, sweep: Sweep) -> None:
        rules, total = sweep.rules, len(sweep.trials)
        waiting = sum(trial.state is TrialState.WAITING for trial in sweep.trials)
        begun = f", of which {total - waiting} have begun" if waiting < total else ""
        rungs = ", ".join(map(str, rules.rungs))
        self._display.event(
            "sweep",
            f"sweep of {total} trials{begun}, compared by their validation {rules.metric} after "
            f"{rungs} epochs; its state is in {self._folder.path}",
            trials=total,
            begun=total - waiting,
            parameters={parameter.name: parameter.text for parameter in sweep.parameters},
            metric=rules.metric,
            rungs=rules.rungs,
            folder=self._folder.path,
        )

    def _show_ranked(self, sweep: Sweep, best: Trial) -> None:
        for line in _ranked(sweep):
            self._display.line(line)
        loss, accuracy = sweep.rules.found(best)
        self._display.event(
            "best",
            f"the best is {best}",
            number=best.number,
            values=dict(best.values),
            validation_loss=loss,
            validation_accuracy=accuracy,
        )


class _Publication(Display):
    """Shows of the best trial's last run what is new."""

    def __init__(self, display: Display) -> None:
        self._display = display

    def event(self, name: str, text: str, **details: Any) -> None:  # noqa: ANN401 - as told
        if name in _OF_PUBLICATION:
            self._display.event(name, text, **details)


def _ranked(sweep: Sweep) -> Iterator[str]:
    names = [parameter.name for parameter in sweep.parameters]
    rows = []
    for trial in sweep.ranked():
        loss, accuracy = sweep.rules.found(trial)
        rows.append(
            (
                str(trial.number),
                *(trial.values[name] or "none" for name in names),
                "-" if loss is None else f"{loss:.4f}",
                percent(accuracy),
                outcome(trial),
            )
        )
    return table(("trial", *names, "loss", "accuracy", ""), rows)


def _all_failed(sweep: Sweep) -> str:
    failed = [trial for trial in sweep.trials if trial.state is TrialState.FAILED]
    first = failed[0]
    return (
        f"no trial came to its end: {len(failed)} of {len(sweep.trials)} failed, the first of them "
        f"was {first}: {first.failure}"
    )
