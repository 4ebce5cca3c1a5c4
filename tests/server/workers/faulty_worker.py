"""A worker that does, while it loads version 2 of any model, what its first argument says.

die       ends at once, each time
die once  ends at once, unless the file that the second argument names is there; it makes it
hang      never comes to an end
raise     has a fault of its own

And one that loads whatever it is to, but

start not  ends at once when it is started, as long as that file is there; it adds a byte to it
"""

import os
import sys
import threading
from pathlib import Path
from typing import Any

from mlpserve.server.models import generations, loader
from mlpserve.server.workers.worker import main

FAULTY_VERSION = 2

fault, marker = sys.argv[1:3]
if fault == "start not" and Path(marker).exists():
    with Path(marker).open("a") as file:
        file.write(".")
    os.abort()
load_checked = loader.load_checked


def load_badly(descriptor: int, key: Any, *, reproducible: bool) -> Any:
    if key.version != FAULTY_VERSION or fault == "start not":
        return load_checked(descriptor, key, reproducible=reproducible)
    if fault == "hang":
        threading.Event().wait()
    if fault == "raise":
        raise RuntimeError("a fault")
    if fault == "die" or not Path(marker).exists():
        Path(marker).touch()
        os.abort()
    return load_checked(descriptor, key, reproducible=reproducible)


setattr(generations, "load_checked", load_badly)  # noqa: B010 - it is no name of that module's
del sys.argv[1:3]
sys.exit(main())
