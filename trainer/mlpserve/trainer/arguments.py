"""The flags of ``mlpserve-train``, and the configuration that they make."""

import argparse
import math
from typing import Final

from mlpserve.datasets.flags import add_data_dir, add_read_options, read_options
from mlpserve.datasets.source import DATA_HELP
from mlpserve.model.command_line import user_path
from mlpserve.model.errors import ValueRangeError
from mlpserve.model.inputs import ValueRange
from mlpserve.trainer.config import DEFAULT_MODELS, JobConfig
from mlpserve.trainer.errors import TrainingError
from mlpserve.trainer.learning.engine import ENGINE_NAMES
from mlpserve.trainer.progress import LOG_FORMATS
from mlpserve.trainer.recipes import FAST, RECIPES
from mlpserve.trainer.setting_flags import add_settings, chosen_recipe

_MAX_THREADS: Final = 256  # each has arrays of its own


def train_parser() -> argparse.ArgumentParser:
    """Return the parser of a training's flags."""
    parser = argparse.ArgumentParser(
        prog="mlpserve-train",
        description="Train a network on images and publish it as a new version of a model.",
        epilog="Other commands: mlpserve-train sweep, which tries many settings, mlpserve-train "
        "evaluate and mlpserve-train export; each has --help. "
        "mlpserve-models compare tells which of two versions is better.",
    )
    parser.add_argument("--data", default="auto", help=f"{DATA_HELP}; default: auto")
    add_data_dir(parser)
    parser.add_argument(
        "--range",
        type=_value_range,
        dest="value_range",
        metavar="LO,HI",
        help="the lowest and the highest value that images may have, as in 0,16 or --range=-1,1; "
        "default: found in the data",
    )
    parser.add_argument(
        "--models", type=user_path, default=DEFAULT_MODELS, help="models folder; default: models"
    )
    parser.add_argument("--name", help="the model's name; default: that of the data")
    parser.add_argument(
        "--recipe", choices=RECIPES, default=FAST.name, help=f"default: {FAST.name}"
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="default: as many as pay and are granted"
    )
    parser.add_argument(
        "--engine",
        choices=ENGINE_NAMES,
        help="what computes; default: numba where it is installed and the training takes long "
        "enough to make up for the second in which it starts, else numpy",
    )
    parser.add_argument(
        "--log-format",
        choices=LOG_FORMATS,
        default="auto",
        help="terminal (a progress bar), lines, json (one object a line), or auto: terminal where "
        "there is one, else lines; default: auto",
    )
    parser.add_argument(
        "--progress-every",
        type=float,
        default=math.inf,
        metavar="SECONDS",
        help="with --log-format json, at least so far apart: a line on the network as it learns, "
        "with its first layer's weights and its confusion matrix",
    )
    add_read_options(parser)
    _add_publication(parser)
    _add_survival(parser)
    add_settings(parser)
    return parser


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the flag that names a published version."""
    parser.add_argument(
        "--model",
        required=True,
        metavar="MODELS/NAME[:VERSION|:LABEL]",
        help="the version, as in models/digits:3 or models/digits:stable; alone, the newest",
    )


def job_config(options: argparse.Namespace) -> JobConfig:
    """Return what the flags say.

    Raises:
        TrainingError: A flag is out of its range, or lacks another.
    """
    _check(options)
    return JobConfig(
        data=options.data,
        data_dir=options.data_dir,
        read_options=read_options(options),
        models=options.models,
        name=options.name,
        recipe=chosen_recipe(options),
        unless_published=options.unless_published,
        threads=options.threads,
        engine=options.engine,
        checkpoint_folder=options.checkpoint,
        checkpoint_every_s=options.checkpoint_every,
        resume=options.resume,
        time_limit_s=options.time_limit,
        min_accuracy=options.min_accuracy,
        compare_to=options.compare_to,
        publishes=not options.no_publish,
        progress_every_s=options.progress_every,
        with_report=not options.no_report,
        value_range=options.value_range,
    )


def _add_publication(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is published")
    group.add_argument(
        "--unless-published",
        action="store_true",
        help="do nothing if the model of --name has a version already",
    )
    group.add_argument(
        "--min-accuracy",
        type=float,
        metavar="X",
        help="publish nothing, and fail, below this test accuracy, from 0 to 1",
    )
    group.add_argument(
        "--compare-to",
        metavar="NAME[:VERSION|:LABEL]",
        help="publish nothing, and fail, if this version is better on the same test images",
    )
    group.add_argument(
        "--no-publish",
        action="store_true",
        help="publish nothing and keep the last checkpoint; later, the same without this flag and "
        "with --resume publishes what was learned",
    )
    group.add_argument(
        "--no-report", action="store_true", help="publish no report.html beside the weights"
    )


def _add_survival(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how long it runs, and what survives")
    group.add_argument(
        "--checkpoint", type=user_path, metavar="DIR", help="write checkpoints into this folder"
    )
    group.add_argument(
        "--checkpoint-every",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="at least so far apart; default: 30",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="go on from the checkpoint in --checkpoint, if there is one; begin anew if not",
    )
    group.add_argument(
        "--time-limit",
        type=float,
        default=math.inf,
        metavar="SECONDS",
        help="end the training after so long, and publish what was learned by then",
    )


def _value_range(text: str) -> ValueRange:
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        message = f"expected a lowest and a highest value, as in 0,16, got {text!r}"
        raise argparse.ArgumentTypeError(message) from None
    try:
        return ValueRange(low, high)
    except ValueRangeError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _check(options: argparse.Namespace) -> None:
    # Each is written so that a NaN, which compares false, is refused as well.
    if options.threads is not None and not 1 <= options.threads <= _MAX_THREADS:
        raise TrainingError(f"--threads: expected from 1 to {_MAX_THREADS}, got {options.threads}")
    if options.min_accuracy is not None and not 0 <= options.min_accuracy <= 1:
        raise TrainingError(
            f"--min-accuracy: expected from 0 to 1, as in 0.97, got {options.min_accuracy:.9g}"
        )
    if not options.time_limit > 0:
        raise TrainingError(f"--time-limit: expected above 0 seconds, got {options.time_limit:g}")
    if not options.checkpoint_every >= 0:
        raise TrainingError(
            f"--checkpoint-every: expected at least 0 seconds, got {options.checkpoint_every:g}"
        )
    if not options.progress_every >= 0:
        raise TrainingError(
            f"--progress-every: expected at least 0 seconds, got {options.progress_every:g}"
        )
    if options.progress_every < math.inf and options.log_format != "json":
        raise TrainingError("--progress-every: expected --log-format json, which has its lines")
    if options.no_publish and options.checkpoint is None:
        raise TrainingError("--no-publish: expected --checkpoint, to keep what was learned")
    if options.resume and options.checkpoint is None:
        raise TrainingError("--resume: expected --checkpoint, to know where to look for one")
