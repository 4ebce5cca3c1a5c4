"""What a training run prints while it goes on."""

from collections.abc import Callable, Mapping
from typing import Final

from mlpserve.trainer.learning.training import EpochReport


def tutorial_line(report: EpochReport, class_count: int) -> str:
    """Return the tutorial's line: its cost is averaged over the classes, too.

    So it begins near ln(10) / 10 = 0.230 with ten classes. Accuracy is in percent.
    """
    cost = report.loss / class_count
    return f"iteration {report.epoch:3}: cost {cost:.6f}, accuracy {100 * report.accuracy:.6f} %"


def epoch_line(report: EpochReport, class_count: int) -> str:  # noqa: ARG001 - as above
    """Return the line of one epoch: the loss in nats, the accuracy in percent."""
    return (
        f"epoch {report.epoch + 1}/{report.epochs}: loss {report.loss:.4f}, "
        f"training accuracy {100 * report.accuracy:.2f} %"
    )


LINES: Final[Mapping[str, Callable[[EpochReport, int], str]]] = {
    "tutorial": tutorial_line,
    "epoch": epoch_line,
}
