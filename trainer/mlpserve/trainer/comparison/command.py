"""The command ``mlpserve-models compare``: its flags, its summary, and its page.

The program is the model part's, which must not import this one; it finds ``add_flags`` by its name.
"""

import argparse
import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from threadpoolctl import threadpool_limits

from mlpserve.datasets import DatasetError, Split, load_test_split
from mlpserve.datasets.flags import add_data_dir, add_read_options, read_options
from mlpserve.datasets.source import DATA_HELP
from mlpserve.model.command_line import CommandError, printable, table, user_path
from mlpserve.model.digests import check_digest
from mlpserve.model.errors import NoVersionError
from mlpserve.model.folder import WEIGHTS_FILE_NAME
from mlpserve.model.references import find_weights
from mlpserve.model.weights import Model, check_golden, load_model
from mlpserve.trainer.comparison.comparison import (
    Comparison,
    Contender,
    check_comparable,
    compare,
)
from mlpserve.trainer.comparison.figures import compared, document, verdict, warnings
from mlpserve.trainer.comparison.page import render_comparison
from mlpserve.trainer.comparison.speed import Speed, measure
from mlpserve.trainer.errors import ExportError
from mlpserve.trainer.output_files import check_output, write_output

_VERSION: Final = "NAME[:VERSION|:LABEL]"
_MAX_TIMED: Final = 1024  # images: the same again make no pass slower or faster


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command, and what it runs."""
    parser.description = (
        "Judge two versions by the same test images: which is right more often and whether that "
        "may be luck, how far their probabilities can be trusted, how fast and how large they "
        "are, and on which images they differ."
    )
    for dest, metavar, text in (("first", "A", "compared to"), ("second", "B", "compared")):
        parser.add_argument(
            dest,
            metavar=metavar,
            help=f"the version that is {text}: {_VERSION}, NAME/VERSION, the folder of a version "
            "or its weights file; NAME alone, the newest",
        )
    parser.add_argument("--data", required=True, help=DATA_HELP)
    add_data_dir(parser)
    parser.add_argument(
        "--output", type=user_path, metavar="FILE", help="write a page of all that was found, HTML"
    )
    parser.add_argument("--force", action="store_true", help="replace FILE if it is there already")
    parser.add_argument("--json", action="store_true", help="print one JSON document, for programs")
    add_read_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> Iterator[str]:
    """Compare two versions, and yield what was found.

    Raises:
        CommandError: The data cannot be used, the two cannot be compared, or the page cannot be
            written.
        ModelError: There is no such version, or its file cannot be used.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    with _as_command_error(), threadpool_limits(1):
        if options.output is not None:
            check_output(options.output, force=options.force)
        first, second = _contenders(options)
        check_comparable(first, second)
        comparison = compare(first, second, _split(options, first.model), options.data)
        models = (first.model, second.model)
        speeds = measure(models, comparison.split.images[:_MAX_TIMED], time.perf_counter)
        if options.output is not None:
            write_output(options.output, render_comparison(comparison, speeds).encode())
    if options.json:
        yield json.dumps(
            {**document(comparison, speeds), "page": options.output and str(options.output)}
        )
    else:
        yield from _summary(comparison, speeds, options.output)


def _contenders(options: argparse.Namespace) -> tuple[Contender, Contender]:
    texts = (options.first, options.second)
    paths = [find_weights(text, models=options.models) for text in texts]
    if paths[0].resolve() == paths[1].resolve():
        raise NoVersionError(
            f"expected two versions, but {texts[0]!r} and {texts[1]!r} are both {paths[0]}"
        )
    models = [_loaded(path) for path in paths]
    names = [f"{model.metadata.name}:{model.metadata.version}" for model in models]
    if names[0] == names[1]:  # of two models folders
        names = list(map(str, paths))
    first, second = (
        Contender(name, str(path), path.stat().st_size, model)
        for name, path, model in zip(names, paths, models, strict=True)
    )
    return first, second


def _loaded(path: Path) -> Model:
    model = load_model(path)
    if path.name == WEIGHTS_FILE_NAME:
        check_digest(path.parent)
    check_golden(model)
    return model


def _split(options: argparse.Namespace, model: Model) -> Split:
    return load_test_split(
        options.data,
        data_dir=options.data_dir,
        options=read_options(options),
        class_labels=model.metadata.class_labels,
        input_shape=model.metadata.input.shape,
    )


@contextmanager
def _as_command_error() -> Iterator[None]:
    """Turn the errors that the program of another part does not know into one that it does."""
    try:
        yield
    except (DatasetError, ExportError, ModuleNotFoundError) as error:
        raise CommandError(str(error)) from error
    except MemoryError as error:
        raise CommandError(f"not enough memory: {error}") from error


def _summary(comparison: Comparison, speeds: Sequence[Speed], output: Path | None) -> Iterator[str]:
    names = (comparison.first.name, comparison.second.name)
    yield f"{len(comparison):,} test images of {printable(comparison.data)}"
    yield from table(("", *names, "difference"), list(compared(comparison, speeds)))
    yield printable(verdict(comparison))
    for warning in warnings(comparison):
        yield f"warning: {printable(warning)}"
    count = f"different answers: {int(comparison.is_different.sum()):,}"
    if output is None:
        yield f"{count}; --output FILE writes a page that shows them, and all else that was found"
    else:
        yield f"{count}; see {printable(str(output))}"
