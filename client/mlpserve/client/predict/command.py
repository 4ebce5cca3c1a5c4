"""Predicting: images of files, folders, tables or a data set in, a row for each image out."""

import argparse
import hashlib
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

try:
    from mlpserve.client.predict.allocator import keep_freed_memory
    from mlpserve.client.predict.batches import Source, Wanted, read_batches
    from mlpserve.client.predict.connection import add_model, add_server, connected_client
    from mlpserve.client.predict.files import ACCEPTED
    from mlpserve.client.predict.inputs import Inputs, SplitSource
    from mlpserve.client.predict.outputs import RESERVED, WRITERS, Form
    from mlpserve.client.predict.pictures import Look
    from mlpserve.client.predict.predictors import Predictor, ServedModel
    from mlpserve.client.predict.results import (
        FILE_FORMS,
        FileResults,
        Results,
        ResultsError,
        StreamResults,
        Tally,
    )
    from mlpserve.client.predict.run import Speed, run
    from mlpserve.datasets import DatasetError, load_test_split
    from mlpserve.datasets.flags import add_data_dir
    from mlpserve.datasets.raw import ReadOptions
    from mlpserve.datasets.source import DATASETS
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"mlpserve-predict needs {missing.name}: pip install 'mlpserve[predict]'"
    ) from missing

from mlpserve.client import ClientError, UnavailableError
from mlpserve.model.command_line import (
    EXIT_INTERRUPTED,
    NoHomeError,
    OutputError,
    failed,
    printable,
    standard_output,
    user_path,
)

PROGRAM: Final = "mlpserve-predict"
EXIT_SOME_FAILED: Final = 3
_ENDINGS: Final = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet", ".pq": "parquet"}
_EPILOG: Final = f"""\
exit status:
  0    all images have their row
  1    nothing more could be done: a sentence says why
  2    the command line is wrong
  {EXIT_SOME_FAILED}    some inputs could not be read, and are named at the end; the rest has rows
  {EXIT_INTERRUPTED}  it was interrupted

examples:
  mlpserve-predict digit.png
  mlpserve-predict test.csv --output answers.csv
  mlpserve-predict scans/ --preprocess --output answers.jsonl
  mlpserve-predict --models models big.parquet --output answers.parquet --resume
"""


class _Destination(NamedTuple):
    """Where rows go: a form, and a file; standard output where there is none."""

    form: str
    path: Path | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code, as ``--help`` describes it."""
    parser = _parser()
    options = parser.parse_intermixed_args(arguments)
    destination = _destination(parser, options)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    keep_freed_memory()
    code = 0
    try:
        with standard_output():
            code = _predict(options, destination)
    except UnavailableError as error:
        return _failed(f"{error}; is mlpserve-serve running there?")
    except (ClientError, DatasetError, OutputError, ResultsError) as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return code


def _predict(options: argparse.Namespace, destination: _Destination) -> int:
    with ExitStack() as opened:
        predictor = opened.enter_context(_predictor(options))
        sources = _sources(options, predictor, opened.enter_context(Inputs(_look(options))))
        results = opened.enter_context(_results(options, destination, predictor, sources))
        wanted = Wanted(
            predictor.input_shape,
            predictor.class_labels,
            label_column=options.label_column,
            id_column=options.id_column,
            value_range=predictor.value_range,
        )
        speed = Speed(sources, done=results.tally.rows)
        items = read_batches(sources, wanted, start=results.tally.position)
        run(items, predictor, results, speed, is_strict=options.strict)
    _tell(options, destination, predictor, results.tally, speed)
    return _exit_code(results.tally, len(sources))


@contextmanager
def _predictor(options: argparse.Namespace) -> Iterator[Predictor]:
    if options.models is None:
        with connected_client(options) as client:
            yield ServedModel(client, options)
        return
    # Here, so that asking a server costs nothing of it.
    from mlpserve.client.predict.local import LocalModel  # noqa: PLC0415

    yield LocalModel(options.models, options)


def _sources(options: argparse.Namespace, predictor: Predictor, inputs: Inputs) -> list[Source]:
    if not options.data:
        return inputs.sources(options.files)
    name = options.data if options.data != "auto" else _data_of_model(predictor)
    if name in DATASETS:
        return [SplitSource(name, load_test_split(name, data_dir=options.data_dir))]
    said = ReadOptions(
        label_column=options.label_column,
        shape=predictor.input_shape,
        transpose=options.transpose,
        skip_unreadable=not options.strict,
    )
    split = load_test_split(
        name, data_dir=options.data_dir, options=said, class_labels=predictor.class_labels
    )
    return [SplitSource(name, split)]


def _data_of_model(predictor: Predictor) -> str:
    # Only names of ours: a server must not choose which of our files are opened, and sent to it.
    if predictor.data_name not in DATASETS:
        raise DatasetError(
            f"--data auto: the model was trained on {predictor.data_name!r}; give that data with "
            "--data PATH"
        )
    return predictor.data_name


def _look(options: argparse.Namespace) -> Look:
    return Look(invert=options.invert, preprocess=options.preprocess)


@contextmanager
def _results(
    options: argparse.Namespace,
    destination: _Destination,
    predictor: Predictor,
    sources: Sequence[Source],
) -> Iterator[Results]:
    id_column = options.id_column or ""
    form = Form(
        predictor.class_labels,
        "id" if id_column in RESERVED else id_column,
        has_ood_scores=options.ood_scores,
    )
    if destination.path is None:
        yield StreamResults(sys.stdout, destination.form, form)
        return
    run_is = {
        "input": _digest(sources),
        "model": printable(predictor.model_name),
        "version": str(predictor.version),
        "form": destination.form,
        "columns": ",".join(form.columns),
        "look": str(_look(options)),
        "label column": str(options.label_column),
    }
    with FileResults(
        destination.path,
        destination.form,
        form,
        run_is,
        resume=options.resume,
        overwrite=options.overwrite,
    ) as results:
        try:
            yield results
        except BaseException:
            if results.tally.rows:
                _say(f"{results.tally.rows:,} rows are kept; the same with --resume goes on")
            raise


def _digest(sources: Sequence[Source]) -> str:
    """Return what tells these inputs from others, as far as is seen from outside."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(f"{source.name}\0{source.fingerprint()}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _tell(
    options: argparse.Namespace,
    destination: _Destination,
    predictor: Predictor,
    tally: Tally,
    speed: "Speed",
) -> None:
    """Say what was done, beside the rows and not among them, so that a pipe gets the rows only."""
    answered = f"{printable(predictor.model_name)} version {predictor.version}"
    if destination.path is not None:
        _say(
            f"{destination.path}: {tally.rows:,} rows by {answered}, "
            f"{speed.images_per_s:,.0f} images/s"
            + (f"; {tally.warned:,} rows have a warning" if tally.warned else "")
        )
    if tally.labelled:
        what = f"the test images of {options.data}" if options.data else "the rows with a label"
        if options.data == "auto":
            what = f"the test images of {predictor.data_name}"
        print(
            f"{answered} on {what}: "
            f"accuracy {100 * tally.correct / tally.labelled:.2f} % "
            f"({tally.correct} of {tally.labelled}), {speed.images_per_s:,.0f} images/s",
            file=sys.stdout if destination.form == "table" else sys.stderr,
        )


def _exit_code(tally: Tally, sources: int) -> int:
    for _, message in tally.failures:
        _say(message)
    if not tally.failures:
        return 0
    if sources > 1:
        _say(f"{len(tally.failures)} of {sources} inputs could not be read, or not whole")
    return EXIT_SOME_FAILED if tally.rows else 1


def _say(message: str) -> None:
    print(f"{PROGRAM}: {printable(message)}", file=sys.stderr)


def _failed(message: str) -> int:
    # Sentences may be a server's, and must do nothing to the terminal.
    return failed(PROGRAM, printable(message))


def _destination(parser: argparse.ArgumentParser, options: argparse.Namespace) -> _Destination:
    """Return where rows go; what the flags say together is checked here."""
    if bool(options.files) == bool(options.data):
        parser.error("expected either files or --data")
    if options.preprocess and options.invert:
        parser.error("--preprocess finds out whether to invert; leave out --invert")
    output, form = options.output, options.format
    if output in (*WRITERS, "-"):
        if options.resume or options.overwrite:
            parser.error("--resume and --overwrite need --output FILE")
        named = output if output != "-" else form or "table"
        if named not in WRITERS or form not in (None, named):
            parser.error(f"--format {form}: expected --output FILE, not {output}")
        return _Destination(named, None)
    try:
        path = user_path(output)
    except NoHomeError as error:
        parser.error(f"--output: {error}")
    form = form or _ENDINGS.get(path.suffix.lower())
    if form not in FILE_FORMS:
        parser.error(
            f"--output: expected {', '.join(WRITERS)}, or a file that ends in "
            f"{', '.join(_ENDINGS)} or has --format {', '.join(FILE_FORMS)}; got {output!r}"
        )
    return _Destination(form, path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Classify images: by a server, or by a network in a models folder.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_images(parser)
    _add_output(parser)
    add_model(parser)
    parser.add_argument(
        "--models",
        type=user_path,
        metavar="FOLDER",
        help="run the network of this models folder here, instead of asking a server",
    )
    add_server(parser)
    return parser


def _add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help=f"{ACCEPTED}; a folder of pictures, a pattern ('scans/**/*.png'), or - for standard "
        "input",
    )
    parser.add_argument(
        "--data",
        help="classify a test split instead of files, and print the accuracy: "
        f"{', '.join(DATASETS)}, a path as for mlpserve-train, or auto for the data that the model "
        "was trained on",
    )
    add_data_dir(parser)
    flags = parser.add_argument_group("images")
    flags.add_argument(
        "--invert", action="store_true", help="the pictures are dark on light, as ink on paper"
    )
    flags.add_argument(
        "--preprocess",
        action="store_true",
        help="the pictures are photographs of digits: find the digit, take the paper and its "
        "shadows away, and centre and scale it as MNIST's were",
    )
    flags.add_argument(
        "--transpose",
        action="store_true",
        help="swap rows and columns of the images of --data, as mlpserve-train does with it",
    )
    flags.add_argument(
        "--label-column",
        metavar="NAME",
        help="of a table: what each image is, to print the accuracy; default: label, class, "
        "target, y or digit, if there is one",
    )
    flags.add_argument(
        "--id-column", metavar="NAME", help="of a table: what identifies each row, for the output"
    )
    flags.add_argument(
        "--strict", action="store_true", help="end at the first input that cannot be read"
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    flags = parser.add_argument_group("output")
    flags.add_argument(
        "--output",
        default="table",
        metavar="FILE",
        help="a file, which appears when it is whole, or table, csv or jsonl for standard output; "
        "default: table, which shows the first rows",
    )
    flags.add_argument(
        "--ood-scores",
        action="store_true",
        help="score how little each image looks like those that the model learned from, and warn "
        "of those that do not look like them",
    )
    flags.add_argument(
        "--format",
        choices=(*FILE_FORMS, "table"),
        help="of the file; default: as its name ends",
    )
    again = flags.add_mutually_exclusive_group()
    again.add_argument(
        "--resume",
        action="store_true",
        help="go on where an earlier run of the same was stopped, if there was one",
    )
    again.add_argument("--overwrite", action="store_true", help="replace the file if it is there")
