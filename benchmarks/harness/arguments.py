"""Command-line flags of all benchmarks."""

import argparse
from collections.abc import Iterable


def positive(text: str) -> int:
    """Read a number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text!r}")
    return int(text)


def participants(text: str, known: Iterable[str], *, ours: str) -> list[str]:
    """Read names with commas between them; return them, and ours, in the order of the known ones.

    Ours is always among them, because the ratios are to it.
    """
    names, in_order = text.split(","), list(known)
    if unknown := set(names) - set(in_order):
        raise argparse.ArgumentTypeError(
            f"expected some of {', '.join(in_order)}, got {', '.join(sorted(unknown))}"
        )
    return [name for name in in_order if name in {ours, *names}]


def connections_and_calls(text: str) -> tuple[int, int]:
    """Read how many connections there are, and how many calls each carries: "32", or "8x8"."""
    connections, _, calls = text.partition("x")
    return positive(connections), positive(calls or "1")
