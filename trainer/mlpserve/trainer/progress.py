"""Progress displays of a training run: a terminal with a bar, plain lines, or JSON lines."""

import json
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Final

from rich.console import Console
from rich.progress import TaskID

from mlpserve.datasets.progress import Bars, Note, unshown
from mlpserve.trainer.descriptions import DataFacts, describe_data
from mlpserve.trainer.history import EpochRecord
from mlpserve.trainer.learning.recipe import Recipe
from mlpserve.trainer.learning.training import Position
from mlpserve.trainer.watching import Progress

LOG_FORMATS: Final = ("auto", "terminal", "lines", "json")
_UPDATES_PER_EPOCH: Final = 50
_MAX_STEPS_UNSHOWN: Final = 500


class Display:
    """Display of a run; this one shows nothing, and the others show what they override."""

    def work(self, title: str, unit: str) -> AbstractContextManager[Note]:
        """Show what takes long beside the training; see ``datasets.progress.shown_by``."""
        return unshown(title, unit)

    def data(self, facts: DataFacts) -> None:
        """Show what is learned from."""

    def begin(self, recipe: Recipe, *, steps: int, steps_done: int) -> None:
        """Show that the training begins.

        Args:
            recipe: How it is done.
            steps: How many steps there are, over all epochs.
            steps_done: How many of them were done before, where it goes on from a checkpoint.
        """

    def step(self, position: Position, steps: int) -> None:
        """Show a step; called after each."""

    def epoch(self, record: EpochRecord) -> None:
        """Show what an epoch found."""

    def trial_epoch(self, number: int, record: EpochRecord) -> None:
        """Show what an epoch of a trial of a sweep found."""

    def progress(self, progress: Progress) -> None:
        """Show the network as it is between two steps."""

    def end(self) -> None:
        """Show no more steps: the training is over, or has failed."""

    def event(self, name: str, text: str, **details: object) -> None:
        """Show something else.

        Args:
            name: What happened, for programs.
            text: The same as a line, for people.
            details: The facts of it, for programs.
        """

    def line(self, text: str) -> None:
        """Show a line to people; programs are told the same by an event."""

    def warn(self, text: str) -> None:
        """Show what looks like a mistake."""
        self.event("warning", f"warning: {text}")


def tutorial_line(record: EpochRecord, class_count: int, epochs: int) -> str:  # noqa: ARG001 - as ``LINES`` has it
    """Return the tutorial's line: its cost is averaged over the classes, too.

    So it begins near ln(10) / 10 = 0.230 with ten classes. Accuracy is in percent.
    """
    cost = record.train_loss / class_count
    accuracy = 100 * record.train_accuracy
    return f"iteration {record.epoch:3}: cost {cost:.6f}, accuracy {accuracy:.6f} %"


def epoch_line(record: EpochRecord, class_count: int, epochs: int) -> str:  # noqa: ARG001 - as ``LINES`` has it
    """Return the line of one epoch, which fits into 80 columns: losses in nats, then accuracies."""
    # With z, which shows no -0.0000: the offset below the logarithm makes a tiny loss negative.
    line = (
        f"epoch {record.epoch + 1}/{epochs}: loss {record.train_loss:z.4f}, "
        f"accuracy {100 * record.train_accuracy:.2f} %"
    )
    if record.validation_loss is None or record.validation_accuracy is None:
        return line
    return (
        f"{line}, validation {record.validation_loss:z.4f}, "
        f"{100 * record.validation_accuracy:.2f} %"
    )


LINES: Final[Mapping[str, Callable[[EpochRecord, int, int], str]]] = {
    "tutorial": tutorial_line,
    "epoch": epoch_line,
}


class LinesDisplay(Display):
    """Plain lines, one for each epoch that the recipe wants reported."""

    def __init__(self, print_line: Callable[[str], None]) -> None:
        self._print_line = print_line
        self._recipe: Recipe | None = None
        self._class_count = 0

    def data(self, facts: DataFacts) -> None:
        """See ``Display.data``."""
        self._class_count = facts.classes
        self._print_line(describe_data(facts))

    def begin(self, recipe: Recipe, *, steps: int, steps_done: int) -> None:  # noqa: ARG002 - lines are for epochs
        """See ``Display.begin``."""
        self._recipe = recipe

    def epoch(self, record: EpochRecord) -> None:
        """See ``Display.epoch``."""
        recipe = self._recipe
        if recipe is not None and record.epoch % recipe.report_every_epochs == 0:
            line = LINES[recipe.report_line](record, self._class_count, recipe.epochs)
            self._print_line(line)

    def line(self, text: str) -> None:
        """See ``Display.line``."""
        self._print_line(text)

    def event(self, name: str, text: str, **details: object) -> None:  # noqa: ARG002 - for people
        """See ``Display.event``."""
        self._print_line(text)


class JsonDisplay(Display):
    """One JSON object a line, with what it is about under ``event``."""

    def __init__(self, print_line: Callable[[str], None]) -> None:
        self._print_line = print_line

    def data(self, facts: DataFacts) -> None:
        """See ``Display.data``."""
        self._print("data", **asdict(facts))

    def begin(self, recipe: Recipe, *, steps: int, steps_done: int) -> None:
        """See ``Display.begin``."""
        self._print("begin", recipe=asdict(recipe), steps=steps, steps_done=steps_done)

    def epoch(self, record: EpochRecord) -> None:
        """See ``Display.epoch``; all of them, whatever the recipe wants reported."""
        self._print("epoch", **asdict(record))

    def trial_epoch(self, number: int, record: EpochRecord) -> None:
        """See ``Display.trial_epoch``."""
        self._print("trial-epoch", number=number, **asdict(record))

    def progress(self, progress: Progress) -> None:
        """See ``Display.progress``."""
        self._print("progress", **asdict(progress))

    def event(self, name: str, text: str, **details: object) -> None:
        """See ``Display.event``."""
        self._print(name, text=text, **details)

    def _print(self, event: str, **details: object) -> None:
        # JSON has no word for what is not finite, such as the loss of a network that overflows.
        known = {name: value for name, value in details.items() if not _is_infinite(value)}
        told = {"event": event, **dict.fromkeys(details), **known}
        self._print_line(json.dumps(told, default=str, allow_nan=False))


def _is_infinite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


class TerminalDisplay(LinesDisplay):
    """The lines, and below them a bar that shows the epoch, the speed and the time left."""

    def __init__(self, console: Console) -> None:
        super().__init__(
            lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)
        )
        self._bars = Bars(console)
        self._task: TaskID | None = None
        self._steps_per_epoch = 1

    def work(self, title: str, unit: str) -> AbstractContextManager[Note]:
        """Show a bar of its own; see ``Display.work``."""
        return self._bars.show(title, unit)

    def begin(self, recipe: Recipe, *, steps: int, steps_done: int) -> None:
        """See ``Display.begin``."""
        super().begin(recipe, steps=steps, steps_done=steps_done)
        self._steps_per_epoch = steps // recipe.epochs
        self._task = self._bars.begin(self._epoch_of(steps_done + 1), total=steps, done=steps_done)

    def step(self, position: Position, steps: int) -> None:  # noqa: ARG002 - ``begin`` told it
        """Move the bar, at least some fifty times an epoch."""
        every = max(1, min(_MAX_STEPS_UNSHOWN, self._steps_per_epoch // _UPDATES_PER_EPOCH))
        if self._task is None or position.steps % every:
            return
        self._bars.update(
            self._task,
            position.steps,
            description=self._epoch_of(position.steps),
            state=self._state(position, self._bars.per_second(self._task)),
        )

    def end(self) -> None:
        """See ``Display.end``."""
        if self._task is not None:
            self._bars.end(self._task)
            self._task = None

    def _epoch_of(self, step: int) -> str:
        """Return which epoch a step is of; the first step is 1."""
        epochs = 0 if self._recipe is None else self._recipe.epochs
        return f"epoch {min(epochs, 1 + (step - 1) // self._steps_per_epoch)}/{epochs}"

    def _state(self, position: Position, steps_per_s: float | None) -> str:
        """Return what an epoch has found so far, and the speed of late."""
        found = (
            f"loss {position.loss_sum / position.images:z.4f}, "
            f"accuracy {100 * position.correct / position.images:.2f} %"
        )
        if steps_per_s is None:
            return found
        images_per_step = position.images / (1 + (position.steps - 1) % self._steps_per_epoch)
        return f"{found}, {steps_per_s * images_per_step:,.0f} images/s"


def display_for(log_format: str) -> Display:
    """Return the display of one of ``LOG_FORMATS``.

    Args:
        log_format: Which one; ``auto`` is a terminal where standard output is one, else lines.
    """
    console = Console()
    if log_format == "json":
        return JsonDisplay(print)
    if log_format == "terminal" or (log_format == "auto" and console.is_terminal):
        return TerminalDisplay(console)
    return LinesDisplay(print)
