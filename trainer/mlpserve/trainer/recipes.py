"""The recipes: complete, named sets of settings, each of which may be changed on its own.

What was tried on the way to them, and what came of it, is in ``docs/recipes.md``.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from mlpserve.trainer.learning.recipe import Recipe
from mlpserve.trainer.learning.warps import WarpSettings

SEED: Final = Recipe(
    name="seed",  # the tutorial that this project grew from
    hidden_sizes=(16, 16),
    activation="tanh",
    initialization="tutorial",
    optimizer="gradient-descent",
    schedule="tutorial",
    learning_rate=0.5,
    epochs=150,
    batch_size=0,
    dtype="float64",
    seed=2,
    report_every_epochs=10,
    report_line="tutorial",
)
SEED_FAST: Final = replace(SEED, name="seed-fast", dtype="float32")
FAST: Final = Recipe(
    name="fast",
    hidden_sizes=(128,),
    activation="relu",
    schedule="one-cycle",
    learning_rate=1e-2,
    epochs=3,
    batch_size=128,
    validation_share=0.05,
)
SLIGHT: Final = WarpSettings(
    rotation_degrees=7, log_scale=0.07, shear=0.07, shift_px=0.5, elastic_px=0.6
)
STRONG: Final = WarpSettings(
    rotation_degrees=10, log_scale=0.1, shear=0.1, shift_px=1.0, elastic_px=1.2
)
WARPS: Final[Mapping[str, WarpSettings | None]] = {
    "none": None,
    "slight": SLIGHT,
    "strong": STRONG,
}
GOOD: Final = replace(
    FAST,
    name="good",
    hidden_sizes=(256,),
    learning_rate=7e-3,
    epochs=4,
    batch_size=256,
    learned_probability=0.99,
    warp=SLIGHT,
)
BETTER: Final = replace(
    GOOD,
    name="better",
    hidden_sizes=(512, 256),
    learning_rate=3e-3,
    epochs=9,
    warp=replace(SLIGHT, elastic_px=0.8),
    gentle_share=0.13,
)
BEST: Final = replace(
    BETTER,
    name="best",
    hidden_sizes=(1536, 1024, 512),
    schedule="cosine",
    learning_rate=1.2e-3,
    epochs=80,
    batch_size=512,
    warp=WarpSettings(
        rotation_degrees=14,
        log_scale=0.15,
        shear=0.14,
        shift_px=1.0,
        elastic_px=1.3,
        elastic_smoothness_px=5,
    ),
    gentle_share=0.0,
    average_decay=0.9995,
    validation_share=0.02,
)
RECORD: Final = replace(BEST, name="record", epochs=120)
RECIPES: Final[Mapping[str, Recipe]] = {
    recipe.name: recipe for recipe in (FAST, GOOD, BETTER, BEST, RECORD, SEED, SEED_FAST)
}
