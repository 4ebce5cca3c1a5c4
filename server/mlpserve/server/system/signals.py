"""Signals to stop, or to read files again: waited for and not handled.

A handler that sets an event may, when two signals come at once, leave its waiter waiting for ever.
Signals that are blocked in all threads and waited for in one cannot be missed.
"""

import logging
import signal
from collections.abc import Callable
from threading import Event, Thread
from typing import Final

logger = logging.getLogger(__name__)

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_TOGETHER_S: Final = 0.1


def block() -> None:
    """Block the signals; before any thread is started, for threads inherit it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (*STOP_SIGNALS, signal.SIGHUP))


def wait_for_stop(reload: Callable[[], object]) -> None:
    """Wait for a signal to stop; ``block`` was called before.

    Args:
        reload: Called, in another thread, after SIGHUP, with which servers are told to read again
            what they have read. What it raises is logged, and ends nothing.
    """
    is_asked = Event()
    Thread(target=_reload_when_asked, args=(is_asked, reload), name="hangups", daemon=True).start()
    while signal.sigwait((*STOP_SIGNALS, signal.SIGHUP)) == signal.SIGHUP:
        is_asked.set()
    let_the_next_one_end_us()


def has_been_told_to_stop() -> bool:
    """Return whether a signal to stop has come by now, or in a moment; it is taken then.

    One to all processes of a group or a container ends others first.
    """
    return signal.sigtimedwait(STOP_SIGNALS, _TOGETHER_S) is not None


def let_the_next_one_end_us() -> None:
    """After a signal to stop, have the next one end the process at once.

    Whoever asks a second time does not want to wait. But signals that come together count as one,
    as when both a terminal and a supervisor send theirs.
    """
    while signal.sigtimedwait(STOP_SIGNALS, _TOGETHER_S):
        pass
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def _reload_when_asked(is_asked: Event, reload: Callable[[], object]) -> None:
    while is_asked.wait():
        is_asked.clear()  # first: who asks during a reload wants another one
        logger.info("SIGHUP: looking at certificates, tokens and models")
        try:
            reload()
        except Exception:
            logger.exception("the reload that SIGHUP asked for failed")
