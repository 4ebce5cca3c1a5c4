from dataclasses import replace

import numpy as np
import pytest

from mlpserve.trainer.errors import TrainingError
from mlpserve.trainer.learning.warps import WarpSettings
from mlpserve.trainer.recipes import FAST, RECIPES

NAN, INFINITY = float("nan"), float("inf")
WARP = WarpSettings(rotation_degrees=10, elastic_px=1)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("hidden_sizes", (0,), r"layers: expected widths from 1 to 65536, got \(0,\)"),
        ("hidden_sizes", (9, 65_537), "layers: expected widths from 1 to 65536"),
        ("activation", "swish", "activation: expected tanh, relu, sigmoid, got 'swish'"),
        ("activation", "softmax", "activation: expected tanh, relu, sigmoid, got 'softmax'"),
        ("initialization", "zeros", "initialization: expected tutorial, he, got 'zeros'"),
        ("optimizer", "sgd", "optimizer: expected gradient-descent, momentum, adam, got 'sgd'"),
        ("schedule", "step", "schedule: expected constant, tutorial, one-cycle, cosine, got"),
        ("dtype", "float16", "dtype: expected float32, float64, got 'float16'"),
        ("learning_rate", 0.0, "learning rate: expected above 0 and finite, got 0.0"),
        ("learning_rate", -1.0, "learning rate: expected above 0"),
        ("learning_rate", INFINITY, "learning rate: expected above 0 and finite, got inf"),
        ("learning_rate", NAN, "learning rate: expected above 0"),
        ("epochs", 0, "epochs: expected at least 1, got 0"),
        ("batch_size", -1, "batch size: expected at least 1, or 0 for all images, got -1"),
        ("seed", -1, "seed: expected from 0 to 4294967295, got -1"),
        ("seed", 2**32, "seed: expected from 0"),
        ("weight_decay", -0.1, "weight decay: expected at least 0 and finite, got -0.1"),
        ("weight_decay", INFINITY, "weight decay: expected at least 0 and finite, got inf"),
        ("weight_decay", NAN, "weight decay: expected at least 0"),
        ("learned_probability", 0.0, "learned probability: expected above 0 to 1, got 0.0"),
        ("learned_probability", 1.1, "learned probability: expected above 0 to 1"),
        ("learned_probability", NAN, "learned probability: expected above 0 to 1"),
        ("patience_epochs", -1, "patience: expected at least 1 epoch, or 0 for never, got -1"),
        ("report_every_epochs", 0, "report every epochs: expected at least 1, got 0"),
    ],
)
def test_a_setting_out_of_its_range_is_refused_by_name(
    setting: str, value: object, message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        replace(FAST, **{setting: value})  # type: ignore[arg-type] # wrong on purpose


@pytest.mark.parametrize("value", [-0.1, 1.0, NAN, INFINITY])
@pytest.mark.parametrize(
    "setting",
    ["label_smoothing", "dropout", "average_decay", "gentle_share", "validation_share"],
)
def test_a_share_out_of_its_range_is_refused_by_name(setting: str, value: float) -> None:
    name = setting.replace("_", " ")
    with pytest.raises(TrainingError, match=f"{name}: expected from 0 to below 1, got {value}"):
        replace(FAST, **{setting: value})  # type: ignore[arg-type] # one of many settings


def test_settings_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(TrainingError, match="batch size: expected at least 1 with distorted"):
        replace(FAST, warp=WARP, batch_size=0)
    with pytest.raises(TrainingError, match="dtype: expected float32 with distorted images"):
        replace(FAST, warp=WARP, dtype="float64")
    with pytest.raises(TrainingError, match="patience: expected a validation share above 0"):
        replace(FAST, patience_epochs=1, validation_share=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden_sizes": ()},
        {"hidden_sizes": (1, 65_536)},
        {"learned_probability": 1e-9},
        {"dropout": 0.999},
        {"seed": 2**32 - 1},
        {"warp": WARP},
    ],
    ids=str,
)
def test_settings_at_the_ends_of_their_ranges_are_taken(settings: dict[str, object]) -> None:
    replace(FAST, **settings)  # type: ignore[arg-type] # one of many settings


@pytest.mark.parametrize(("dtype", "expected"), [("float32", np.float32), ("float64", np.float64)])
def test_the_dtype_of_the_parameters_is_the_recipes(
    dtype: str, expected: type[np.floating]
) -> None:
    assert replace(FAST, dtype=dtype).parameter_dtype is expected


def test_the_hyperparameters_are_all_settings_that_a_version_does_not_keep_elsewhere() -> None:
    kept = replace(FAST, warp=WARP).hyperparameters()
    assert kept["learning_rate"] == FAST.learning_rate
    assert kept["warp_rotation_degrees"] == 10
    assert kept["warp_elastic_px"] == 1
    assert not {"name", "seed", "hidden_sizes", "activation", "warp"} & set(kept)
    assert not any(key.startswith("report_") for key in kept)
    for recipe in RECIPES.values():
        assert all(
            isinstance(value, str | int | float) for value in recipe.hyperparameters().values()
        )
