"""Which adapter is attacked: the one that is used; with `make check` the other one as well."""

import pytest


@pytest.fixture(params=["fast lane", pytest.param("public API", marks=pytest.mark.exhaustive)])
def adapter(request: pytest.FixtureRequest) -> str:
    """Return which adapter a server uses."""
    name: str = request.param
    return name
