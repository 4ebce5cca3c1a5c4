"""Fits the simulation of the queue to this machine, compares, and shows what more would do.

    .venv/bin/python benchmarks/scale.py --output docs/scaling.md

Takes a minute on two processors that have nothing else to do. Writes the section of a document,
and a chart beside it. See docs/scaling.md.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from harness.errors import BenchmarkError
from harness.machine import describe_machine
from harness.noise import NoiseMeter
from harness.tables import check_output, markdown_table, write_section, write_whole
from queueing import measurement
from queueing.chart import Curve, svg
from queueing.fitting import fitted_costs
from queueing.measurement import Calls
from queueing.plan import HEAD, plan_rows, published_costs
from queueing.simulation import (
    Costs,
    Disturbance,
    Seconds,
    closed_loop,
    open_loop,
    several_workers,
)
from servers.load import check_installed
from servers.networks import publish_random
from servers.processes import running

_SECTION: Final = "simulation"
_PLAN: Final = "plan"
_MAX_OTHERS_SHARE: Final = 0.1
_BUSY: Final = (
    "**Not to be relied on:** the machine was busy with other programs, which is what these "
    "figures, and the picture, are of. They are to be taken anew on a quiet one."
)
_PUBLISHED: Final = Path(__file__).parent / "README.md"
_EXIT_FAILED: Final = 1
_NETWORK: Final = (784, 16, 16, 10)
_PACKAGES: Final = ("numpy", "grpcio", "protobuf")
_SEED: Final = 7
# Images a request, and requests at a time. The first are what the costs are fitted to.
_FITTED: Final = ((1, 1), (1, 4), (1, 64), (64, 1), (64, 16))
_OTHERS: Final = ((1, 2), (1, 8), (1, 16), (1, 32), (64, 4), (64, 32))
_OPEN_SHARES: Final = (0.2, 0.4, 0.6, 0.8)  # of what a worker can answer
_CURVE_SHARES: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
_WORKERS: Final = (1, 2, 8, 32, 128)
_REQUESTS_OF_A_WORKER, _MIN_REQUESTS = 1000, 20_000
_SIMULATED: Final = 5000
_LARGE: Final = 64


@dataclass(frozen=True)
class Comparison:
    """A measurement beside its simulation.

    Attributes:
        calls: What was measured.
        simulated_s: How long simulated requests took.
        use: What the measurement was for: to fit, or to check.
    """

    calls: Calls
    simulated_s: Seconds
    use: str

    def row(self) -> tuple[str, ...]:
        """Return the row of a table."""
        loop = f"{self.calls.concurrency} at a time"
        if not self.calls.concurrency:
            loop = f"{self.calls.per_s:,.0f} a second"
        cells = [str(self.calls.images), loop, self.use]
        for percent in (50, 99):
            measured, simulated = self._percentiles_ms(percent)
            change = 100 * (simulated / measured - 1)
            cells += [f"{measured:.2f}", f"{simulated:.2f}", f"{change:+.0f} %"]
        return tuple(cells)

    def is_within(self, share: float, percent: int) -> bool:
        """Return whether the simulation is that near to the measurement."""
        measured, simulated = self._percentiles_ms(percent)
        return abs(simulated / measured - 1) <= share

    def _percentiles_ms(self, percent: int) -> tuple[float, float]:
        measured, simulated = (
            1000 * float(np.percentile(took_s, percent))
            for took_s in (self.calls.took_s, self.simulated_s)
        )
        return measured, simulated


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        check_installed()
        for section in (_SECTION, _PLAN):
            check_output(options.output, section)
        if options.plan_only:
            write_section(options.output, _PLAN, plan())
        else:
            _run(options.output, options.rounds, options.seconds)
    except BenchmarkError as error:
        print(f"scale.py: {error}", file=sys.stderr)
        return _EXIT_FAILED
    return 0


def _run(output: Path, rounds: int, seconds: float) -> None:
    meter = NoiseMeter()
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        publish_random(models, _NETWORK)
        command = measurement.command(models)
        with running(command, Path(folder) / "log", lambda: measurement.ask(1)):
            fitted, others, opened = _measured(rounds, seconds, meter)
    costs = fitted_costs(fitted, fitted[0].took_s)
    disturbance = Disturbance(fitted[0].took_s, np.random.default_rng(_SEED))
    compared = [
        *(_closed(each, costs, disturbance, "fitted") for each in fitted),
        *(_closed(each, costs, disturbance, "checked") for each in others),
        *(_opened(each, costs, disturbance) for each in opened),
    ]
    text = _simulation_text(compared, costs, disturbance, meter)
    print(text)
    write_section(output, _SECTION, text)
    write_section(output, _PLAN, plan())
    write_whole(output.with_suffix(".svg"), _picture(opened, costs, disturbance))


def plan() -> str:
    """Return the table of the plan, from the costs that benchmarks/README.md has."""
    return markdown_table(HEAD, plan_rows(published_costs(_PUBLISHED.read_text())))


def _measured(
    rounds: int, seconds: float, meter: NoiseMeter
) -> tuple[list[Calls], list[Calls], list[Calls]]:
    """Return the closed loops to fit to, the others, and the open loops."""
    kinds = [*_FITTED, *_OTHERS]
    # A first look says how many requests are that many seconds.
    speeds = [measurement.closed_calls(*kind, 300).per_s for kind in kinds]
    taken: list[list[Calls]] = [[] for _ in kinds]
    for _ in range(rounds):
        for calls, kind, per_s in zip(taken, kinds, speeds, strict=True):
            meter.probe()
            calls.append(measurement.closed_calls(*kind, round(per_s * seconds)))
            print(*kind, f"{calls[-1].per_s:.0f}/s", file=sys.stderr, flush=True)
    closed = [_quietest(calls) for calls in taken]
    peak_per_s = max(each.per_s for each in closed if each.images == 1)
    opened = [
        _quietest([_open(share * peak_per_s, seconds, number) for number in range(rounds)])
        for share in _OPEN_SHARES
    ]
    return closed[: len(_FITTED)], closed[len(_FITTED) :], opened


def _open(per_s: float, seconds: float, number: int) -> Calls:
    rng = np.random.default_rng(_SEED + number)
    return measurement.open_calls(1, per_s, round(per_s * 2 * seconds), rng)


def _quietest(calls: Sequence[Calls]) -> Calls:
    """Return those of the round in which the machine disturbed least, which is the quickest."""
    return min(calls, key=lambda each: statistics.median(each.took_s))


def _closed(calls: Calls, costs: Costs, disturbance: Disturbance, use: str) -> Comparison:
    took = closed_loop(calls.concurrency, calls.images, _SIMULATED, costs, disturbance)
    return Comparison(calls, took, use)


def _opened(calls: Calls, costs: Costs, disturbance: Disturbance) -> Comparison:
    """Simulate an open loop, with requests that come when those came that were measured."""
    return Comparison(
        calls, open_loop(calls.arrivals_s, calls.images, costs, disturbance), "checked"
    )


def _simulation_text(
    compared: Sequence[Comparison], costs: Costs, disturbance: Disturbance, meter: NoiseMeter
) -> str:
    head = ["images", "load", "use", "p50 ms", "simulated", "", "p99 ms", "simulated", ""]
    near = {percent: sum(each.is_within(0.2, percent) for each in compared) for percent in (50, 99)}
    within = (
        f"Within 20 %: {near[50]} of {len(compared)} medians, {near[99]} of {len(compared)} 99th "
        "percentiles."
    )
    noise = meter.noise()
    is_busy = (noise.others_share or 0.0) > _MAX_OTHERS_SHARE
    return "\n\n".join(
        (
            *([_BUSY] if is_busy else []),
            describe_machine(_PACKAGES).sentences(),
            noise.sentences(),
            within,
            markdown_table(head, [each.row() for each in compared]),
            _costs_text(costs, disturbance),
        )
    )


def _costs_text(costs: Costs, disturbance: Disturbance) -> str:
    named = ", ".join(f"{name[:-2]} {1e6 * value:.1f}" for name, value in vars(costs).items())
    return (
        f"The costs in microseconds: {named}. A worker answers at most "
        f"{costs.capacity_per_s(1):,.0f} requests of one image a second, or "
        f"{costs.capacity_per_s(_LARGE):,.0f} of {_LARGE}, where nothing disturbs it; "
        f"what did made it {disturbance.slowdown:.2f} times as slow."
    )


def _picture(opened: Sequence[Calls], costs: Costs, disturbance: Disturbance) -> str:
    rng = np.random.default_rng(_SEED)
    curves = [
        Curve(str(workers), colour, _curve(workers, images, costs, disturbance, rng))
        for colour, images in enumerate((1, _LARGE))
        for workers in _WORKERS
    ]
    points = [(each.per_s, 1000 * float(np.percentile(each.took_s, 99))) for each in opened]
    legend = [("one image a request", 0), (f"{_LARGE} images a request", 1)]
    note = "Simulated; at the upper end of each line stands how many workers there are."
    return svg([*curves, Curve("", 0, points, is_measured=True)], legend, note)


def _curve(
    workers: int, images: int, costs: Costs, disturbance: Disturbance, rng: np.random.Generator
) -> list[tuple[float, float]]:
    points = []
    for share in _CURVE_SHARES:
        per_s = share * workers * costs.capacity_per_s(images) / disturbance.slowdown
        took = several_workers(
            per_s,
            workers,
            images=images,
            requests=max(_MIN_REQUESTS, workers * _REQUESTS_OF_A_WORKER),
            costs=costs,
            disturbance=disturbance,
            rng=rng,
        )
        points.append((per_s * images, 1000 * float(np.percentile(took, 99))))
    return points


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scale.py", description="Fit the simulation of the queue, and show what more would do."
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    parser.add_argument(
        "--seconds", type=float, default=0.5, metavar="S", help="of each measurement; default: 0.5"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="a document with the section"
    )
    parser.add_argument(
        "--plan-only", action="store_true", help="measure nothing, and write the plan anew"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
