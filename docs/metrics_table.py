"""Writes the table of all metrics into metrics.md; `make metrics`."""

from pathlib import Path
from typing import Final

from mlpserve.server.metrics.catalog import METRICS, Metric

DOCUMENT: Final = Path(__file__).parent / "metrics.md"
_BEGIN: Final = "<!-- metrics: begin -->\n"
_END: Final = "<!-- metrics: end -->\n"


def with_current_table(document: str) -> str:
    """Return a document with the table in its place."""
    before, _, rest = document.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    head = ("| metric | kind | labels | what it is |", "|---|---|---|---|")
    table = "\n".join((*head, *map(_row, METRICS)))
    return f"{before}{_BEGIN}{table}\n{_END}{after}"


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |"


if __name__ == "__main__":
    DOCUMENT.write_text(with_current_table(DOCUMENT.read_text()))
