"""Report of the training benchmark: Markdown for readers, JSON for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from harness.figures import Spread
from harness.machine import Machine
from harness.noise import Noise
from harness.tables import markdown_table
from trainers.contest import UNSTABLE_ITERATIONS, CostDifference, Measured
from trainers.results import Row

_GIGA: Final = 1e9
_NOTHING: Final = "-"
# The fast form of the seed recipe may come apart from the exact one by so much before the unstable
# iterations, and at the end.
MAX_COST_DIFFERENCE: Final = 2e-4


@dataclass(frozen=True)
class Report:
    """All that one run found.

    Attributes:
        machine: Where it ran.
        noise: What disturbed it.
        conditions: The data and how much of it was done, as a sentence.
        missing: What to install for each library that could not be measured, by its title.
        libraries: A row for each library in each setting.
        seed: A row for each form of the seed recipe.
        peaks: Operations per second of the sgemm, by the number of threads.
        cost_difference: The largest one between the two forms of the seed recipe; None where that
            was not asked.
        measured: Everything, as it was measured.
    """

    machine: Machine
    noise: Noise
    conditions: str
    missing: Mapping[str, str]
    libraries: Sequence[Row]
    seed: Sequence[Row]
    peaks: Mapping[int, Spread]
    cost_difference: CostDifference | None
    measured: Measured

    @property
    def holds(self) -> bool:
        """Return whether the fast form follows the exact one, as far as that was asked."""
        found = self.cost_difference
        return found is None or max(found.before, found.at_the_end) <= MAX_COST_DIFFERENCE

    def markdown(self) -> str:
        """Return the report for readers."""
        parts = [
            self.machine.sentences(),
            self.conditions,
            self.noise.sentences(),
            *(
                f"{title} is not installed and so not measured: `pip install {package}`."
                for title, package in self.missing.items()
            ),
            *([library_table(self.libraries)] if self.libraries else []),
            *_peak_sentences(self.peaks),
            *([seed_table(self.seed)] if self.seed else []),
            *self._cost_sentences(),
        ]
        return "\n\n".join(parts)

    def as_json(self) -> dict[str, Any]:
        """Return the report for programs, with every single measurement."""
        return {
            "machine": asdict(self.machine),
            "noise": asdict(self.noise),
            "conditions": self.conditions,
            "missing": dict(self.missing),
            "libraries": [asdict(row) for row in self.libraries],
            "seed": [asdict(row) for row in self.seed],
            "sgemm_operations_per_s": {key: asdict(peak) for key, peak in self.peaks.items()},
            "cost_difference": self.cost_difference and asdict(self.cost_difference),
            "measured": [
                {"task": asdict(task), "rounds": [asdict(outcome) for outcome in outcomes]}
                for task, outcomes in self.measured.items()
            ],
        }

    def _cost_sentences(self) -> list[str]:
        if self.cost_difference is None:
            return []
        found, relation = self.cost_difference, "within" if self.holds else "BEYOND"
        sentence = (
            "The fast form of the seed recipe follows the cost of the exact one to "
            f"{found.before:.1e} before iteration {UNSTABLE_ITERATIONS.start} and to "
            f"{found.at_the_end:.1e} at the end, {relation} the limit of "
            f"{MAX_COST_DIFFERENCE:.0e}. In iterations {UNSTABLE_ITERATIONS.start} to "
            f"{UNSTABLE_ITERATIONS.stop - 1}, in which the learning rate is too high and "
            f"any rounding grows, it comes off by up to {found.during:.1e}."
        )
        return [sentence]


def library_table(rows: Sequence[Row]) -> str:
    """Return the rows of the libraries as Markdown."""
    headings = ("network", "threads", "library", "s per epoch", "times ours", "of sgemm peak")
    return markdown_table(
        (*headings, "test accuracy"),
        [
            (
                row.network,
                str(row.threads),
                row.title,
                row.seconds.text(3),
                _times_ours(row),
                _NOTHING if row.peak_share is None else f"{100 * row.peak_share.median:.0f} %",
                _NOTHING if row.test_accuracy is None else f"{100 * row.test_accuracy:.2f} %",
            )
            for row in rows
        ],
    )


def seed_table(rows: Sequence[Row]) -> str:
    """Return the rows of the seed recipe as Markdown."""
    return markdown_table(
        ("seed recipe", "threads", "ms per iteration", "times our fast form"),
        [
            (row.title, str(row.threads), row.seconds.text(1, scale=1000), _times_ours(row))
            for row in rows
        ],
    )


def _times_ours(row: Row) -> str:
    # Ours against itself is 1 in every round.
    return "1" if row.times_ours == Spread(1.0, 1.0, 1.0) else row.times_ours.text(2)


def _peak_sentences(peaks: Mapping[int, Spread]) -> list[str]:
    if not peaks:
        return []
    figures = "; ".join(
        f"{threads} thread{'s' if threads > 1 else ''} {peak.text(0, scale=1 / _GIGA)} GFLOP/s"
        for threads, peak in peaks.items()
    )
    return [f"The sgemm peak, measured beside each of them by NumPy: {figures}."]
