"""Flags of commands that read data: where it is, and what else is said about it."""

import argparse
import os

from mlpserve.datasets.paths import user_path
from mlpserve.datasets.raw import ReadOptions


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Add the flag ``--data-dir``, which says where the MNIST files are."""
    parser.add_argument(
        "--data-dir",
        type=user_path,
        default=os.environ.get("MLPSERVE_DATA_DIR") or None,
        help="folder with the four MNIST files; default: $MLPSERVE_DATA_DIR, else the user's cache",
    )


def add_read_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say more about data than where it is; see ``read_options``."""
    group = parser.add_argument_group("what is said about data of your own")
    group.add_argument(
        "--test-data",
        metavar="DATA",
        help="other data as for --data, to test by; default: the data's own test images, or else "
        "a tenth of each class, held out",
    )
    group.add_argument(
        "--label-column",
        metavar="NAME",
        help="the column of a table with the labels, by its name, or by its place from 0 where "
        "there are no names; default: label, class, target, y or digit, or else the first",
    )
    group.add_argument(
        "--shape",
        type=_shape,
        metavar="HxW",
        help="of one image, as in 28x28, or 32x32x3 for pictures in colour; pictures are brought "
        "to it; default: as the data has it, or a square",
    )
    group.add_argument(
        "--transpose", action="store_true", help="swap rows and columns, as EMNIST's images need"
    )
    group.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="leave out pictures that cannot be read; default: name them all, and stop",
    )
    group.add_argument(
        "--cache-dir",
        type=user_path,
        metavar="DIR",
        help="where a table that is larger than memory is kept as an array; default: beside it",
    )


def read_options(options: argparse.Namespace) -> ReadOptions:
    """Return what the flags of ``add_read_options`` say."""
    return ReadOptions(
        test_data=options.test_data,
        label_column=options.label_column,
        shape=options.shape,
        transpose=options.transpose,
        skip_unreadable=options.skip_unreadable,
        cache_dir=options.cache_dir,
    )


def given_flags(options: ReadOptions) -> list[str]:
    """Return the flags of which ``read_options`` makes these options, to show a command."""
    values = {
        "--test-data": options.test_data,
        "--label-column": options.label_column,
        "--shape": options.shape and "x".join(map(str, options.shape)),
        "--cache-dir": options.cache_dir,
    }
    switches = {"--transpose": options.transpose, "--skip-unreadable": options.skip_unreadable}
    return [
        *(str(part) for pair in values.items() if pair[1] is not None for part in pair),
        *(switch for switch, is_set in switches.items() if is_set),
    ]


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(size) for size in text.lower().replace(",", "x").split("x"))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        message = f"expected sizes with x between them, as in 28x28, got {text!r}"
        raise argparse.ArgumentTypeError(message)
    return shape
