"""Flags of single settings of a recipe, and the recipe that they make of a named one."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from mlpserve.model.activations import ACTIVATIONS
from mlpserve.trainer.learning.optimizers import OPTIMIZERS
from mlpserve.trainer.learning.recipe import Recipe
from mlpserve.trainer.learning.schedules import SCHEDULES
from mlpserve.trainer.recipes import RECIPES, WARPS


def setting_flags() -> Mapping[str, argparse.Action]:
    """Return the flags of single settings of a recipe, by their names without dashes."""
    settings = add_settings(argparse.ArgumentParser())
    return {setting.option_strings[0].removeprefix("--"): setting for setting in settings}


def chosen_recipe(options: argparse.Namespace) -> Recipe:
    """Return the named recipe with the settings that were given in place of its own."""
    given: dict[str, Any] = {
        field.name: getattr(options, field.name)
        for field in fields(Recipe)
        if field.name != "name" and getattr(options, field.name, None) is not None
    }
    if options.teachers is not None:
        given["teachers"] = tuple(options.teachers)
    if options.warp is not None:
        given["warp"] = WARPS[options.warp]
    return replace(RECIPES[options.recipe], **given)


def add_settings(parser: argparse.ArgumentParser) -> Sequence[argparse.Action]:
    """Add a flag for each setting; return them."""
    group = parser.add_argument_group("settings of the recipe, each with the recipe's default")
    return [
        *_network_flags(group),
        *_step_flags(group),
        *_regularization_flags(group),
        *_teacher_flags(group),
        *_ending_flags(group),
    ]


def _network_flags(group: argparse._ArgumentGroup) -> Sequence[argparse.Action]:
    return [
        group.add_argument(
            "--layers",
            type=_widths,
            dest="hidden_sizes",
            metavar="N[,N...]",
            help="widths of the hidden layers; '' for none",
        ),
        group.add_argument("--activation", choices=ACTIVATIONS, help="of the hidden layers"),
    ]


def _step_flags(group: argparse._ArgumentGroup) -> Sequence[argparse.Action]:
    return [
        group.add_argument("--epochs", type=int, metavar="N", help="passes over the images"),
        group.add_argument(
            "--batch-size", type=int, metavar="N", help="images per step; 0 for all at once"
        ),
        group.add_argument("--optimizer", choices=OPTIMIZERS),
        group.add_argument("--learning-rate", type=float, metavar="X", help="the highest one"),
        group.add_argument("--schedule", choices=SCHEDULES, help="of the learning rate"),
    ]


def _regularization_flags(group: argparse._ArgumentGroup) -> Sequence[argparse.Action]:
    return [
        group.add_argument("--weight-decay", type=float, metavar="X", help="decoupled; 0 for none"),
        group.add_argument(
            "--dropout", type=float, metavar="X", help="of hidden outputs; 0 for none"
        ),
        group.add_argument("--label-smoothing", type=float, metavar="X", help="0 for none"),
        group.add_argument("--warp", choices=WARPS, help="how far images are distorted at random"),
        group.add_argument(
            "--learned-probability",
            type=float,
            metavar="X",
            help="do not learn from images whose true class has it already, as in 0.99; 1 for all",
        ),
    ]


def _teacher_flags(group: argparse._ArgumentGroup) -> Sequence[argparse.Action]:
    return [
        group.add_argument(
            "--teacher",
            action="append",
            dest="teachers",
            metavar="NAME[:VERSION|:LABEL]",
            help="learn from what this published version says; several times for their mean",
        ),
        group.add_argument(
            "--teacher-share",
            type=float,
            metavar="X",
            help="how much of the loss is the teachers' and not the labels', from above 0 to 1",
        ),
        group.add_argument(
            "--teacher-temperature",
            type=float,
            metavar="X",
            help="how far the teachers' probabilities are softened; 1 for not at all",
        ),
    ]


def _ending_flags(group: argparse._ArgumentGroup) -> Sequence[argparse.Action]:
    return [
        group.add_argument(
            "--average-decay",
            type=float,
            metavar="X",
            help="publish the running mean of the parameters, as in 0.999; 0 for the last ones",
        ),
        group.add_argument(
            "--validation-share",
            type=float,
            metavar="X",
            help="of the training images, held out to validate and calibrate with; 0 for none",
        ),
        group.add_argument(
            "--patience",
            type=int,
            dest="patience_epochs",
            metavar="N",
            help="stop after N epochs without a lower validation loss, with the best; 0 for never",
        ),
        group.add_argument("--seed", type=int, metavar="N", help="of all randomness"),
    ]


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in text.split(",")) if text else ()
    except ValueError:
        message = f"expected widths with commas between them, as in 256,128, got {text!r}"
        raise argparse.ArgumentTypeError(message) from None
