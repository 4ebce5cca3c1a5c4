"""The command `mlpserve-train evaluate`: how good a published version is on some test images."""

import argparse
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from mlpserve.datasets import load_test_split
from mlpserve.datasets.flags import add_data_dir, add_read_options, read_options
from mlpserve.datasets.source import DATA_HELP
from mlpserve.model.references import load_reference, parse_reference
from mlpserve.model.weights import Model, check_golden
from mlpserve.trainer.arguments import add_model
from mlpserve.trainer.evaluation import Evaluation, evaluate, precisions, recalls
from mlpserve.trainer.reliability import expected_calibration_error


def main(arguments: Sequence[str]) -> None:
    """Run the command.

    Raises:
        DatasetError: The data cannot be used, or is not of the model's kind.
        ModelError: There is no such version, or its file cannot be used.
    """
    options = _parser().parse_args(arguments)
    model = load_reference(parse_reference(options.model))
    check_golden(model)
    split = load_test_split(
        options.data,
        data_dir=options.data_dir,
        options=read_options(options),
        class_labels=model.metadata.class_labels,
        input_shape=model.metadata.input.shape,
    )
    with threadpool_limits(1):
        evaluation = evaluate(model.network, model.metadata.input, split)
    if options.output == "json":
        print(json.dumps(_facts(model, evaluation)))
    else:
        _print_table(model, evaluation)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlpserve-train evaluate",
        description="Judge a published version by the test images of some data.",
    )
    add_model(parser)
    parser.add_argument("--data", required=True, help=DATA_HELP)
    add_data_dir(parser)
    add_read_options(parser)
    parser.add_argument(
        "--output", choices=("table", "json"), default="table", help="default: table"
    )
    return parser


def _facts(model: Model, evaluation: Evaluation) -> dict[str, Any]:
    """Return what was found; a share is null where there is nothing to take a share of."""
    return {
        "model": model.metadata.name,
        "version": model.metadata.version,
        "images": len(evaluation),
        "accuracy": evaluation.accuracy,
        "cross_entropy_nats": evaluation.cross_entropy,
        "expected_calibration_error": expected_calibration_error(evaluation),
        "classes": [
            {"label": label, "precision": precision, "recall": recall}
            for label, precision, recall in _by_class(model, evaluation)
        ],
    }


def _print_table(model: Model, evaluation: Evaluation) -> None:
    print(
        f"{model.metadata.name} version {model.metadata.version}: {len(evaluation)} images, "
        f"accuracy {100 * evaluation.accuracy:.2f} %, "
        f"cross-entropy {evaluation.cross_entropy:.4f} nats, "
        f"expected calibration error {100 * expected_calibration_error(evaluation):.2f} %"
    )
    table = Table("class", "precision", "recall")
    for label, *shares in _by_class(model, evaluation):
        table.add_row(
            label, *("-" if share is None else f"{100 * share:.2f} %" for share in shares)
        )
    Console(highlight=False, markup=False).print(table)


def _by_class(model: Model, evaluation: Evaluation) -> list[tuple[str, float | None, float | None]]:
    columns = (_or_none(shares(evaluation)) for shares in (precisions, recalls))
    return list(zip(model.metadata.class_labels, *columns, strict=True))


def _or_none(shares: np.typing.NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(share) else float(share) for share in shares]
