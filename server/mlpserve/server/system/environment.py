"""Environment of a process: settled before it has threads.

Where one thread sets a variable while another one reads any, the C library may read memory that it
has freed, and the process ends with signal 11. Threads read variables where nobody sees it: to tell
the local time, to resolve a name, in a preloaded library.
"""

import os
from collections.abc import Mapping


def settle(variables: Mapping[str, str]) -> None:
    """Set variables, and import the libraries that set some while they are imported.

    To be called before any thread is started, but after signals are blocked: NumPy's library of
    linear algebra starts threads.

    Args:
        variables: What these and other libraries are to read.
    """
    os.environ.update(variables)
    import numpy  # noqa: F401, ICN001, PLC0415
    import threadpoolctl  # noqa: F401, PLC0415
