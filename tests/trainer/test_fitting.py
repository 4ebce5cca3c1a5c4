import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpserve.datasets import Split
from mlpserve.model.inputs import InputSpec
from mlpserve.model.network import Network
from mlpserve.trainer.errors import TrainingError
from mlpserve.trainer.evaluation import evaluate
from mlpserve.trainer.fitting import Fit, Observer, Outcome, Snapshot, StoppedError, hold_out
from mlpserve.trainer.history import EpochRecord
from mlpserve.trainer.learning.parameters import vector_of
from mlpserve.trainer.learning.recipe import Recipe
from mlpserve.trainer.learning.team import Team
from mlpserve.trainer.learning.training import Position, Training, initial_network
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


class Watch(Observer):
    """Whose clock goes on with each step; remembers what it is told, and stops where it should."""

    def __init__(self, *, stop_after_steps: int = -1, save_after_steps: int = -1) -> None:
        self.now_s = 100.0
        self.steps: list[int] = []
        self.records: list[EpochRecord] = []
        self.saved: list[Snapshot] = []
        self.networks: list[Network] = []
        self.training: Training | None = None
        self._stop_after_steps = stop_after_steps
        self._save_after_steps = save_after_steps

    def after_step(self, position: Position, steps: int) -> None:
        assert position.steps <= steps
        self.now_s += STEP_S
        self.steps.append(position.steps)

    def after_epoch(self, record: EpochRecord) -> None:
        assert self.training is not None
        self.records.append(record)
        self.networks.append(self.training.network)

    def is_stop_wanted(self) -> bool:
        assert self.training is not None
        return self.training.position.steps == self._stop_after_steps

    def is_save_due(self) -> bool:
        return self.steps[-1] == self._save_after_steps

    def save(self, snapshot: Snapshot) -> None:
        arrays = {name: array.copy() for name, array in snapshot.arrays.items()}
        self.saved.append(Snapshot(snapshot.state, arrays))


def fit(
    recipe: Recipe,
    watch: Watch,
    *,
    snapshot: Snapshot | None = None,
    time_limit_s: float = math.inf,
    threads: int = 1,
) -> Outcome:
    learned, validation = hold_out(images(), recipe)
    network = initial_network(recipe, SPEC.values_per_image, CLASSES)
    with Team(threads) as team:
        watch.training = Training(recipe, network, learned, SPEC, team=team)
        run = Fit(
            watch.training,
            recipe,
            validation=validation,
            spec=SPEC,
            clock=lambda: watch.now_s,
            time_limit_s=time_limit_s,
        )
        if snapshot is not None:
            run.resume(snapshot)
        return run.run(watch)


def assert_same_bits(one: Network, other: Network) -> None:
    np.testing.assert_array_equal(vector_of(one), vector_of(other), strict=True)


def test_a_training_ends_when_all_epochs_are_done() -> None:
    watch = Watch()
    outcome = fit(SMALL, watch)
    assert outcome.ended_because == "all epochs are done"
    assert watch.steps == list(range(1, 21))
    assert list(outcome.records) == watch.records
    assert_same_bits(outcome.network, watch.networks[-1])
    assert not watch.saved


def test_records_tell_what_each_epoch_found_and_how_long_it_took() -> None:
    watch = Watch()
    outcome = fit(SMALL, watch)
    learned, validation = hold_out(images(), SMALL)
    assert validation is not None
    assert outcome.elapsed_s == 20 * STEP_S
    for epoch, (record, network) in enumerate(zip(watch.records, watch.networks, strict=True)):
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
    record, *_ = fit(recipe, Watch()).records
    network = initial_network(recipe, SPEC.values_per_image, CLASSES)
    expected = evaluate(network, SPEC, images())
    assert record.train_loss == pytest.approx(expected.cross_entropy, rel=1e-5)
    assert record.train_accuracy == expected.accuracy
    assert record.validation_loss is None
    assert record.validation_accuracy is None


def test_the_record_has_the_learning_rate_of_the_epochs_last_step() -> None:
    recipe = replace(SMALL, schedule="one-cycle", epochs=2)
    first, second = fit(recipe, Watch()).records
    # Of 8 steps 2.4 rise; the 4th and the 8th are 0.6 and 4.6 of the 5.6 that fall.
    assert first.learning_rate == pytest.approx(0.01 * (1 + math.cos(math.pi * 0.6 / 5.6)))
    assert second.learning_rate == pytest.approx(0.01 * (1 + math.cos(math.pi * 4.6 / 5.6)))


@pytest.mark.parametrize("patience_epochs", [1, 4])
def test_early_stopping_keeps_the_network_of_the_lowest_validation_loss(
    patience_epochs: int,
) -> None:
    watch = Watch()
    outcome = fit(replace(OVERFITTING, patience_epochs=patience_epochs), watch)
    best = int(np.argmin(np.array([record.validation_loss for record in watch.records], float)))
    assert len(outcome.records) == best + 1 + patience_epochs < OVERFITTING.epochs
    assert outcome.ended_because == (
        f"the validation loss has not fallen for {patience_epochs} epochs; "
        f"the network of epoch {best + 1} is kept"
    )
    assert_same_bits(outcome.network, watch.networks[best])


def test_the_best_network_is_kept_and_named_however_a_training_with_patience_ends() -> None:
    best = len(fit(OVERFITTING, Watch()).records) - OVERFITTING.patience_epochs
    watch = Watch()
    by_epochs = fit(replace(OVERFITTING, epochs=best + 1), watch)
    assert by_epochs.ended_because == f"all epochs are done; the network of epoch {best} is kept"
    assert_same_bits(by_epochs.network, watch.networks[best - 1])
    by_time = fit(OVERFITTING, Watch(), time_limit_s=(4 * best + 1) * STEP_S)
    assert by_time.ended_because.endswith(f"is reached; the network of epoch {best} is kept")
    assert_same_bits(by_time.network, by_epochs.network)
    at_once = fit(replace(OVERFITTING, epochs=best), Watch())
    assert at_once.ended_because == "all epochs are done"


def test_without_patience_the_last_network_is_kept() -> None:
    watch = Watch()
    outcome = fit(replace(OVERFITTING, patience_epochs=0), watch)
    assert len(outcome.records) == OVERFITTING.epochs
    assert_same_bits(outcome.network, watch.networks[-1])


@pytest.mark.parametrize("steps", [0, 1, 4, 7, 19])
def test_a_time_limit_ends_the_training_with_what_was_learned_by_then(steps: int) -> None:
    stopped = Watch(stop_after_steps=steps)
    with pytest.raises(StoppedError):
        fit(SMALL, stopped)
    assert stopped.training is not None
    # The limit is reached between two steps, or just with one.
    for limit_s in (steps * STEP_S, max(0, steps - 0.5) * STEP_S):
        watch = Watch()
        outcome = fit(SMALL, watch, time_limit_s=limit_s)
        assert outcome.ended_because == f"the time limit of {limit_s:g} s is reached"
        assert len(watch.steps) == steps
        assert len(outcome.records) == steps // 4
        assert outcome.elapsed_s == steps * STEP_S
        assert_same_bits(outcome.network, stopped.training.network)


def test_seconds_count_from_when_it_runs() -> None:
    watch = Watch()
    network = initial_network(replace(SMALL, epochs=1), SPEC.values_per_image, CLASSES)
    watch.training = Training(SMALL, network, images(), SPEC, team=Team(1))
    run = Fit(watch.training, SMALL, validation=None, spec=SPEC, clock=lambda: watch.now_s)
    watch.now_s += 1000
    assert run.run(watch).elapsed_s == 20 * STEP_S


def test_who_wants_to_stop_is_given_a_snapshot_first() -> None:
    watch = Watch(stop_after_steps=6)
    with pytest.raises(StoppedError):
        fit(SMALL, watch)
    (snapshot,) = watch.saved
    assert watch.training is not None
    assert watch.steps == [1, 2, 3, 4, 5, 6]
    assert snapshot.state.position == watch.training.position
    assert snapshot.state.records == tuple(watch.records)
    assert snapshot.state.elapsed_s == 6 * STEP_S
    assert snapshot.state.epoch_began_s == 4 * STEP_S
    np.testing.assert_array_equal(snapshot.arrays["parameters"], vector_of(watch.training.network))


def test_a_diverging_training_says_so() -> None:
    with np.errstate(all="ignore"), pytest.raises(TrainingError, match="lower --learning-rate"):
        fit(replace(SMALL, learning_rate=1e30, optimizer="gradient-descent"), Watch())


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
    return fit(RECIPES[name], Watch(), threads=threads)


def assert_resumes(name: str, threads: int, snapshot: Snapshot) -> None:
    """Check that a training ends as if it had never stopped; the clock stands still meanwhile."""
    expected, watch = unstopped(name, threads), Watch()
    outcome = fit(RECIPES[name], watch, snapshot=snapshot, threads=threads)
    assert_same_bits(outcome.network, expected.network)
    assert outcome.records == expected.records
    assert outcome.ended_because == expected.ended_because
    assert outcome.elapsed_s == expected.elapsed_s
    assert len(watch.steps) == 4 * len(expected.records) - snapshot.state.position.steps


@given(data=st.data(), threads=st.sampled_from([1, 2]))
@settings(max_examples=20)
@pytest.mark.parametrize("name", RECIPES)
def test_a_training_that_stopped_anywhere_has_the_outcome_of_one_that_did_not(
    name: str, data: st.DataObject, threads: int
) -> None:
    steps = 4 * len(unstopped(name, threads).records)
    watch = Watch(stop_after_steps=data.draw(st.integers(0, steps - 1)))
    with pytest.raises(StoppedError):
        fit(RECIPES[name], watch, threads=threads)
    assert_resumes(name, threads, watch.saved[0])


@given(data=st.data(), threads=st.sampled_from([1, 2]))
@settings(max_examples=20)
@pytest.mark.parametrize("name", RECIPES)
def test_one_that_was_killed_later_has_it_too_from_what_was_saved_anywhere(
    name: str, data: st.DataObject, threads: int
) -> None:
    steps = 4 * len(unstopped(name, threads).records)
    watch = Watch(save_after_steps=data.draw(st.integers(1, steps)))
    fit(RECIPES[name], watch, threads=threads)
    assert_resumes(name, threads, watch.saved[0])
