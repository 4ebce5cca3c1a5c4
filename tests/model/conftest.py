"""What the tests of the model part share: the rights of an ordinary user."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

NOBODY = 65534


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """Return a folder that every user can reach; into ``tmp_path`` only its owner can."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def as_ordinary_user() -> Callable[[], AbstractContextManager[None]]:
    """Return what takes root's rights away for a while; root may read and write everything."""

    @contextmanager
    def ordinary_user() -> Iterator[None]:
        own = os.geteuid()
        if own == 0:
            os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(own)

    return ordinary_user
