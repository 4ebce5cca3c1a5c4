"""The command `mlpserve-predict`: images of files or of a data set in, predictions out."""

import argparse
import io
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

try:
    from mlpserve.client.files import ImageFile, read_images
    from mlpserve.client.output import WRITERS, Labelled
    from mlpserve.datasets import DatasetError, Split, load_test_split
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"mlpserve-predict needs {missing.name}: pip install 'mlpserve[predict]'"
    ) from missing

import numpy as np

from mlpserve.client import Client, ClientError, InvalidRequestError, UnavailableError, VersionInfo
from mlpserve.client.client import DEFAULT_TIMEOUT_S

_EXIT_FAILED: Final = 1
_EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
_DATA_OF_MODEL: Final = "auto"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if bool(options.files) == bool(options.data):
        parser.error("expected either files or --data")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A sign that the output's encoding does not have is written as its number.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with Client(options.target, timeout_s=options.timeout) as client:
            _run(client, options)
    except UnavailableError as error:
        return _fail(f"{error}; is mlpserve-serve running there?")
    except (ClientError, DatasetError) as error:
        return _fail(str(error))
    except BrokenPipeError:
        # Whoever read our output has had enough, as `head` has; nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED
    return 0


def _run(client: Client, options: argparse.Namespace) -> None:
    described = client.model(options.model, version=options.version)
    version = described.versions[0]
    if options.data:
        results = [_predict_data(client, options, version)]
    else:
        files = [
            read_images(path, version.input_shape, invert=options.invert) for path in options.files
        ]
        results = [_predict_file(client, options, version, file) for file in files]
    WRITERS[options.output](results, sys.stdout)
    sys.stdout.flush()


def _predict_file(
    client: Client, options: argparse.Namespace, version: VersionInfo, file: ImageFile
) -> Labelled:
    try:
        found = client.predict(file.images, model=options.model, version=version.version)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{file.path}: {error}") from error
    return Labelled(str(file.path), found, version.class_labels)


def _predict_data(client: Client, options: argparse.Namespace, version: VersionInfo) -> Labelled:
    name = version.training.data_name if options.data == _DATA_OF_MODEL else options.data
    split = load_test_split(name, data_dir=options.data_dir)
    _check_classes(split, version, name)
    started = time.perf_counter()
    found = client.predict(split.images, model=options.model, version=version.version)
    duration_s = time.perf_counter() - started
    correct = np.count_nonzero(found.labels == split.labels)
    # Beside the rows, not among them, so that a pipe gets the rows only.
    print(
        f"{found.model_name} version {found.model_version} on the test images of {name}: "
        f"accuracy {100 * correct / len(split):.2f} % ({correct} of {len(split)}), "
        f"{len(split) / duration_s:,.0f} images/s",
        file=sys.stdout if options.output == "table" else sys.stderr,
    )
    return Labelled(name, found, version.class_labels, split.labels)


def _check_classes(split: Split, version: VersionInfo, name: str) -> None:
    if split.labels.max() >= len(version.class_labels):
        raise DatasetError(
            f"{name}: expected the {len(version.class_labels)} classes of the model, "
            f"got a label {split.labels.max()}"
        )


def _fail(message: str) -> int:
    print(f"mlpserve-predict: {message}", file=sys.stderr)
    return _EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlpserve-predict", description="Have a server classify images."
    )
    parser.add_argument(
        "files", type=Path, nargs="*", metavar="FILE", help=".npy, .npz, IDX, PNG or JPEG"
    )
    parser.add_argument(
        "--data",
        help="classify a test split instead of files, and print the accuracy: mnist, drawn, a path "
        "as for mlpserve-train, or auto for the data that the model was trained on",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=os.environ.get("MLPSERVE_DATA_DIR") or None,
        help="folder with the four MNIST files; default: $MLPSERVE_DATA_DIR, else the user's cache",
    )
    parser.add_argument(
        "--target",
        default="localhost:50051",
        metavar="HOST:PORT",
        help="the server; default: localhost:50051",
    )
    parser.add_argument("--model", default="", help="needed where several models are served")
    parser.add_argument(
        "--version", type=int, default=0, metavar="N", help="default: the newest that is served"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=DEFAULT_TIMEOUT_S,
        metavar="S",
        help=f"seconds that a call may take; default: {DEFAULT_TIMEOUT_S:g}",
    )
    parser.add_argument(
        "--invert", action="store_true", help="the pictures are dark on light, as ink on paper"
    )
    parser.add_argument(
        "--output",
        choices=WRITERS,
        default="table",
        help="default: table; the others show all rows",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
