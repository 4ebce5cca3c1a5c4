"""Signals that say to stop, waited for and not handled.

A handler that sets an event may, when two signals come at once, leave its waiter waiting for ever.
Signals that are blocked in all threads and waited for in one cannot be missed.
"""

import signal
from collections.abc import Iterable
from typing import Final

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_TOGETHER_S: Final = 0.1


def block(others: Iterable[signal.Signals] = ()) -> None:
    """Block the signals; before any thread is started, for threads inherit it.

    SIGHUP, with which other servers are told to read their certificates again, is ignored: changed
    ones are found without it.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {*STOP_SIGNALS, *others})


def wait_for_stop() -> None:
    """Wait for a signal to stop; ``block`` was called before."""
    signal.sigwait(STOP_SIGNALS)
    let_the_next_one_end_us()


def let_the_next_one_end_us() -> None:
    """After a signal to stop, have the next one end the process at once.

    Whoever asks a second time does not want to wait. But signals that come together are one wish,
    as when both a terminal and a supervisor send theirs.
    """
    while signal.sigtimedwait(STOP_SIGNALS, _TOGETHER_S):
        pass
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
