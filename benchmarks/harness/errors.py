"""Errors of the benchmarks."""


class BenchmarkError(Exception):
    """A benchmark cannot begin or go on; the message says why and what to do."""
