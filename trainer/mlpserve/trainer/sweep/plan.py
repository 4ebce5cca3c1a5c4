"""Plan of a sweep: what its flags say, checked as far as it can be before the first trial."""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from mlpserve.model.processors import granted_processors
from mlpserve.trainer.arguments import job_config, train_parser
from mlpserve.trainer.config import JobConfig
from mlpserve.trainer.errors import TrainingError
from mlpserve.trainer.learning.recipe import Recipe
from mlpserve.trainer.learning.shuffling import SWEEP, stream
from mlpserve.trainer.search_space import Parameter, points
from mlpserve.trainer.setting_flags import setting_flags
from mlpserve.trainer.sweep.schedule import rungs
from mlpserve.trainer.sweep.space import read_space
from mlpserve.trainer.trials import Rules, Sweep, Trial

_MAX_TRIALS: Final = 1000
_MAX_PARALLEL: Final = 1024
_MIN_REDUCTION: Final = 2
_OF_ONE_RUN: Final[Mapping[str, str]] = {
    "checkpoint": "the checkpoints of all trials are in --folder",
    "resume": "the same command goes on by itself",
}


@dataclass(frozen=True)
class Plan:
    """What to do.

    Attributes:
        config: The training that the best trial is published by, without what is varied.
        configs: The training of each trial.
        sweep: The trials, none of which has begun.
        log_format: How progress is shown.
        folder: Where the sweep keeps its state; None for a folder that is called like the model.
        parallel: How many trials train at once; None for as many as there are processors for.
        ray_address: The Ray cluster that trains them; None to train them here.
    """

    config: JobConfig
    configs: tuple[JobConfig, ...]
    sweep: Sweep
    log_format: str
    folder: Path | None
    parallel: int | None
    ray_address: str | None

    @property
    def parallel_here(self) -> int:
        """Return how many trials train at once on this machine."""
        return self.parallel or max(1, granted_processors() // (self.config.threads or 1))

    def identity(self, data_digest: str) -> dict[str, Any]:
        """Return what the sweep is of, by which another's state is told from its own.

        Args:
            data_digest: The digest of the data.
        """
        config = self.config
        return {
            **{parameter.name: parameter.text for parameter in self.sweep.parameters},
            "trials": len(self.sweep.trials),
            **asdict(self.sweep.rules),
            **{
                "recipe" if name == "name" else name: value
                for name, value in asdict(config.recipe).items()
            },
            "data_digest": data_digest,
            "threads": config.threads,
            "engine": config.engine,
            "time_limit": None if math.isinf(config.time_limit_s) else config.time_limit_s,
        }


def make_plan(options: argparse.Namespace, training: Sequence[str]) -> Plan:
    """Return what the flags say.

    Args:
        options: The sweep's own flags.
        training: The trainer's flags, which are those of each trial.

    Raises:
        TrainingError: A flag is out of its range, or some trial's settings are.
    """
    parser = train_parser()
    parser.prog += " sweep"
    base = parser.parse_args(training)
    _check_flags(options, base)
    config = job_config(base)
    # Beside each other trials use processors better than threads do that wait for each other.
    config = replace(config, threads=config.threads or 1, publishes=not options.no_publish)
    space = read_space(options.vary, options.space)
    _check_space(space, base, config.recipe, options)

    def recipe_with(values: Mapping[str, str]) -> Recipe:
        flags = [f"--{name}={value}" for name, value in values.items()]
        return job_config(parser.parse_args([*training, *flags])).recipe

    parameters = tuple(space.values())
    for place, parameter in space.items():
        for limit in parameter.limits:
            _recipe(place, recipe_with, {parameter.name: limit})
    trials = _trials(parameters, options.trials, config.recipe.seed)
    recipes = [_recipe(str(trial), recipe_with, trial.values) for trial in trials]
    return Plan(
        config=config,
        configs=tuple(_trial_config(config, recipe) for recipe in recipes),
        sweep=Sweep(parameters, _rules(options, config.recipe), trials),
        log_format=base.log_format,
        folder=options.folder,
        parallel=options.parallel,
        ray_address=options.ray_address,
    )


def _check_flags(options: argparse.Namespace, base: argparse.Namespace) -> None:
    for flag, instead in _OF_ONE_RUN.items():
        if getattr(base, flag):
            raise TrainingError(f"--{flag}: expected no such flag in a sweep: {instead}")
    if base.progress_every < math.inf:
        raise TrainingError(
            "--progress-every: expected no such flag in a sweep, which tells of each epoch"
        )
    for flag, value, limit in (
        ("trials", options.trials, _MAX_TRIALS),
        ("parallel", options.parallel or 1, _MAX_PARALLEL),
    ):
        if not 1 <= value <= limit:
            raise TrainingError(f"--{flag}: expected from 1 to {limit}, got {value}")
    if options.parallel == 0:
        raise TrainingError(f"--parallel: expected from 1 to {_MAX_PARALLEL}, got 0")
    if options.reduction < _MIN_REDUCTION:
        raise TrainingError(
            f"--reduction: expected at least {_MIN_REDUCTION}, got {options.reduction}"
        )


def _check_space(
    space: Mapping[str, Parameter],
    base: argparse.Namespace,
    recipe: Recipe,
    options: argparse.Namespace,
) -> None:
    flags = setting_flags()
    for place, parameter in space.items():
        if getattr(base, flags[parameter.name].dest) is not None:
            raise TrainingError(
                f"{place}: {parameter.name} is varied, and --{parameter.name} given as well; leave "
                "one out"
            )
    if not recipe.validation_share:
        raise TrainingError(
            f"validation share: expected above 0, to compare trials by, got 0 of the recipe "
            f"{recipe.name!r}; give --validation-share 0.1"
        )
    if not 1 <= options.min_epochs <= recipe.epochs:
        raise TrainingError(
            f"--min-epochs: expected from 1 to the {recipe.epochs} epochs of a whole training, got "
            f"{options.min_epochs}"
        )


def _recipe(
    place: str, recipe_with: Callable[[Mapping[str, str]], Recipe], values: Mapping[str, str]
) -> Recipe:
    try:
        return recipe_with(values)
    except TrainingError as error:
        raise TrainingError(f"{place}: {error}") from error


def _rules(options: argparse.Namespace, recipe: Recipe) -> Rules:
    return Rules(
        metric=options.metric,
        rungs=rungs(recipe.epochs, first=options.min_epochs, reduction=options.reduction),
        reduction=options.reduction,
        keeps_lowest=recipe.patience_epochs > 0,
    )


def _trials(parameters: Sequence[Parameter], count: int, seed: int) -> tuple[Trial, ...]:
    found = points(parameters, count, stream(seed, SWEEP))
    names = [parameter.name for parameter in parameters]
    return tuple(
        Trial(number, dict(zip(names, point, strict=True))) for number, point in enumerate(found, 1)
    )


def _trial_config(config: JobConfig, recipe: Recipe) -> JobConfig:
    """Return the configuration of a trial: a training that keeps its checkpoint."""
    return replace(
        config,
        recipe=recipe,
        resume=True,
        publishes=False,
        unless_published=False,
        min_accuracy=None,
        compare_to=None,
    )
