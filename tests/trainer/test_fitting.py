import math
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpserve.datasets import Split
from mlpserve.model.inputs import InputSpec
from mlpserve.model.network import Network
from mlpserve.trainer.errors import TrainingError
from mlpserve.trainer.evaluation import evaluate
from mlpserve.trainer.fitting import Fit, Outcome, Snapshot, hold_out
from mlpserve.trainer.history import EpochRecord
from mlpserve.trainer.learning.parameters import vector_of
from mlpserve.trainer.learning.recipe import Recipe
from mlpserve.trainer.learning.thread_pool import ThreadPool
from mlpserve.trainer.learning.training import Training, initial_network
from mlpserve.trainer.learning.warps import WarpSettings
from mlpserve.trainer.recipes import FAST

CLASSES = 3
SPEC = InputSpec((4, 4))
STEP_S = 2.0  # by the clock of these tests
# 40 images, of which 8 are held out, in batches of 10: 4 steps an epoch, the last a short one.
SMALL = replace(
    FAST,
    hidden_sizes=(8,),
    epochs=5,
    batch_size=10,
    schedule="constant",
    learning_rate=0.02,
    validation_share=0.2,
)
# The labels are drawn by lot: what is learned of them makes the validation loss rise.
OVERFITTING = replace(SMALL, epochs=40, learning_rate=0.005, patience_epochs=4)


def images(count: int = 40) -> Split:
    rng = np.random.default_rng(6)
    return Split(rng.integers(0, 256, (count, 4, 4), np.uint8), rng.integers(0, CLASSES, count))


@dataclass
class Run:
    """A fit and what came of it.

    Attributes:
        outcome: Its outcome; None where it was left before its end.
        records: What each epoch found.
        networks: What was learned by the end of each.
        steps: Which steps were done.
        network: What was learned in all.
        snapshot: The state after the step that was asked for.
    """

    outcome: Outcome | None = None
    records: list[EpochRecord] = field(default_factory=list)
    networks: list[Network] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    network: Network | None = None
    snapshot: Snapshot | None = None


def run(
    recipe: Recipe,
    *,
    snapshot: Snapshot | None = None,
    time_limit_s: float = math.inf,
    threads: int = 1,
    snapshot_after: int = -1,
    leave_after: int = -1,
) -> Run:
    """Run a fit as its callers do; a step takes two seconds by its clock.

    Args:
        recipe: What to run.
        snapshot: Where to go on.
        time_limit_s: When to end.
        threads: How many train.
        snapshot_after: After which step to take a snapshot.
        leave_after: After which step to leave it, with a snapshot.
    """
    learned, validation = hold_out(images(), recipe)
    network = initial_network(recipe, SPEC.values_per_image, CLASSES)
    found = Run()
    with ThreadPool(threads) as pool:
        training = Training(recipe, network, learned, SPEC, pool=pool)
        fit = Fit(
            training,
            recipe,
            validation=validation,
            spec=SPEC,
            clock=lambda: 100 + STEP_S * training.position.steps,
            time_limit_s=time_limit_s,
        )
        fit.start(snapshot)
        while (reason := fit.end_reason()) is None:
            if training.position.steps == leave_after:
                found.snapshot = copy_of(fit.snapshot())
                break
            record = fit.step()
            found.steps.append(training.position.steps)
            if record is not None:
                found.records.append(record)
                found.networks.append(training.network)
            if training.position.steps == snapshot_after:
                found.snapshot = copy_of(fit.snapshot())
        else:
            found.outcome = fit.outcome(reason)
    found.network = training.network
    return found


def copy_of(snapshot: Snapshot) -> Snapshot:
    arrays = {name: array.copy() for name, array in snapshot.arrays.items()}
    return Snapshot(snapshot.state, arrays)


def fit(recipe: Recipe, **options: Any) -> Outcome:
    """Run a fit to its end; see ``run``."""
    outcome = run(recipe, **options).outcome
    assert outcome is not None
    return outcome


def assert_same_bits(one: Network, other: Network) -> None:
    np.testing.assert_array_equal(vector_of(one), vector_of(other), strict=True)


def test_a_training_ends_when_all_epochs_are_done() -> None:
    found = run(SMALL)
    assert found.outcome is not None
    assert found.outcome.ended_because == "all epochs are done"
    assert found.steps == list(range(1, 21))
    assert list(found.outcome.records) == found.records
    assert_same_bits(found.outcome.network, found.networks[-1])


def test_records_tell_what_each_epoch_found_and_how_long_it_took() -> None:
    found = run(SMALL)
    learned, validation = hold_out(images(), SMALL)
    assert validation is not None
    assert found.outcome is not None
    assert found.outcome.elapsed_s == 20 * STEP_S
    for epoch, (record, network) in enumerate(zip(found.records, found.networks, strict=True)):
        evaluation = evaluate(network, SPEC, validation)
        assert record.epoch == epoch
        assert record.learning_rate == 0.02
        assert record.validation_loss == evaluation.cross_entropy
        assert record.validation_accuracy == evaluation.accuracy
        assert record.elapsed_s == 4 * STEP_S * (epoch + 1)
        assert record.images_per_s == len(learned) / (4 * STEP_S)


def test_the_training_loss_is_of_just_before_each_step() -> None:
    # With a learning rate of almost 0 that is the loss of the network to begin with.
    recipe = replace(SMALL, learning_rate=1e-12, validation_share=0)
    record, *_ = fit(recipe).records
    network = initial_network(recipe, SPEC.values_per_image, CLASSES)
    expected = evaluate(network, SPEC, images())
    assert record.train_loss == pytest.approx(expected.cross_entropy, rel=1e-5)
    assert record.train_accuracy == expected.accuracy
    assert record.validation_loss is None
    assert record.validation_accuracy is None


def test_the_record_has_the_learning_rate_of_the_epochs_last_step() -> None:
    recipe = replace(SMALL, schedule="one-cycle", epochs=2)
    first, second = fit(recipe).records
    # Of 8 steps 2.4 rise; the 4th and the 8th are 0.6 and 4.6 of the 5.6 that fall.
    assert first.learning_rate == pytest.approx(0.01 * (1 + math.cos(math.pi * 0.6 / 5.6)))
    assert second.learning_rate == pytest.approx(0.01 * (1 + math.cos(math.pi * 4.6 / 5.6)))


@pytest.mark.parametrize("patience_epochs", [1, 4])
def test_early_stopping_keeps_the_network_of_the_lowest_validation_loss(
    patience_epochs: int,
) -> None:
    found = run(replace(OVERFITTING, patience_epochs=patience_epochs))
    outcome = found.outcome
    assert outcome is not None
    best = int(np.argmin(np.array([record.validation_loss for record in found.records], float)))
    assert len(outcome.records) == best + 1 + patience_epochs < OVERFITTING.epochs
    assert outcome.ended_because == (
        f"the validation loss has not fallen for {patience_epochs} epochs; "
        f"the network of epoch {best + 1} is kept"
    )
    assert_same_bits(outcome.network, found.networks[best])


def test_the_best_network_is_kept_and_named_however_a_training_with_patience_ends() -> None:
    best = len(fit(OVERFITTING).records) - OVERFITTING.patience_epochs
    found = run(replace(OVERFITTING, epochs=best + 1))
    by_epochs = found.outcome
    assert by_epochs is not None
    assert by_epochs.ended_because == f"all epochs are done; the network of epoch {best} is kept"
    assert_same_bits(by_epochs.network, found.networks[best - 1])
    by_time = fit(OVERFITTING, time_limit_s=(4 * best + 1) * STEP_S)
    assert by_time.ended_because.endswith(f"is reached; the network of epoch {best} is kept")
    assert_same_bits(by_time.network, by_epochs.network)
    at_once = fit(replace(OVERFITTING, epochs=best))
    assert at_once.ended_because == "all epochs are done"


def test_without_patience_the_last_network_is_kept() -> None:
    found = run(replace(OVERFITTING, patience_epochs=0))
    assert found.outcome is not None
    assert len(found.outcome.records) == OVERFITTING.epochs
    assert_same_bits(found.outcome.network, found.networks[-1])


@pytest.mark.parametrize("steps", [0, 1, 4, 7, 19])
def test_a_time_limit_ends_the_training_with_what_was_learned_by_then(steps: int) -> None:
    left = run(SMALL, leave_after=steps)
    assert left.network is not None
    # The limit is reached between two steps, or just with one.
    for limit_s in (steps * STEP_S, max(0, steps - 0.5) * STEP_S):
        found = run(SMALL, time_limit_s=limit_s)
        outcome = found.outcome
        assert outcome is not None
        assert outcome.ended_because == f"the time limit of {limit_s:g} s is reached"
        assert len(found.steps) == steps
        assert len(outcome.records) == steps // 4
        assert outcome.elapsed_s == steps * STEP_S
        assert_same_bits(outcome.network, left.network)


def test_seconds_count_from_its_start() -> None:
    now_s = [100.0]
    network = initial_network(SMALL, SPEC.values_per_image, CLASSES)
    training = Training(SMALL, network, images(), SPEC, pool=ThreadPool(1))
    fit = Fit(training, SMALL, validation=None, spec=SPEC, clock=lambda: now_s[0])
    now_s[0] += 1000
    fit.start()
    now_s[0] += 3
    assert fit.outcome("it is enough").elapsed_s == 3


def test_a_snapshot_has_all_that_was_found_and_learned_by_then() -> None:
    found = run(SMALL, leave_after=6)
    snapshot = found.snapshot
    assert snapshot is not None
    assert found.network is not None
    assert found.steps == [1, 2, 3, 4, 5, 6]
    assert (snapshot.state.position.steps, snapshot.state.position.images) == (6, 20)
    assert snapshot.state.records == tuple(found.records)
    assert snapshot.state.elapsed_s == 6 * STEP_S
    assert snapshot.state.epoch_began_s == 4 * STEP_S
    np.testing.assert_array_equal(snapshot.arrays["parameters"], vector_of(found.network))


def test_a_diverging_training_says_so() -> None:
    with np.errstate(all="ignore"), pytest.raises(TrainingError, match="lower --learning-rate"):
        fit(replace(SMALL, learning_rate=1e30, optimizer="gradient-descent"))


# All that has a state, and enough epochs for the patience to end it.
EVERYTHING = replace(
    OVERFITTING,
    learning_rate=0.02,
    weight_decay=0.01,
    label_smoothing=0.1,
    dropout=0.2,
    average_decay=0.5,
    learned_probability=0.9,
    warp=WarpSettings(rotation_degrees=10, images_per_warp=3),
    gentle_share=0.5,
)
RECIPES = {"plain": SMALL, "patient": OVERFITTING, "everything": EVERYTHING}


@cache
def unstopped(name: str, threads: int) -> Outcome:
    return fit(RECIPES[name], threads=threads)


def assert_resumes(name: str, threads: int, snapshot: Snapshot | None) -> None:
    """Check that a training ends as if it had never stopped; the clock stands still meanwhile."""
    assert snapshot is not None
    expected, found = (
        unstopped(name, threads),
        run(RECIPES[name], snapshot=snapshot, threads=threads),
    )
    outcome = found.outcome
    assert outcome is not None
    assert_same_bits(outcome.network, expected.network)
    assert outcome.records == expected.records
    assert outcome.ended_because == expected.ended_because
    assert outcome.elapsed_s == expected.elapsed_s
    assert len(found.steps) == 4 * len(expected.records) - snapshot.state.position.steps


@given(data=st.data(), threads=st.sampled_from([1, 2]))
@settings(max_examples=20)
@pytest.mark.parametrize("name", RECIPES)
def test_a_training_that_stopped_anywhere_has_the_outcome_of_one_that_did_not(
    name: str, data: st.DataObject, threads: int
) -> None:
    steps = 4 * len(unstopped(name, threads).records)
    left = run(RECIPES[name], threads=threads, leave_after=data.draw(st.integers(0, steps - 1)))
    assert_resumes(name, threads, left.snapshot)


@given(data=st.data(), threads=st.sampled_from([1, 2]))
@settings(max_examples=20)
@pytest.mark.parametrize("name", RECIPES)
def test_one_that_was_killed_later_has_it_too_from_what_was_saved_anywhere(
    name: str, data: st.DataObject, threads: int
) -> None:
    steps = 4 * len(unstopped(name, threads).records)
    step = data.draw(st.integers(1, steps))
    killed = run(RECIPES[name], threads=threads, snapshot_after=step)
    assert_resumes(name, threads, killed.snapshot)
