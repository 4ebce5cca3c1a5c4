"""From what was measured to what is reported: a row for each participant in each setting."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from harness.figures import Spread, ratios
from trainers.contest import Measured
from trainers.participants import BEFORE, FAST_FORM, LIBRARIES, OURS, PARTICIPANTS, PEAK, SEED_FORMS
from trainers.sgemm import PRODUCT_OPERATIONS
from trainers.tasks import Outcome, Task, epoch_operations


@dataclass(frozen=True)
class Row:
    """One participant in one setting.

    Attributes:
        title: Who it is.
        network: The layers and the activation.
        threads: How many it used.
        seconds: For one epoch: the spread over the rounds of each round's median.
        times_ours: So many times as long as ours took in the same round; below 1 it was faster.
        test_accuracy: The median over the rounds, 0 to 1; None where there is none.
        peak_share: The share of the same round's sgemm peak, 0 to 1; None where there is none.
    """

    title: str
    network: str
    threads: int
    seconds: Spread
    times_ours: Spread
    test_accuracy: float | None
    peak_share: Spread | None


@dataclass(frozen=True)
class DataShape:
    """The sizes of a data set, on which layer sizes and operations depend besides a task."""

    images: int
    values_per_image: int
    classes: int


def library_rows(measured: Measured, data: DataShape) -> list[Row]:
    """Return a row for each library in each setting, in the order of measuring."""
    return [
        _row(task, measured, data, ours=OURS, peak=PEAK)
        for task in measured
        if task.participant in {BEFORE, *LIBRARIES}
    ]


def seed_rows(measured: Measured, data: DataShape) -> list[Row]:
    """Return a row for each form of the seed recipe; an epoch of it is one iteration."""
    return [
        _row(task, measured, data, ours=FAST_FORM, peak=None)
        for task in measured
        if task.participant in SEED_FORMS
    ]


def peaks(measured: Measured) -> dict[int, Spread]:
    """Return the sgemm peak for each number of threads, in operations per second."""
    found: dict[int, list[float]] = {}
    for task, outcomes in measured.items():
        if task.participant == PEAK:
            found.setdefault(task.threads, []).extend(map(_peak, outcomes))
    return {threads: Spread.of(values) for threads, values in found.items()}


def _row(task: Task, measured: Measured, data: DataShape, *, ours: str, peak: str | None) -> Row:
    layer_sizes = (data.values_per_image, *task.hidden_sizes, data.classes)
    seconds = _round_seconds(measured[task])
    our_seconds = _round_seconds(measured[_beside(task, ours)])
    peak_share = None
    if peak is not None:
        operations = epoch_operations(layer_sizes, data.images)
        reached = [operations / duration_s for duration_s in seconds]
        of_peak = ratios(reached, [_peak(outcome) for outcome in measured[_beside(task, peak)]])
        peak_share = Spread.of(of_peak)
    return Row(
        title=PARTICIPANTS[task.participant].title,
        network=f"{'-'.join(map(str, layer_sizes))} {task.activation}",
        threads=task.threads,
        seconds=Spread.of(seconds),
        times_ours=Spread.of(ratios(seconds, our_seconds)),
        test_accuracy=_median_accuracy(measured[task]),
        peak_share=peak_share,
    )


def _beside(task: Task, participant: str) -> Task:
    """Return the task of another participant in the same setting."""
    return Task(**{**vars(task), "participant": participant})


def _round_seconds(outcomes: Sequence[Outcome]) -> list[float]:
    return [statistics.median(outcome.seconds) for outcome in outcomes]


def _peak(outcome: Outcome) -> float:
    """Return operations per second; a peak is the best, not the middle."""
    return PRODUCT_OPERATIONS / min(outcome.seconds)


def _median_accuracy(outcomes: Sequence[Outcome]) -> float | None:
    found = [outcome.test_accuracy for outcome in outcomes if outcome.test_accuracy is not None]
    return statistics.median(found) if found else None
