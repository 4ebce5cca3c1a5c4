"""How many files a process may have open."""

import logging
import resource
from typing import Final

logger = logging.getLogger(__name__)

# Of what the system allows: some allow a billion, and programs that go through all are slow then.
_MOST: Final = 65_536


def allow_many() -> None:
    """Allow this process and those that it starts as many open files as they may need.

    A version that is served takes some, and each connection takes one. The usual limit is 1024, for
    the sake of programs that use ``select``, and may be raised by any process for itself.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(_MOST, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:  # some systems allow less than they say
        logger.info("no more than %d files may be open: %s", soft, error)
