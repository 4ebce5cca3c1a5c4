"""Threads that serve: started before they are needed, and missed at once where one dies."""

import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Thread
from typing import Any, Final
from weakref import WeakSet

from mlpserve.server.errors import StartError

logger = logging.getLogger(__name__)

EXIT_THREAD_DIED: Final = 3
_vital: Final[WeakSet[Thread]] = WeakSet()


def started_pool(threads: int, name: str) -> ThreadPoolExecutor:
    """Return a pool all of whose threads are there already, so that none has to be started later.

    Args:
        threads: How many.
        name: How their names begin.

    Raises:
        StartError: The system does not give this process so many.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    all_there = Barrier(threads)
    try:
        met = [pool.submit(all_there.wait) for _ in range(threads)]
    except RuntimeError as error:
        all_there.abort()
        pool.shutdown(wait=False)
        raise StartError(f"{threads} threads are needed for requests: {error}") from error
    for each in met:
        each.result()
    return pool


def end_process_with(thread: Thread) -> None:
    """Have the process end at once where this thread dies of an error; see ``watch_threads``."""
    _vital.add(thread)


def watch_threads() -> None:
    """Have this process end where a thread dies of an error without which it serves nobody.

    Whoever has started it, a supervisor or an orchestrator, starts another. It would go on
    otherwise, accept connections, and answer none.
    """
    log_death = threading.excepthook

    def died(args: Any) -> None:  # noqa: ANN401 - a tuple with names that has no public type
        if args.thread not in _vital:
            log_death(args)
            return
        try:
            error = args.exc_value
            logger.critical(
                "the thread %s died; so does the process", args.thread.name, exc_info=error
            )
            for handler in logging.root.handlers:
                handler.flush()
        finally:
            os._exit(EXIT_THREAD_DIED)

    threading.excepthook = died
