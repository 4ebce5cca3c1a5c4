"""The simulation of the queue: against formulas, and the rule by which a worker batches."""

from pathlib import Path

import numpy as np
import pytest

from harness.tables import section
from queueing.chart import Curve, svg
from queueing.fitting import fitted_costs, minimum
from queueing.measurement import Calls
from queueing.plan import HEAD, Cost, plan_rows, published_costs
from queueing.simulation import (
    Costs,
    Disturbance,
    closed_loop,
    open_loop,
    poisson,
    run_worker,
    several_workers,
)
from scale import plan

REPOSITORY = Path(__file__).parents[2]
COSTS = Costs(wake_s=2e-4, pass_s=3e-5, request_s=5e-5, image_s=3e-6, client_s=1e-5)


def quiet() -> Disturbance:
    return Disturbance(np.empty(0), np.random.default_rng(0))


def test_a_call_that_is_alone_takes_the_sum_of_all_costs() -> None:
    took = closed_loop(1, 64, 10, COSTS, quiet())
    assert took == pytest.approx(2e-4 + 3e-5 + 5e-5 + 64 * 3e-6 + 1e-5)


@pytest.mark.parametrize("utilisation", [0.3, 0.8])
def test_without_batches_requests_wait_as_the_formula_of_pollaczek_and_khinchine_says(
    utilisation: float,
) -> None:
    # M/D/1: each takes as long, and the mean wait is rho / (2 (1 - rho)) times that. A pass of 512
    # images is one request, so that nothing is joined.
    service_s = 512 * 1e-6
    costs = Costs(0.0, 0.0, 0.0, 1e-6, 0.0)
    arrivals = poisson(utilisation / service_s, 60_000, np.random.default_rng(1))
    waited_s = open_loop(arrivals, 512, costs, quiet()) - service_s
    expected_s = service_s * utilisation / (2 * (1 - utilisation))
    assert np.mean(waited_s) == pytest.approx(expected_s, rel=0.1)


def test_what_comes_during_a_pass_is_in_the_next_one_and_nothing_waits_for_others() -> None:
    costs = Costs(0.0, 1.0, 0.0, 0.0, 0.0)
    answers: dict[float, float] = {}
    run_worker([0.0, 0.5, 0.6, 5.0], 1, costs, quiet(), answers.__setitem__)
    assert answers == {0.0: 1.0, 0.5: 2.0, 0.6: 2.0, 5.0: 6.0}


def test_a_pass_has_no_more_images_than_a_batch_may_have() -> None:
    costs = Costs(0.0, 1.0, 0.0, 0.0, 0.0)
    ends: list[float] = []
    run_worker([0.0, 0.1, 0.2, 0.3], 256, costs, quiet(), lambda _, end: ends.append(end))
    assert ends == [1.0, 2.0, 2.0, 3.0]


def test_a_closed_loop_reaches_what_a_worker_can_answer() -> None:
    took = closed_loop(64, 1, 5000, COSTS, quiet())
    # Little's law: so many at a time, over how long each takes.
    assert 64 / np.mean(took) == pytest.approx(COSTS.capacity_per_s(1), rel=0.15)


@pytest.mark.exhaustive
def test_costs_are_found_again_from_what_they_came_to() -> None:
    kinds = ((1, 1), (1, 4), (1, 64), (64, 1), (64, 16))
    measured = [
        Calls(images, at_once, np.arange(400.0), closed_loop(at_once, images, 400, COSTS, quiet()))
        for images, at_once in kinds
    ]
    found = fitted_costs(measured, np.empty(0))
    assert found.request_s == pytest.approx(COSTS.request_s, rel=0.1)
    assert found.image_s == pytest.approx(COSTS.image_s, rel=0.1)
    # Of one call alone nobody can tell them apart.
    assert found.wake_s + found.client_s == pytest.approx(2.1e-4, rel=0.1)


def test_a_minimum_is_found() -> None:
    def bowl(point: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> float:
        return float(np.sum((point - np.array([1.0, -2.0])) ** 2))

    assert minimum(bowl, np.zeros(2), steps=100) == pytest.approx([1.0, -2.0], abs=1e-3)


def test_a_machine_that_disturbs_makes_few_calls_much_longer() -> None:
    alone_s = np.concatenate([np.full(990, 3e-4), np.full(10, 5e-3)])
    disturbed = Disturbance(alone_s, np.random.default_rng(3))
    took = closed_loop(1, 1, 20_000, COSTS, disturbed)
    undisturbed = closed_loop(1, 1, 10, COSTS, quiet())
    assert np.median(took) == pytest.approx(undisturbed[0])
    assert np.percentile(took, 99.9) > undisturbed[0] + 4e-3


def test_calls_by_lot_over_several_workers_are_as_slow_as_over_one_at_the_same_load_each() -> None:
    rng = np.random.default_rng(5)
    capacity = COSTS.capacity_per_s(1)
    one, many = (
        several_workers(
            0.5 * capacity * workers,
            workers,
            images=1,
            requests=20_000 * workers,
            costs=COSTS,
            disturbance=quiet(),
            rng=rng,
        )
        for workers in (1, 8)
    )
    assert np.percentile(many, 99) == pytest.approx(np.percentile(one, 99), rel=0.1)


def test_a_plan_has_two_servers_at_least_and_pays_for_what_it_names() -> None:
    cost = Cost(images=64, cpu_s=3e-4, sent_bytes=50_200, answered_bytes=3_000)
    few, more, many = (dict(zip(HEAD, row, strict=True)) for row in plan_rows({"small": [cost]}))
    assert few["servers x processors"] == "2 x 1"
    # A million images a second are 15,625 requests of 0.3 ms, over 0.6 of each processor.
    assert more["processors"] == "7.8"
    assert many["servers x processors"] == "99 x 8"
    assert many["USD a month"] == f"{99 * 8 * 0.04 * 730:,.0f}"


def test_a_chart_names_its_lines_and_marks_what_was_measured() -> None:
    curves = [
        Curve("8", 0, [(1e3, 0.5), (1e4, 5.0)]),
        Curve("", 1, [(2e3, 0.6)], is_measured=True),
    ]
    drawn = svg(curves, [("one image", 0)], "a note")
    assert drawn.count("<polyline") == 1
    assert ">8</text>" in drawn
    assert drawn.count("<circle") == 2


def test_the_plan_that_is_published_is_that_of_the_costs_that_are() -> None:
    page = (REPOSITORY / "docs" / "scaling.md").read_text()
    costs = published_costs((REPOSITORY / "benchmarks" / "README.md").read_text())
    assert {name: [each.images for each in found] for name, found in costs.items()} == {
        "784-16-16-10": [1, 64, 1024],
        "784-800-10": [1, 64, 1024],
    }
    again = "benchmarks/scale.py --plan-only --output docs/scaling.md"
    assert section("plan", plan()) in page, f"run: python {again}"
