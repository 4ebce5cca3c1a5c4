"""The schedule of a sweep on one machine: which trial runs next, which are stopped."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from mlpserve.trainer.history import EpochRecord
from mlpserve.trainer.sweep.schedule import Step, next_step, rungs
from mlpserve.trainer.trials import Rules, Sweep, Trial, TrialState

RUNGS = (1, 3, 9)


def record(epoch: int, loss: float, accuracy: float = 0.5) -> EpochRecord:
    return EpochRecord(epoch, 0.1, 1.0, 0.5, loss, accuracy, 1.0, 1.0)


def sweep_of(count: int, rules: Rules | None = None) -> Sweep:
    trials = tuple(Trial(number, {"layers": str(number)}) for number in range(1, count + 1))
    return Sweep((), rules or Rules("loss", RUNGS, 3), trials)


def changed(sweep: Sweep, trial: Trial) -> Sweep:
    trials = [trial if each.number == trial.number else each for each in sweep.trials]
    return replace(sweep, trials=tuple(trials))


def ran(sweep: Sweep, step: Step, loss: Callable[[int, int], float]) -> Sweep:
    trial = sweep.trials[step.trial - 1]
    records = tuple(record(epoch, loss(step.trial, epoch)) for epoch in range(step.epochs))
    is_over = step.epochs == sweep.rules.rungs[-1]
    state = TrialState.ENDED if is_over else TrialState.STOPPED
    return changed(sweep, replace(trial, records=records, state=state))


def run(sweep: Sweep, loss: Callable[[int, int], float]) -> tuple[Sweep, list[Step]]:
    steps = []
    while (step := next_step(sweep, ())) is not None:
        steps.append(step)
        sweep = ran(sweep, step, loss)
    return sweep, steps


@pytest.mark.parametrize(
    ("epochs", "first", "reduction", "expected"),
    [(9, 1, 3, (1, 3, 9)), (10, 1, 3, (1, 3, 9, 10)), (3, 3, 3, (3,)), (8, 2, 2, (2, 4, 8))],
)
def test_rungs_are_factors_apart_and_end_with_all_epochs(
    epochs: int, first: int, reduction: int, expected: tuple[int, ...]
) -> None:
    assert rungs(epochs, first=first, reduction=reduction) == expected


def test_a_third_goes_on_and_the_best_comes_to_its_end() -> None:
    sweep, steps = run(sweep_of(27), lambda number, _: number * 11 % 27)
    reached = [sum(trial.epochs >= rung for trial in sweep.trials) for rung in RUNGS]
    assert reached[0] == 27
    assert 9 <= reached[1] <= 14  # some went on before better ones came
    assert 3 <= reached[2] <= 5
    best = sweep.best()
    assert best is not None
    assert best.number == 27
    # No epoch is trained twice: each step begins where the one before it ended.
    assert sum(trial.epochs for trial in sweep.trials) == sum(
        step.epochs - max((rung for rung in (0, *RUNGS) if rung < step.epochs), default=0)
        for step in steps
    )


def test_trials_are_compared_before_all_have_begun() -> None:
    _, steps = run(sweep_of(4), lambda number, _: number)
    assert steps == [Step(1, 1), Step(2, 1), Step(3, 1), Step(1, 3), Step(4, 1), Step(1, 9)]


def test_one_is_trained_to_its_end_however_few_there_are() -> None:
    sweep, steps = run(sweep_of(2), lambda number, _: 3 - number)
    assert steps[-1] == Step(2, 9)
    best = sweep.best()
    assert best is not None
    assert best.number == 2


def test_nothing_is_begun_twice_while_it_runs() -> None:
    sweep = sweep_of(2)
    assert next_step(sweep, ()) == Step(1, 1)
    assert next_step(sweep, (1,)) == Step(2, 1)
    assert next_step(sweep, (1, 2)) is None
    sweep = ran(sweep, Step(1, 1), lambda *_: 1.0)
    assert next_step(sweep, (2,)) is None  # it may be better


def test_a_trial_that_was_stopped_between_rungs_goes_on_first() -> None:
    sweep = sweep_of(3)
    half = replace(
        sweep.trials[1], records=(record(0, 9.0), record(1, 9.0)), state=TrialState.STOPPED
    )
    assert next_step(changed(sweep, half), ()) == Step(2, 3)


def test_a_failed_trial_goes_no_further_and_is_not_the_best() -> None:
    sweep = sweep_of(3)
    for number in (1, 2, 3):
        sweep = ran(sweep, Step(number, 1), lambda number, _: number)
    sweep = changed(sweep, replace(sweep.trials[0], state=TrialState.FAILED, failure="why"))
    sweep, steps = run(sweep, lambda number, _: number)
    assert steps == [Step(2, 3), Step(2, 9)]
    assert [trial.number for trial in sweep.ranked()] == [2, 3, 1]


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_what_is_not_a_number_is_the_worst(metric: str) -> None:
    rules = Rules(metric, RUNGS, 3)
    good, bad, none = (
        Trial(1, {}, TrialState.ENDED, records)
        for records in ((record(0, 5.0, 0.1),), (record(0, float("nan"), float("nan")),), ())
    )
    assert rules.badness(good) < rules.badness(bad) == rules.badness(none)


def test_with_patience_a_trial_is_as_good_as_the_epoch_that_it_keeps() -> None:
    trial = Trial(1, {}, records=(record(0, 2.0, 0.6), record(1, 1.0, 0.9), record(2, 3.0, 0.2)))
    for keeps_lowest, loss, accuracy in ((True, 1.0, 0.9), (False, 3.0, 0.2)):
        rules = Rules("accuracy", (3,), 3, keeps_lowest)
        assert rules.found(trial) == (loss, accuracy)
        assert rules.badness(trial) == pytest.approx(1 - accuracy)
