"""Predicting: images of files or of a data set in, predictions out."""

import argparse
import io
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

try:
    from mlpserve.client.predict.files import ACCEPTED, read_images
    from mlpserve.client.predict.output import WRITERS, Labelled, printable
    from mlpserve.datasets import DatasetError, Split, load_test_split
    from mlpserve.datasets.source import DATASETS, add_data_dir
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"mlpserve-predict needs {missing.name}: pip install 'mlpserve[predict]'"
    ) from missing

import numpy as np
import numpy.typing as npt

from mlpserve.client import (
    Client,
    ClientError,
    InvalidRequestError,
    ModelInfo,
    NotFoundError,
    Predictions,
    UnavailableError,
    VersionInfo,
)
from mlpserve.client.predict.connection import add_model, add_server, connected_client
from mlpserve.client.requests import MAX_IMAGES_PER_REQUEST

_EXIT_FAILED: Final = 1
_EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if bool(options.files) == bool(options.data):
        parser.error("expected either files or --data")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    if sys.stdout is None:
        return _fail("the output is closed")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A sign that the output's encoding does not have is written as its number.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with connected_client(options) as client:
            _run(client, options)
    except UnavailableError as error:
        return _fail(f"{error}; is mlpserve-serve running there?")
    except (ClientError, DatasetError) as error:
        return _fail(str(error))
    except OSError as error:
        return _output_ended(error)
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED
    return 0


def _run(client: Client, options: argparse.Namespace) -> None:
    served = client.model(options.model, version=options.version, label=options.label)
    # What is asked for by name from here on, whatever the server takes up meanwhile.
    version = _answering(served)

    def predict(images: npt.NDArray[Any]) -> Predictions:
        return client.predict(
            images,
            model=options.model,
            version=version.version,
            max_images_per_request=min(MAX_IMAGES_PER_REQUEST, served.max_batch_images),
        )

    if options.data:
        results = [_predict_data(predict, options, version)]
    else:
        results = list(_predict_files(predict, options, version))
    WRITERS[options.output](results, sys.stdout)
    sys.stdout.flush()


def _answering(served: ModelInfo) -> VersionInfo:
    """Return the default version, or the only one, where one was asked for."""
    if not served.versions:
        reasons = "; ".join(served.quarantined_versions.values()) or "the server gives no reason"
        raise NotFoundError(f"model: no version of {served.name!r} is served: {reasons}")
    described = {version.version: version for version in served.versions}
    return described.get(served.default_version, served.versions[0])


def _predict_files(
    predict: Callable[[npt.NDArray[Any]], Predictions],
    options: argparse.Namespace,
    version: VersionInfo,
) -> Iterator[Labelled]:
    # All are read before the first is sent, so that a mistake in one is found at once.
    files = [
        read_images(path, version.input_shape, invert=options.invert) for path in options.files
    ]
    for file in files:
        try:
            found = predict(file.images)
        except InvalidRequestError as error:
            raise InvalidRequestError(f"{file.path}: {error}") from error
        yield Labelled(str(file.path), found, version.class_labels)


def _predict_data(
    predict: Callable[[npt.NDArray[Any]], Predictions],
    options: argparse.Namespace,
    version: VersionInfo,
) -> Labelled:
    name = options.data if options.data != "auto" else _data_of_model(version)
    split = load_test_split(name, data_dir=options.data_dir)
    _check_classes(split, version, name)
    started_s = time.perf_counter()
    found = predict(split.images)
    duration_s = time.perf_counter() - started_s
    correct = np.count_nonzero(found.labels == split.labels)
    # Beside the rows, not among them, so that a pipe gets the rows only.
    print(
        f"{printable(found.model_name)} version {found.model_version} on the test images of "
        f"{name}: "
        f"accuracy {100 * correct / len(split):.2f} % ({correct} of {len(split)}), "
        f"{len(split) / duration_s:,.0f} images/s",
        file=sys.stdout if options.output == "table" else sys.stderr,
    )
    return Labelled(name, found, version.class_labels, split.labels)


def _data_of_model(version: VersionInfo) -> str:
    # Only names of ours: a server must not choose which of our files are opened, and sent to it.
    name = version.training.data_name
    if name not in DATASETS:
        raise DatasetError(
            f"--data auto: the model was trained on {name!r}; give that data with --data PATH"
        )
    return name


def _check_classes(split: Split, version: VersionInfo, name: str) -> None:
    if split.labels.max() >= len(version.class_labels):
        raise DatasetError(
            f"{name}: expected the {len(version.class_labels)} classes of the model, "
            f"got a label {split.labels.max()}"
        )


def _output_ended(error: OSError) -> int:
    # What Python still holds back would fail once more at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    # Whoever read our output has had enough, as `head` has; that is no failure.
    if isinstance(error, BrokenPipeError):
        return 0
    return _fail(f"the output cannot be written: {error.strerror}")


def _fail(message: str) -> int:
    # Sentences may be a server's, and must do nothing to the terminal.
    print(f"mlpserve-predict: {printable(message)}", file=sys.stderr)
    return _EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlpserve-predict",
        description="Have a server classify images.",
    )
    _add_images(parser)
    add_server(parser)
    add_model(parser)
    parser.add_argument(
        "--output",
        choices=WRITERS,
        default="table",
        help="default: table; the others show all rows",
    )
    return parser


def _add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="*", metavar="FILE", help=ACCEPTED)
    parser.add_argument(
        "--data",
        help="classify a test split instead of files, and print the accuracy: "
        f"{', '.join(DATASETS)}, a path as for mlpserve-train, or auto for the data that the model "
        "was trained on",
    )
    add_data_dir(parser)
    parser.add_argument(
        "--invert", action="store_true", help="the pictures are dark on light, as ink on paper"
    )
