"""Report of a run of the serving benchmark, as Markdown for readers and JSON for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from harness.figures import Spread, ratios
from harness.machine import Machine
from harness.noise import Noise
from harness.tables import markdown_table
from servers.contest import Cell, Found, Measurement
from servers.participants import OURS, PARTICIPANTS

_MILLISECONDS: Final = 1000.0
_MICROSECONDS: Final = 1e6
_MEGABYTE: Final = 1e6


@dataclass(frozen=True)
class Report:
    """All that one run found.

    Attributes:
        machine: Where it ran.
        noise: What disturbed it.
        conditions: How much was done, as a sentence.
        missing: The title and package of each peer that is not installed.
        found: Everything that was measured.
    """

    machine: Machine
    noise: Noise
    conditions: str
    missing: Mapping[str, str]
    found: Found

    def markdown(self) -> str:
        """Return the report for readers."""
        parts = [self.machine.sentences(), self.conditions, self.noise.sentences()]
        if self.missing:
            parts.append(f"Not installed and so not measured: {', '.join(self.missing)}.")
        for cell in dict.fromkeys(Cell(c.network, c.batch, 0) for c, _ in self.found.cells):
            sizes = "-".join(map(str, cell.network))
            parts.append(f"**{sizes}, {cell.batch} image(s) a request.** {self._ceiling(cell)}")
            parts.append(self._table(cell))
        parts.append(self._start_table())
        return "\n\n".join(parts)

    def as_json(self) -> dict[str, Any]:
        """Return the report for programs, with every single measurement."""
        return {
            "machine": asdict(self.machine),
            "noise": asdict(self.noise),
            "conditions": self.conditions,
            "missing": dict(self.missing),
            "cells": [
                {"cell": asdict(cell), "server": name, "rounds": [asdict(one) for one in rounds]}
                for (cell, name), rounds in self.found.cells.items()
            ],
            "starts": [
                {"network": network, "server": name, **asdict(start)}
                for (network, name), start in self.found.starts.items()
            ],
            "in_process_images_per_s": [
                {"network": network, "batch": batch, "threads": threads, "rounds": rates}
                for (network, batch, threads), rates in self.found.in_process.items()
            ],
        }

    def _ceiling(self, cell: Cell) -> str:
        limits = [
            f"{Spread.of(rates).text(0)} images/s on {threads} thread{'s' if threads > 1 else ''}"
            for (network, batch, threads), rates in self.found.in_process.items()
            if (network, batch) == (cell.network, cell.batch)
        ]
        return f"The forward pass alone: {', '.join(limits)}."

    def _table(self, table: Cell) -> str:
        headings = ("at a time", "server", "images/s", "ours is faster by", "p50 ms", "p99 ms")
        rows = [
            _row(cell, name, rounds, self.found.cells[cell, OURS])
            for (cell, name), rounds in self.found.cells.items()
            if (cell.network, cell.batch) == (table.network, table.batch)
        ]
        return markdown_table((*headings, "server CPU us a request"), rows)

    def _start_table(self) -> str:
        rows = [
            (
                "-".join(map(str, network)),
                PARTICIPANTS[name].title,
                f"{start.start_s:.2f}",
                f"{start.memory_bytes / _MEGABYTE:.0f}",
            )
            for (network, name), start in self.found.starts.items()
        ]
        return markdown_table(("network", "server", "s to the first answer", "MB resident"), rows)


def _row(
    cell: Cell, name: str, rounds: Sequence[Measurement], ours: Sequence[Measurement]
) -> tuple[str, ...]:
    rates = [one.images_per_s for one in rounds]
    faster = Spread.of(ratios([one.images_per_s for one in ours], rates))
    return (
        cell.at_a_time,
        PARTICIPANTS[name].title,
        Spread.of(rates).text(0),
        "1" if name == OURS else faster.text(2),
        Spread.of([one.p50_s for one in rounds]).text(2, scale=_MILLISECONDS),
        Spread.of([one.p99_s for one in rounds]).text(2, scale=_MILLISECONDS),
        Spread.of([one.cpu_s for one in rounds]).text(0, scale=_MICROSECONDS),
    )
