"""The program ``mlpserve-predict``: predicts, or runs one of its commands; returns an exit code."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from mlpserve.client.predict.bench import main as bench_main
from mlpserve.client.predict.command import main as predict_main

# A file of one of these names is ./NAME.
_COMMANDS: Final[Mapping[str, Callable[[Sequence[str]], int]]] = {"bench": bench_main}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the first argument names, or else predict; return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in _COMMANDS:
        return _COMMANDS[arguments[0]](arguments[1:])
    return predict_main(arguments)


if __name__ == "__main__":
    sys.exit(main())
