"""Errors of the data."""

from collections.abc import Iterator
from contextlib import contextmanager


class DatasetError(Exception):
    """The data cannot be used; the message says which part, what was expected and what came."""


@contextmanager
def located(*places: object) -> Iterator[None]:
    """Name the file, and the entry in it, in front of what is wrong there."""
    try:
        yield
    except DatasetError as error:
        where = ": ".join(str(place) for place in places)
        raise DatasetError(f"{where}: {error}") from error
