"""Flags of ``mlpserve-predict``, and what they say together."""

import argparse
import math
import os
from pathlib import Path
from typing import Final, NamedTuple

from mlpserve.client.predict.connection import add_model, add_server
from mlpserve.client.predict.files import ACCEPTED
from mlpserve.client.predict.folders import ResultFolder, result_folder
from mlpserve.client.predict.outputs import WRITERS
from mlpserve.client.predict.results import FILE_FORMS, PARQUET
from mlpserve.client.predict.shards import DEFAULT_ROWS, MIN_ROWS
from mlpserve.datasets.flags import add_data_dir
from mlpserve.datasets.source import DATASETS
from mlpserve.model.command_line import EXIT_INTERRUPTED, NoHomeError, user_path
from mlpserve.model.errors import SyncError
from mlpserve.model.ray_cluster import AUTO, LOCAL
from mlpserve.model.sync.urls import is_url

PROGRAM: Final = "mlpserve-predict"
RAY: Final = "ray"
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
  mlpserve-predict --models models 'shards/*.npy' --output answers/ --engine ray
"""


class Destination(NamedTuple):
    """Where rows go: a form, and a file or a folder; standard output where there is neither."""

    form: str
    path: Path | None = None
    folder: ResultFolder | None = None

    @property
    def name(self) -> object:
        """Return what the file or the folder is called; None for standard output."""
        return self.folder or self.path


def checked_destination(
    parser: argparse.ArgumentParser, options: argparse.Namespace
) -> Destination:
    """Return where rows go; what the flags say together is checked here."""
    if bool(options.files) == bool(options.data):
        parser.error("expected either files or --data")
    if options.preprocess and options.invert:
        parser.error("--preprocess finds out whether to invert; leave out --invert")
    output, form = options.output, options.format
    if output.endswith("/") or is_url(output) or os.path.isdir(output):  # noqa: PTH112 - as it is written
        return _folder(parser, options)
    if options.engine:
        parser.error(f"--engine {RAY} writes a folder of parts: --output FOLDER/, not {output!r}")
    if output in (*WRITERS, "-"):
        if options.resume or options.overwrite:
            parser.error("--resume and --overwrite need --output FILE")
        named = output if output != "-" else form or "table"
        if named not in WRITERS or form not in (None, named):
            parser.error(f"--format {form}: expected --output FILE, not {output}")
        return Destination(named)
    try:
        path = user_path(output)
    except NoHomeError as error:
        parser.error(f"--output: {error}")
    form = form or _ENDINGS.get(path.suffix.lower())
    if form not in FILE_FORMS:
        parser.error(
            f"--output: expected {', '.join(WRITERS)}, or a file that ends in "
            f"{', '.join(_ENDINGS)} or has --format {', '.join(FILE_FORMS)}, or a folder, which "
            f"ends in /; got {output!r}"
        )
    return Destination(form, path)


def _folder(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Destination:
    """Return the folder that rows go to."""
    if options.format not in (None, PARQUET):
        parser.error(f"--format {options.format}: a folder has parts in {PARQUET}")
    if options.data:
        parser.error(
            "--data: a folder of parts is written of files; name them, or leave out --data"
        )
    if options.engine and not options.models:
        parser.error(
            f"--engine {RAY} needs --models FOLDER: its workers run the network themselves"
        )
    if options.rows_per_part < MIN_ROWS:
        parser.error(f"--rows-per-part: expected at least {MIN_ROWS}, got {options.rows_per_part}")
    if options.ray_workers is not None and options.ray_workers < 1:
        parser.error(f"--ray-workers: expected at least 1, got {options.ray_workers}")
    if not 0 < options.ray_cpus < math.inf:
        parser.error(f"--ray-cpus: expected a number above 0, got {options.ray_cpus:g}")
    try:
        return Destination(PARQUET, folder=result_folder(options.output))
    except (NoHomeError, SyncError) as error:
        parser.error(f"--output: {error}")


def command_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
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
    _add_engine(parser)
    add_server(parser)
    return parser


def _add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help=f"{ACCEPTED}; a folder of pictures, a pattern ('scans/**/*.png'), or - for standard "
        "input; also in an object store: s3://bucket/scans/*.png",
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
        help="a file, which appears when it is whole; or a folder (answers/, s3://bucket/answers/) "
        "of parts in Parquet; or table, csv or jsonl for standard output; default: table, which "
        "shows the first rows",
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
    flags.add_argument(
        "--rows-per-part",
        type=int,
        default=DEFAULT_ROWS,
        metavar="N",
        help="of a folder: the most rows of a part, where the input can be read from its middle "
        f"(.npy, Parquet); a picture counts as 64; default: {DEFAULT_ROWS}",
    )
    again = flags.add_mutually_exclusive_group()
    again.add_argument(
        "--resume",
        action="store_true",
        help="go on where an earlier run of the same was stopped, if there was one",
    )
    again.add_argument("--overwrite", action="store_true", help="replace the file if it is there")


def _add_engine(parser: argparse.ArgumentParser) -> None:
    flags = parser.add_argument_group("engine")
    flags.add_argument(
        "--engine",
        choices=(RAY,),
        help="have the workers of a Ray cluster run the network; needs --models, and a folder as "
        "--output; default: this machine",
    )
    flags.add_argument(
        "--ray-address",
        default=os.environ.get("RAY_ADDRESS") or AUTO,
        metavar="ADDRESS",
        help=f"the cluster: ray://HOST:10001, HOST:6379, {LOCAL} for one that is started here, or "
        f"{AUTO} for that of this machine; default: the variable RAY_ADDRESS, or else {AUTO}",
    )
    flags.add_argument(
        "--ray-workers",
        type=int,
        metavar="N",
        help="how many workers; default: as many as the cluster has CPUs for",
    )
    flags.add_argument(
        "--ray-cpus", type=float, default=1, metavar="N", help="CPUs of a worker; default: 1"
    )
