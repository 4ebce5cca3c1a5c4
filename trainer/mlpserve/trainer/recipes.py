"""The recipes: complete, named sets of settings, each of which may be changed on its own.

What was tried on the way to them, and what came of it, is in ``docs/recipes.md``.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from mlpserve.trainer.learning.recipe import Recipe

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
RECIPES: Final[Mapping[str, Recipe]] = {recipe.name: recipe for recipe in (FAST, SEED, SEED_FAST)}
