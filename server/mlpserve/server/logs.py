"""Where a server's log goes."""

import logging
import sys


def log_to_stderr() -> None:
    """Log to standard error, a line an event."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    # It logs each change of a file, which says nothing of what becomes of it.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
