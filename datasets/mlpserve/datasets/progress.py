"""Progress of work that takes long: who does it notes how far it is, a program decides who sees it.

    with progress("reading train.csv") as note:
        for chunk in ...:
            note(rows_so_far, rows_in_all)

A program chooses with ``shown_by`` how it is shown; without, on standard error where that is a
terminal, else not at all.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:  # rich is of the extras, and is loaded where something is shown
    from rich.console import Console
    from rich.progress import TaskID

# Takes how much of the work is done, and how much there is in all, as far as is known by then.
Note: TypeAlias = Callable[[int, int], None]
# Shows a piece of work while the block runs: its title, and in what it is counted.
Show: TypeAlias = Callable[[str, str], AbstractContextManager[Note]]

_MEGABYTE: Final = 1e6
_DELAY_S: Final = 1.0  # what takes less is not shown
# The line must not be full: a ^C at its end would begin the next one, and the bar would stay.
_COLUMNS_BESIDE_BAR: Final = 74


@contextmanager
def progress(title: str, unit: str = "images") -> Iterator[Note]:
    """Lend a function that notes how far a piece of work is.

    Args:
        title: What is done, as in "reading train.csv".
        unit: In what it is counted.
    """
    show = _show.get() or _on_standard_error
    with show(title, unit) as note:
        yield note


@contextmanager
def shown_by(show: Show) -> Iterator[None]:
    """Show the progress of what is done in the block in another way."""
    token = _show.set(show)
    try:
        yield
    finally:
        _show.reset(token)


@contextmanager
def unshown(title: str, unit: str) -> Iterator[Note]:
    """Show nothing; see ``shown_by``."""
    del title, unit
    yield lambda _done, _total: None


class Bars:
    """Bars on a terminal, one for each piece of work that is under way.

    Nothing is left of a bar when its work is done. Lines that are printed to the same console
    appear above.
    """

    def __init__(self, console: "Console") -> None:
        from rich.progress import (  # noqa: PLC0415 - see above
            BarColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(max(4, min(40, console.width - _COLUMNS_BESIDE_BAR))),
            TextColumn("{task.fields[state]}", markup=False),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=console,
            transient=True,
        )

    @contextmanager
    def show(self, title: str, unit: str) -> Iterator[Note]:
        """Show a piece of work, once it takes over a second; see ``shown_by``."""
        began_s = time.monotonic()
        task: TaskID | None = None

        def note(done: int, total: int) -> None:
            nonlocal task
            if task is None and time.monotonic() - began_s >= _DELAY_S:
                task = self.begin(title, total=total)
            if task is not None:
                self.update(task, done, total=total, state=self._state(task, done, total, unit))

        try:
            yield note
        finally:
            if task is not None:
                self.end(task)

    def begin(self, description: str, *, total: int, done: int = 0) -> "TaskID":
        """Begin a bar."""
        task = self._progress.add_task(description, total=total, completed=done, state="")
        self._progress.start()
        return task

    def update(
        self,
        task: "TaskID",
        done: int,
        *,
        state: str,
        total: int | None = None,
        description: str | None = None,
    ) -> None:
        """Move a bar, and say something new beside it."""
        self._progress.update(
            task, completed=done, total=total, description=description, state=state
        )

    def end(self, task: "TaskID") -> None:
        """Remove a bar."""
        if len(self._progress.tasks) == 1:
            self._progress.stop()
        self._progress.remove_task(task)

    def per_second(self, task: "TaskID") -> float | None:
        """Return the speed of late, if there is one yet."""
        return next((each.speed for each in self._progress.tasks if each.id == task), None)

    def _state(self, task: "TaskID", done: int, total: int, unit: str) -> str:
        speed = self.per_second(task)
        if unit == "bytes":
            size = f"{done / _MEGABYTE:,.1f}/{total / _MEGABYTE:,.1f} MB"
            return size if speed is None else f"{size}, {speed / _MEGABYTE:,.1f} MB/s"
        return "" if speed is None else f"{speed:,.0f} {unit}/s"


@contextmanager
def _on_standard_error(title: str, unit: str) -> Iterator[Note]:
    from rich.console import Console  # noqa: PLC0415 - see above

    console = Console(stderr=True)
    with (Bars(console).show if console.is_terminal else unshown)(title, unit) as note:
        yield note


_show: ContextVar[Show | None] = ContextVar("show", default=None)
