"""An optimizer, a schedule, an initialization and a recipe that a newcomer adds: a line each."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlpserve.model.folder import weights_path
from mlpserve.model.network import Network
from mlpserve.model.weights import load_model
from mlpserve.trainer.arguments import job_config, train_parser
from mlpserve.trainer.job import run
from mlpserve.trainer.learning.initialization import INITIALIZATIONS, he
from mlpserve.trainer.learning.optimizers import OPTIMIZERS, Step
from mlpserve.trainer.learning.parameters import Vector
from mlpserve.trainer.learning.schedules import SCHEDULES
from mlpserve.trainer.progress import display_for
from mlpserve.trainer.recipes import FAST, RECIPES
from mlpserve.trainer.signals import StopSignals


class SignDescent:
    def __init__(self, parameters: Vector) -> None:
        self._parameters = parameters
        self.state: dict[str, Vector] = {}

    def update(self, part: slice, gradient: Vector, step: Step) -> None:
        self._parameters[part] -= step.learning_rate * np.sign(gradient[part])


def falling(step: int, steps: int) -> float:
    return 1 - step / steps


def small(layer_sizes: Sequence[int], activation: str, seed: int) -> Network:
    network = he(layer_sizes, activation, seed)
    return network.with_parameters([array / 2 for array in network.parameters])


def test_all_are_chosen_by_name_train_and_are_in_the_metadata(
    models: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OPTIMIZERS, "sign", SignDescent)
    monkeypatch.setitem(SCHEDULES, "falling", falling)
    monkeypatch.setitem(INITIALIZATIONS, "small", small)
    mine = replace(FAST, name="mine", hidden_sizes=(12,), initialization="small", batch_size=16)
    monkeypatch.setitem(RECIPES, "mine", mine)

    flags = ["--data", str(data), "--models", str(models), "--recipe", "mine"]
    flags += ["--optimizer", "sign", "--schedule", "falling", "--epochs", "5"]
    run(job_config(train_parser().parse_args(flags)), display_for("lines"), StopSignals())

    training = load_model(weights_path(models, "thirds", 1)).metadata.training
    assert training.recipe == "mine"
    names = ("optimizer", "schedule", "initialization")
    assert [training.hyperparameters[name] for name in names] == ["sign", "falling", "small"]
    assert training.test_accuracy > 0.95
