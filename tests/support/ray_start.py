"""Program: the command ``ray``, with the patience of tests; see ``be_patient``."""

import os
import sys
import time
from typing import Any, Final

from ray._private import services

START_LIMIT_S: Final = 240.0  # of a node, of which Ray gives it 30


def be_patient() -> None:
    """Have Ray wait for what is slow on a busy machine, but see at once that a node was killed."""
    os.environ.update(
        RAY_agent_register_timeout_ms="240000",
        RAY_py_gcs_connect_timeout_s="240",
        RAY_worker_register_timeout_s="240",
        # Checks of a node that is alive may take a minute each; those of one that is not fail.
        RAY_health_check_failure_threshold="5",
        RAY_health_check_period_ms="500",
        RAY_health_check_timeout_ms="60000",
    )
    get_node = services.get_node

    def get_started_node(*arguments: Any, **options: Any) -> Any:
        deadline_s = time.monotonic() + START_LIMIT_S
        while True:
            try:
                return get_node(*arguments, **options)
            except RuntimeError:
                if time.monotonic() > deadline_s:
                    raise

    services.get_node = get_started_node


if __name__ == "__main__":
    be_patient()
    from ray.scripts.scripts import main

    sys.exit(main())
