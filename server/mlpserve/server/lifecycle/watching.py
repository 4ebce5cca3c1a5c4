"""Follows the models folder: looks when the file system says that it changed, and once a second.

File systems of networks and of some containers say nothing, a folder that is missing cannot, and
who writes into a version that exists is not told of. So the looks that nobody asked for find the
rest, and are what can be relied on.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Final, TypeAlias

from mlpserve.model.folder import is_model_name

logger = logging.getLogger(__name__)

_PERIOD_S: Final = 1.0
# Changes that come soon after one another are looked at together, but within this time.
_LONGEST_WAIT_MS: Final = 250
_QUIET_MS: Final = 50

# The folders whose names are watched, each with what tells it from another that takes its place.
_Folders: TypeAlias = tuple[tuple[Path, int, int], ...]


class Watcher:
    """Calls for a look at the models folder, from a thread of its own.

    Args:
        models: The folder; may be missing, come and go.
        look: Looks; what it raises is logged, and ends nothing.
    """

    def __init__(self, models: Path, look: Callable[[], object]) -> None:
        self._models = models
        self._look = look
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="watcher", daemon=True)
        self._last_problem = ""

    def start(self) -> None:
        """Begin to watch; the first look comes at once."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; return when no look is under way any more."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            folders = self._folders()
            for _ in self._calls(folders):
                self._look_once()
                if self._stopping.is_set() or self._folders() != folders:
                    break  # to watch other folders

    def _look_once(self) -> None:
        try:
            self._look()
        except Exception as error:  # the next look may go well; what is served goes on
            # A problem that lasts would otherwise fill the log.
            if repr(error) != self._last_problem:
                logger.exception("the models folder could not be followed; it is tried again")
            self._last_problem = repr(error)
        else:
            self._last_problem = ""

    def _folders(self) -> _Folders:
        """Return the models folder and the folders of its models, as far as they are there.

        What happens inside of versions is not watched: there may be thousands.
        """
        found = [self._models]
        with suppress(OSError):  # without it, there is nothing to watch
            found += [Path(entry) for entry in os.scandir(self._models) if _is_model(entry)]
        return tuple(known for path in sorted(found) if (known := _identified(path)))

    def _calls(self, folders: _Folders) -> Iterator[None]:
        """Yield when it is time to look."""
        yield  # whatever happened before we watched
        while not self._stopping.wait(0):
            try:
                yield from self._events(folders)
            except OSError as error:
                logger.info("no events of the file system: %s; looking once a second", error)
            if not self._stopping.wait(_PERIOD_S):
                yield

    def _events(self, folders: _Folders) -> Iterator[None]:
        """Yield at each change, and once a second; end where nothing can be watched."""
        # Not before it is needed: it takes a while.
        import watchfiles  # noqa: PLC0415

        if not folders:
            return
        for _ in watchfiles.watch(
            *(path for path, _, _ in folders),
            watch_filter=None,
            debounce=_LONGEST_WAIT_MS,
            step=_QUIET_MS,
            stop_event=self._stopping,
            rust_timeout=round(1000 * _PERIOD_S),
            yield_on_timeout=True,
            raise_interrupt=False,
            recursive=False,
        ):
            yield


def _is_model(entry: "os.DirEntry[str]") -> bool:
    try:
        return is_model_name(entry.name) and entry.is_dir()
    except OSError:
        return False


def _identified(path: Path) -> tuple[Path, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return path, status.st_dev, status.st_ino
