"""The outputs of a model: which are asked for, and how an answer becomes them."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from mlpserve.server.errors import RequestError, UnsupportedError
from mlpserve.server.inference.compiled import CompiledModel
from mlpserve.server.inference.decoding import FLOAT32, Answer
from mlpserve.server.oip.parameters import whole_number
from mlpserve.server.oip.requests import (
    SHARED_MEMORY,
    OutputTensor,
    RequestedOutput,
    shortened,
)

PROBABILITIES: Final = "probabilities"
LABELS: Final = "labels"
CLASSIFICATION: Final = "classification"
OUTPUT_PARAMETERS: Final = (CLASSIFICATION, SHARED_MEMORY)
DATATYPES: Final[Mapping[str, str]] = {PROBABILITIES: "FP32", LABELS: "INT32"}
_LENGTH: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Selected:
    """An output that is to be answered.

    Attributes:
        name: Its name.
        classes: So many of the most probable classes, as texts; 0 for the plain output.
    """

    name: str
    classes: int = 0


ALL_OUTPUTS: Final = (Selected(PROBABILITIES), Selected(LABELS))


def selected(requested: Sequence[RequestedOutput], model_name: str) -> tuple[Selected, ...]:
    """Return what is to be answered; all outputs where none is named.

    Raises:
        RequestError: An output is unknown, named twice, or classified though it cannot be.
        UnsupportedError: An output is to be written to shared memory.
    """
    if not requested:
        return ALL_OUTPUTS
    names = [output.name for output in requested]
    for name in names:
        if name not in DATATYPES:
            raise RequestError(
                f"unexpected inference output {shortened(name)!r} for model '{model_name}', "
                f"expected {' or '.join(map(repr, DATATYPES))}"
            )
    if len(set(names)) < len(names):
        raise RequestError(f"outputs: expected each once, got {', '.join(names)}")
    return tuple(Selected(output.name, _classes(output)) for output in requested)


def output_tensors(
    outputs: Sequence[Selected], model: CompiledModel, answer: Answer
) -> tuple[OutputTensor, ...]:
    """Return the outputs that are to be answered."""
    return tuple(_tensor(output, model, answer) for output in outputs)


def _classes(output: RequestedOutput) -> int:
    if SHARED_MEMORY in output.parameters:
        raise UnsupportedError(f"output '{output.name}': shared memory is not supported")
    classes = whole_number(output.parameters, CLASSIFICATION)
    if classes < 0:
        raise RequestError(f"{CLASSIFICATION}: expected a positive number, got {classes}")
    if classes and output.name != PROBABILITIES:
        raise RequestError(
            f"{CLASSIFICATION}: expected with '{PROBABILITIES}' only, got it with '{output.name}'"
        )
    return classes


def _tensor(output: Selected, model: CompiledModel, answer: Answer) -> OutputTensor:
    classes = len(model.metadata.class_labels)
    count = len(answer.probabilities) // (classes * FLOAT32.itemsize)
    if output.name == LABELS:
        return OutputTensor(LABELS, DATATYPES[LABELS], (count,), answer.labels)
    if not output.classes:
        shape = (count, classes)
        return OutputTensor(PROBABILITIES, DATATYPES[PROBABILITIES], shape, answer.probabilities)
    shown = min(output.classes, classes)
    data = b"".join(_LENGTH.pack(len(text)) + text for text in _most_probable(model, answer, shown))
    return OutputTensor(PROBABILITIES, "BYTES", (count, shown), data)


def _most_probable(model: CompiledModel, answer: Answer, shown: int) -> Iterator[bytes]:
    """Yield "value:index:label" of each image's most probable classes, the most probable first."""
    labels = model.metadata.class_labels
    rows = np.frombuffer(answer.probabilities, FLOAT32).reshape(-1, len(labels))
    order = np.argsort(-rows, axis=1, kind="stable")[:, :shown]
    values = np.take_along_axis(rows, order, axis=1)
    for value, index in zip(values.ravel().tolist(), order.ravel().tolist(), strict=True):
        yield f"{value:f}:{index}:{labels[index]}".encode()
