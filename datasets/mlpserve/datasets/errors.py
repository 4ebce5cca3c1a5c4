"""Errors of the data."""


class DatasetError(Exception):
    """The data cannot be used; the message says which part, what was expected and what came."""
