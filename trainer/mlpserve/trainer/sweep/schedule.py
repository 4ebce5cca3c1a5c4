"""Schedule of a sweep on one machine: asynchronous successive halving.

Li et al., "A System for Massively Parallel Hyperparameter Tuning", 2018, arXiv:1810.05934. All
trials train to the first rung, a number of epochs; of those that came to a rung, the best one in so
many goes on to the next. Nobody waits for others to come to a rung.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from mlpserve.trainer.trials import Rules, Sweep, Trial, TrialState


@dataclass(frozen=True)
class Step:
    """What is to be done next.

    Attributes:
        trial: The number of a trial.
        epochs: After how many epochs it is to stop.
    """

    trial: int
    epochs: int


def rungs(epochs: int, *, first: int, reduction: int) -> tuple[int, ...]:
    """Return after how many epochs trials are compared, rising; the last is after all of them.

    Args:
        epochs: How many epochs a whole training has.
        first: After how many of them trials are first compared.
        reduction: How many times further each rung is than the one before it.
    """
    found: list[int] = []
    rung = first
    while rung < epochs:
        found.append(rung)
        rung *= reduction
    return (*found, epochs)


def next_step(sweep: Sweep, running: Collection[int]) -> Step | None:
    """Return what to do next; None where nothing is, or it depends on what is running.

    A function of the sweep alone, so that one that was killed goes on as if it had not been.

    Args:
        sweep: The sweep as it is.
        running: The numbers of the trials that are being trained.
    """
    rules = sweep.rules
    free = [trial for trial in sweep.trials if trial.number not in running]
    stopped = [trial for trial in free if trial.state is TrialState.STOPPED]
    for trial in stopped:  # it was stopped on its way, together with the sweep
        if trial.epochs not in rules.rungs:
            return Step(trial.number, next(rung for rung in rules.rungs if rung > trial.epochs))
    for rung, following in reversed(list(zip(rules.rungs, rules.rungs[1:], strict=False))):
        good = _good(sweep.trials, rules, rung)
        for trial in good:
            if trial in stopped and trial.epochs == rung:
                return Step(trial.number, following)
    for trial in free:
        if trial.state is TrialState.WAITING:
            return Step(trial.number, rules.rungs[0])
    if not running and sweep.best() is None and stopped:
        # Too few came to a rung for one of them to go on, but one is to be published.
        trial = min(stopped, key=lambda trial: (-trial.epochs, rules.badness(trial), trial.number))
        return Step(trial.number, next(rung for rung in rules.rungs if rung > trial.epochs))
    return None


def _good(trials: Iterable[Trial], rules: Rules, rung: int) -> list[Trial]:
    """Return those trials that go on after a rung, the best first."""
    arrived = [trial for trial in trials if trial.epochs >= rung]
    arrived.sort(key=lambda trial: (rules.badness(trial, rung), trial.number))
    return arrived[: len(arrived) // rules.reduction]
