"""``mlpserve-models sync``: keeps a folder equal to an object store.

Ends on SIGTERM and SIGINT, in the midst of a copy too, and looks at once on SIGHUP. A program that
runs this one gives it the URL, which may hold secrets, on standard input, and with ``--until-eof``
has it end when that input does; the first line that it prints says that the first look has ended.
Needs no NumPy.
"""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import Enum, auto
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Final, TypeAlias

from mlpserve.model.command_line import EXIT_INTERRUPTED, JsonFormatter, TextFormatter
from mlpserve.model.errors import SyncError
from mlpserve.model.sync.follower import Follower
from mlpserve.model.sync.synchronizer import Synchronizer
from mlpserve.model.sync.urls import is_url, shown

_FROM_INPUT: Final = "-"
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_BYTES_PER_MB: Final = 1 << 20
_STANDARD_INPUT: Final = 0  # its descriptor
_EXIT_STOPPED: Final = 0


class _Event(Enum):
    LOOK = auto()  # somebody asks for one
    LOOKED = auto()
    STOP = auto()


_Events: TypeAlias = SimpleQueue[_Event]


def sync(options: argparse.Namespace) -> Iterator[str]:
    """Keep a folder equal to a store until a signal comes, or only once; yield what it holds.

    Raises:
        SyncError: The URL or the folder cannot be used; or, with ``--once``, they are not equal.
        KeyboardInterrupt: A signal came before the only look ended.
    """
    url = _url(options.url)
    # Before any thread is started, for threads inherit it; and in none may they be missed.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    _log_to_stderr(is_json=options.log_format == "json")
    max_weights_bytes = options.max_version_mb * _BYTES_PER_MB
    synchronizer = Synchronizer(url, options.folder, max_weights_bytes=max_weights_bytes)
    events = _Events()
    looked = partial(events.put, _Event.LOOKED)
    follower = Follower(synchronizer, period_s=options.period_s, on_look=looked)
    _start_thread(_forward_signals, events)
    if options.until_eof:
        _start_thread(_forward_eof, events)
    follower.start()
    answer = _once if options.once else _until_stopped
    yield from answer(events, synchronizer, follower)


def _once(events: _Events, synchronizer: Synchronizer, follower: Follower) -> Iterator[str]:
    while (event := events.get()) is _Event.LOOK:
        pass  # it is under way
    _stop(follower, exit_code=EXIT_INTERRUPTED)
    if event is _Event.STOP:
        raise KeyboardInterrupt
    if synchronizer.difference:
        raise SyncError(synchronizer.difference)
    yield _summary(synchronizer)


def _until_stopped(
    events: _Events, synchronizer: Synchronizer, follower: Follower
) -> Iterator[str]:
    has_looked = False
    while (event := events.get()) is not _Event.STOP:
        if event is _Event.LOOK:
            follower.look_soon()
        elif not has_looked:
            has_looked = True
            yield _summary(synchronizer)
    _stop(follower, exit_code=_EXIT_STOPPED)


def _stop(follower: Follower, *, exit_code: int) -> None:
    # Libraries of stores have threads of their own for which Python would wait.
    if not follower.stop():
        os._exit(exit_code)


def _url(given: str) -> str:
    url = sys.stdin.readline().strip() if given == _FROM_INPUT and sys.stdin else given
    if not is_url(url):
        raise SyncError(f"URL: expected one, as in s3://bucket/models, got {shown(url)[:200]!r}")
    return url


def _summary(synchronizer: Synchronizer) -> str:
    keys = synchronizer.copy.version_keys()
    models = {key.name for key in keys}
    counts = f"versions: {len(keys)}, of models: {len(models)}"
    return f"{synchronizer.copy.folder}: {counts}; copied from {synchronizer.store}"


def _start_thread(target: Callable[[_Events], None], events: _Events) -> None:
    Thread(target=target, args=(events,), daemon=True).start()


def _forward_signals(events: _Events) -> None:
    while True:
        is_hangup = signal.sigwait(_SIGNALS) == signal.SIGHUP
        events.put(_Event.LOOK if is_hangup else _Event.STOP)


def _forward_eof(events: _Events) -> None:
    with suppress(OSError):
        # Where it was closed, its descriptor may be another file's by now.
        while sys.stdin is not None and os.read(_STANDARD_INPUT, 1024):
            pass
    events.put(_Event.STOP)


def _log_to_stderr(*, is_json: bool) -> None:
    logging.raiseExceptions = False  # a line that cannot be written is dropped
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if is_json else TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
