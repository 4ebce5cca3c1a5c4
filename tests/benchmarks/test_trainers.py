from dataclasses import replace

import numpy as np
import pytest

from harness.figures import Spread
from mlpserve.datasets import Dataset
from trainers import ours, pure_python, tutorial
from trainers.participants import OURS, PEAK
from trainers.results import DataShape, library_rows, peaks, seed_rows
from trainers.sgemm import PRODUCT_OPERATIONS
from trainers.tasks import Outcome, Stopwatch, Task, epoch_operations

TASK = Task(
    participant=OURS,
    data="",
    hidden_sizes=(3,),
    activation="relu",
    epochs=2,
    threads=1,
    seed=0,
)
DATA = DataShape(images=10, values_per_image=5, classes=2)


def test_the_operations_of_an_epoch_are_those_of_its_matrix_products() -> None:
    # Forward and weights' gradients: 2 x (5 x 3 + 3 x 2) products of an image; inputs' gradients:
    # 3 x 2; and each a multiplication and an addition.
    assert epoch_operations((5, 3, 2), images=10) == 10 * 2 * (2 * 21 + 6)
    assert epoch_operations((5, 2), images=1) == 2 * 2 * 10


def test_a_task_survives_its_way_to_another_process() -> None:
    assert Task.from_json(TASK.to_json()) == TASK


def test_the_first_epoch_only_warms_up() -> None:
    stopwatch = Stopwatch()
    for _ in range(4):
        stopwatch.end_epoch()
    assert len(stopwatch.seconds()) == 3
    assert min(stopwatch.seconds()) >= 0


def test_rows_are_medians_of_rounds_and_ratios_within_rounds() -> None:
    torch, peak = (replace(TASK, participant=name) for name in ("pytorch", PEAK))
    measured = {
        peak: [Outcome([0.5, 0.1]), Outcome([0.2, 0.4])],
        TASK: [Outcome([1.0, 2.0, 9.0], 0.90), Outcome([4.0], 0.92)],
        torch: [Outcome([3.0], 0.91), Outcome([4.0], 0.93)],
    }
    own, other = library_rows(measured, DATA)
    assert own.network == "5-3-2 relu"
    assert own.seconds == Spread(3.0, 2.0, 4.0)
    assert own.times_ours == Spread(1, 1, 1)
    assert own.test_accuracy == pytest.approx(0.91)
    assert other.title == "PyTorch"
    assert other.times_ours == Spread(1.25, 1.0, 1.5)
    # The peak is the best of a round, and a share is of the peak of its own round.
    assert peaks(measured)[1].highest == PRODUCT_OPERATIONS / 0.1
    operations = epoch_operations((5, 3, 2), 10)
    first, second = (
        operations / duration_s / (PRODUCT_OPERATIONS / peak_s)
        for duration_s, peak_s in [(2.0, 0.1), (4.0, 0.2)]
    )
    assert own.peak_share is not None
    assert own.peak_share == Spread.of([first, second])


def test_the_forms_of_the_seed_recipe_are_compared_with_the_fast_one() -> None:
    fast, exact = (replace(TASK, participant=name) for name in ("seed-fast", "seed"))
    measured = {fast: [Outcome([0.1])], exact: [Outcome([0.5])]}
    rows = seed_rows(measured, DATA)
    assert [row.times_ours.median for row in rows] == [1, 5]
    assert [row.peak_share for row in rows] == [None, None]


def test_the_tutorials_code_and_the_loops_do_what_our_exact_form_does(digits: Dataset) -> None:
    task = replace(TASK, hidden_sizes=(16, 16), activation="tanh", epochs=4)
    exact = ours.run_seed(task, digits)
    for other in (tutorial.run(task, digits), pure_python.run(task, digits)):
        np.testing.assert_allclose(other.costs, exact.costs, rtol=1e-12)
        assert len(other.costs) == 5
        assert len(other.seconds) == 4


def test_the_fast_form_begins_as_the_exact_one_does(digits: Dataset) -> None:
    task = replace(TASK, hidden_sizes=(16, 16), activation="tanh", epochs=10)
    exact, fast = ours.run_seed(task, digits), ours.run_seed_fast(task, digits)
    np.testing.assert_allclose(fast.costs, exact.costs, atol=1e-6)
    assert fast.costs != exact.costs
