"""Tensors of the protocol: images decoded from an input, an answer encoded as outputs.

Images may come in many datatypes and shapes. Integers are values of pixels, 0 to 255, and
floating-point numbers go from 0 to 1; or all are values of the model's own range. A conversion
either loses nothing or is refused.
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mlpserve.model.compiled import Answer, CompiledModel, Images
from mlpserve.model.inputs import InputSpec, number_text
from mlpserve.server.errors import RequestError, UnsupportedError
from mlpserve.server.inference.decoding import FLOAT32, UINT8, aligned
from mlpserve.server.oip.values import (
    CLASSIFICATION,
    SHARED_MEMORY,
    InputTensor,
    OutputTensor,
    RequestedOutput,
    shortened,
    whole_number,
)

BFLOAT16: Final = "BF16"
_LOW_BITS: Final = 16  # of a float32, which a bfloat16 leaves out

# How values of each are written, in little-endian bytes; NumPy has no bfloat16, so it is its bits.
DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    BFLOAT16: np.dtype("<u2"),
}
INPUT_NAME: Final = "images"
_FIELD: Final = f"input '{INPUT_NAME}'"
_MAX_SHOWN: Final = 8
PROBABILITIES: Final = "probabilities"
LABELS: Final = "labels"
ATTRIBUTIONS: Final = "attributions"
OOD_SCORES: Final = "ood_scores"
DATATYPES: Final[Mapping[str, str]] = {
    PROBABILITIES: "FP32",
    LABELS: "INT32",
    ATTRIBUTIONS: "FP32",
    OOD_SCORES: "FP32",
}
_LENGTH: Final = struct.Struct("<I")


class Selected(NamedTuple):
    """An output that is to be answered.

    Attributes:
        name: Its name.
        classes: So many of the most probable classes, as texts; 0 for the plain output.
    """

    name: str
    classes: int = 0


# Where none is named; attributions take far longer, and are for those who name them.
DEFAULT_OUTPUTS: Final = (Selected(PROBABILITIES), Selected(LABELS))


def decode_images(tensor: InputTensor, model: CompiledModel, *, max_batch_images: int) -> Images:
    """Return the (N, D) images of an input.

    Args:
        tensor: The input.
        model: What is asked.
        max_batch_images: The most images that a request may carry.

    Raises:
        RequestError: It is not 1 to ``max_batch_images`` images of what the model takes.
        UnsupportedError: The values are somewhere else, in shared memory.
    """
    name = model.metadata.name
    if tensor.name != INPUT_NAME:
        raise RequestError(
            f"unexpected inference input {shortened(tensor.name)!r} for model '{name}', "
            f"expected '{INPUT_NAME}'"
        )
    if SHARED_MEMORY in tensor.parameters:
        raise UnsupportedError(f"{_FIELD}: shared memory is not supported")
    if tensor.datatype not in DTYPES:
        raise RequestError(
            f"unexpected datatype for {_FIELD} for model '{name}'. "
            f"Expected {', '.join(DTYPES)}, got {shortened(tensor.datatype)}"
        )
    count = _checked_count(tensor, model, max_batch_images)
    size = count * model.metadata.input.values_per_image
    values = _values(tensor, name, size)
    return _converted(values, tensor.datatype, model.metadata.input).reshape(count, -1)


def _checked_count(tensor: InputTensor, model: CompiledModel, max_batch_images: int) -> int:
    spec, name = model.metadata.input, model.metadata.name
    flat, shaped = (spec.values_per_image,), tuple(spec.shape)
    if tensor.shape[1:] not in {flat, shaped}:
        expected = " or ".join(_listed((-1, *shape)) for shape in dict.fromkeys((flat, shaped)))
        raise RequestError(
            f"unexpected shape for {_FIELD} for model '{name}'. "
            f"Expected {expected}, got {_listed(tensor.shape)}"
        )
    count = tensor.shape[0]
    if not 1 <= count <= max_batch_images:
        raise RequestError(
            f"inference request batch-size must be from 1 to {max_batch_images} for '{name}', "
            f"got {count}"
        )
    return count


def _values(tensor: InputTensor, model_name: str, size: int) -> npt.NDArray[Any]:
    """Return so many numbers, whichever way they were sent."""
    if isinstance(tensor.data, bytes | memoryview):
        expected = size * DTYPES[tensor.datatype].itemsize
        if len(tensor.data) != expected:
            raise RequestError(
                f"input byte size mismatch for {_FIELD} for model '{model_name}'. "
                f"Expected {expected}, got {len(tensor.data)}"
            )
        return _numbers(tensor.data, tensor.datatype)
    if len(tensor.data) != size:
        raise RequestError(
            f"unexpected number of values for {_FIELD} for model '{model_name}'. "
            f"Expected {size}, got {len(tensor.data)}"
        )
    return tensor.data


def _converted(values: npt.NDArray[Any], datatype: str, spec: InputSpec) -> Images:
    is_float = values.dtype.kind == "f"
    problem = spec.problem(values, datatype, None if is_float else DTYPES[datatype])
    if problem is not None:
        raise RequestError(f"{_FIELD}: {problem}")
    if values.dtype == UINT8 or (spec.value_range is None and not is_float):
        images: Images = values.astype(UINT8, copy=False)
        return images
    return _as_floats(values, datatype)


def _as_floats(values: npt.NDArray[Any], datatype: str) -> Images:
    images: Images = values.astype(FLOAT32, copy=False)
    if not np.can_cast(values.dtype, FLOAT32) and not np.array_equal(images, values):
        lost = values[images != values][0]
        raise RequestError(
            f"{_FIELD}: expected {datatype} values that are FP32 values as well, "
            f"got {number_text(lost)}; round them, and send FP32"
        )
    return images


def _listed(shape: tuple[int, ...]) -> str:
    more = ",..." if len(shape) > _MAX_SHOWN else ""
    return f"[{','.join(map(str, shape[:_MAX_SHOWN]))}{more}]"


def _numbers(data: bytes | memoryview, datatype: str) -> npt.NDArray[Any]:
    """Return the values that raw bytes of a datatype mean; their number of bytes is right."""
    values = aligned(data, DTYPES[datatype])
    if datatype != BFLOAT16:
        return values
    widened = values.astype("<u4") << _LOW_BITS
    return widened.view("<f4")


def selected(requested: Sequence[RequestedOutput], model_name: str) -> tuple[Selected, ...]:
    """Return what is to be answered; probabilities and labels where none is named.

    Raises:
        RequestError: An output is unknown, named twice, or classified though it cannot be.
        UnsupportedError: An output is to be written to shared memory.
    """
    if not requested:
        return DEFAULT_OUTPUTS
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
    outputs: Sequence[Selected],
    model: CompiledModel,
    answer: Answer,
    ood_scores: Callable[[Answer], bytes] | None = None,
) -> tuple[OutputTensor, ...]:
    """Return the outputs that are to be answered; ``ood_scores`` where these are among them."""
    return tuple(
        _tensor(output, model, answer)
        if ood_scores is None or output.name != OOD_SCORES
        else _score_tensor(ood_scores(answer))
        for output in outputs
    )


def _score_tensor(scores: bytes) -> OutputTensor:
    count = len(scores) // FLOAT32.itemsize
    return OutputTensor(OOD_SCORES, DATATYPES[OOD_SCORES], (count,), scores)


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
    if output.name == ATTRIBUTIONS and answer.attributions is not None:
        shape = (count, model.metadata.input.values_per_image)
        return OutputTensor(
            ATTRIBUTIONS, DATATYPES[ATTRIBUTIONS], shape, answer.attributions.values
        )
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
