"""The command ``mlpserve-train export``: writes a published version in another program's format.

A format is a line of ``FORMATS``, the module ``NAME_file`` with ``to_bytes``, and an extra.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final, TypeAlias

from mlpserve.model.command_line import user_path
from mlpserve.model.references import load_reference, parse_reference
from mlpserve.model.weights import Model, check_golden
from mlpserve.trainer.arguments import add_model
from mlpserve.trainer.output_files import check_output, write_output

_ToBytes: TypeAlias = Callable[[Model], bytes]

# What --help says of each; its extra and the package that it needs are called like it.
FORMATS: Final[Mapping[str, str]] = {
    "onnx": "a graph that takes (N, D) float32 images from 0 to 1 and gives probabilities",
    "safetensors": "the arrays of the weights file",
}


def main(arguments: Sequence[str]) -> None:
    """Run the command.

    Raises:
        ModelError: There is no such version, or its file cannot be used.
        ExportError: The file cannot be written, or not in this format.
        ModuleNotFoundError: The extra of the format is not installed; the message says which.
    """
    print(_export(_parser().parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlpserve-train export",
        description="Write a published version as a file that other programs read.",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        required=True,
        help="; ".join(f"{name}: {description}" for name, description in FORMATS.items()),
    )
    add_model(parser)
    parser.add_argument(
        "--output", type=user_path, required=True, metavar="FILE", help="where to write"
    )
    parser.add_argument("--force", action="store_true", help="replace FILE if it is there already")
    return parser


def _export(options: argparse.Namespace) -> str:
    """Do what the flags say; return the line that tells of it."""
    output: Path = options.output
    # What can fail early is tried early.
    check_output(output, force=options.force)
    to_bytes = _to_bytes(options.format)
    model = load_reference(parse_reference(options.model))
    # Else the mistake of this machine or this file would be taken for one of the other program.
    check_golden(model)
    content = to_bytes(model)
    write_output(output, content)
    name, version = model.metadata.name, model.metadata.version
    return f"exported {name}:{version} as {options.format} to {output} ({len(content)} bytes)"


def _to_bytes(name: str) -> _ToBytes:
    """Import what writes a format; the packages of the others need not be installed."""
    try:
        to_bytes: _ToBytes = import_module(f"mlpserve.trainer.export.{name}_file").to_bytes
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the format {name} needs a package of that name: pip install 'mlpserve[{name}]'"
        ) from error
    return to_bytes
