"""Watcher of the models folder: has it reloaded at each change, and once a second.

File systems of networks and of some containers tell of no change, a folder that is missing cannot,
and nobody tells of writes into a version that exists. So it is polled as well, and that is what can
be relied on.
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

DEFAULT_PERIOD_S: Final = 1.0
# Changes that come soon after one another are taken together, but within this time.
_MAX_WAIT_MS: Final = 250
_QUIET_MS: Final = 50
_MAX_JOIN_S: Final = 1.0

# The folders whose names are watched, each with what tells it from another that takes its place.
_Folders: TypeAlias = tuple[tuple[Path, int, int], ...]


class Watcher:
    """Calls for reloads of the models folder, from a thread of its own.

    Args:
        models: The folder; may be missing, come and go.
        reload: Reloads it; what it raises is logged, and ends nothing.
        period_s: So long after a reload the next one comes, whether anything has changed or not.
    """

    def __init__(
        self, models: Path, reload: Callable[[], object], *, period_s: float = DEFAULT_PERIOD_S
    ) -> None:
        self._models = models
        self._reload = reload
        self._period_s = period_s
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="watcher", daemon=True)
        self._last_failure = ""
        self._is_without_events = False

    def start(self) -> None:
        """Begin to watch; the first reload comes at once."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; a reload that takes long is not waited for."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_MAX_JOIN_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            folders = self._folders()
            self._reload_once()
            for _ in self._changes(folders):
                self._reload_once()
                if self._folders() != folders:
                    break  # to watch these instead

    def _reload_once(self) -> None:
        try:
            self._reload()
        except Exception as error:  # the next one may go well; what is served goes on
            # A problem that lasts would fill the log.
            if repr(error) != self._last_failure:
                logger.exception("the models folder could not be reloaded; it is tried again")
            self._last_failure = repr(error)
        else:
            self._last_failure = ""

    def _folders(self) -> _Folders:
        """Return the models folder and the folders of its models, as far as they are there.

        What happens inside of versions is not watched: there may be thousands.
        """
        found = [self._models]
        with suppress(OSError):  # without it, there is nothing to watch
            found += [Path(entry) for entry in os.scandir(self._models) if _is_model(entry)]
        return tuple(known for path in sorted(found) if (known := _identified(path)))

    def _changes(self, folders: _Folders) -> Iterator[None]:
        """Yield at each change and after each period; end after one where none can be seen."""
        if folders:
            try:
                yield from self._events(folders)
            except Exception as error:  # noqa: BLE001 - polling is left
                if not self._is_without_events:
                    logger.info("the file system tells of no change: %s", error)
                self._is_without_events = True
        self._stopping.wait(self._period_s)

    def _events(self, folders: _Folders) -> Iterator[None]:
        # Not before it is needed: it takes a while.
        import watchfiles  # noqa: PLC0415

        for _ in watchfiles.watch(
            *(path for path, _, _ in folders),
            watch_filter=None,
            debounce=_MAX_WAIT_MS,
            step=_QUIET_MS,
            stop_event=self._stopping,
            rust_timeout=round(1000 * self._period_s),
            yield_on_timeout=True,
            raise_interrupt=False,
            recursive=False,
        ):
            yield  # whatever has changed, all is reloaded


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
