"""Settings of all tests on clusters."""

import os
from pathlib import Path

import pytest

# Before Ray is imported, which reads it then: nothing is reported to Ray's makers.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Clusters of tests listen on the loopback only, and have no tokens.
os.environ["RAY_AUTH_MODE"] = "disabled"

LIMIT_S = 900  # of a test: a busy machine takes minutes to start a cluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests here the time that clusters take; those with limits of their own keep them."""
    for item in items:
        if Path(__file__).parent in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LIMIT_S))
