"""The command `mlpserve-train`: flags in, a run of the job, an exit code out."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, Final

from mlpserve.datasets import DatasetError
from mlpserve.model.activations import HIDDEN_ACTIVATIONS
from mlpserve.model.errors import ModelError
from mlpserve.trainer.errors import TrainingError
from mlpserve.trainer.job import JobConfig, run
from mlpserve.trainer.recipes import FAST, RECIPES, Recipe

_EXIT_FAILED: Final = 1
_EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
_EXIT_TERMINATED: Final = 143  # 128 + SIGTERM


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 only where a version is published."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    # As process 1 of a container there is no default action; without this it would not stop.
    signal.signal(signal.SIGTERM, _terminate)
    try:
        run(_config(options), _print_progress)
    except (DatasetError, ModelError, TrainingError) as error:
        print(f"mlpserve-train: {error}", file=sys.stderr)
        return _EXIT_FAILED
    except MemoryError as error:
        print(f"mlpserve-train: not enough memory: {error}", file=sys.stderr)
        return _EXIT_FAILED
    except KeyboardInterrupt:
        print("mlpserve-train: interrupted", file=sys.stderr)
        return _EXIT_INTERRUPTED
    return 0


def _print_progress(line: str) -> None:
    """Print a line; where nobody takes it any more, go on without: the version is what counts."""
    try:
        print(line, flush=True)
    except OSError:
        # What Python still holds back would fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _terminate(signal_number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    print("mlpserve-train: terminated", file=sys.stderr)
    sys.exit(_EXIT_TERMINATED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlpserve-train",
        description="Train a network on images and publish it as a new version of a model.",
    )
    parser.add_argument(
        "--data",
        default="auto",
        help="mnist, drawn (digits drawn by code, needs no network), auto (mnist if it is at hand "
        "or can be downloaded, else drawn), or the path of a folder with IDX files or of an .npz "
        "with x_train, y_train, x_test, y_test; default: auto",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=os.environ.get("MLPSERVE_DATA_DIR") or None,
        help="folder with the four MNIST files; default: $MLPSERVE_DATA_DIR, else the user's cache",
    )
    parser.add_argument(
        "--models", type=Path, default=Path("models"), help="models folder; default: models"
    )
    parser.add_argument("--name", help="the model's name; default: that of the data")
    parser.add_argument(
        "--unless-published",
        action="store_true",
        help="do nothing if the model of --name has a version already",
    )
    parser.add_argument(
        "--recipe", choices=RECIPES, default=FAST.name, help=f"default: {FAST.name}"
    )
    _add_recipe_settings(parser)
    return parser


def _add_recipe_settings(parser: argparse.ArgumentParser) -> None:
    settings = parser.add_argument_group("settings of the recipe, each with the recipe's default")
    settings.add_argument(
        "--layers",
        type=_widths,
        dest="hidden_sizes",
        metavar="N[,N...]",
        help="widths of the hidden layers; '' for none",
    )
    settings.add_argument("--activation", choices=HIDDEN_ACTIVATIONS, help="of the hidden layers")
    settings.add_argument("--epochs", type=int, metavar="N", help="passes over the images")
    settings.add_argument(
        "--batch-size", type=int, metavar="N", help="images per step; 0 for all at once"
    )
    settings.add_argument("--learning-rate", type=float, metavar="X", help="the highest one")
    settings.add_argument("--seed", type=int, metavar="N", help="of all randomness")


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in text.split(",")) if text else ()
    except ValueError:
        message = f"expected widths with commas between them, as in 256,128, got {text!r}"
        raise argparse.ArgumentTypeError(message) from None


def _config(options: argparse.Namespace) -> JobConfig:
    return JobConfig(
        data=options.data,
        data_dir=options.data_dir,
        models=options.models,
        name=options.name,
        recipe=_recipe(options),
        unless_published=options.unless_published,
    )


def _recipe(options: argparse.Namespace) -> Recipe:
    """Return the named recipe with the settings that were given in place of its own."""
    settable = ("hidden_sizes", "activation", "epochs", "batch_size", "learning_rate", "seed")
    given: dict[str, Any] = {
        setting: getattr(options, setting)
        for setting in settable
        if getattr(options, setting) is not None
    }
    return replace(RECIPES[options.recipe], **given)


if __name__ == "__main__":
    sys.exit(main())
