"""Inference requests and responses in plain values, whether they travel by gRPC or HTTP."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

import numpy.typing as npt

from mlpserve.server.errors import RequestError

Parameters: TypeAlias = Mapping[str, bool | int | float | str]

SHARED_MEMORY: Final = "shared_memory_region"
PRIORITY: Final = "priority"
TIMEOUT: Final = "timeout"
SEQUENCES: Final = ("sequence_id", "sequence_start", "sequence_end")
CLASSIFICATION: Final = "classification"
METHOD: Final = "method"
STEPS: Final = "steps"
CLASS: Final = "class"
# The parameters that mean something here; all others are passed over.
REQUEST_PARAMETERS: Final = (PRIORITY, TIMEOUT, *SEQUENCES)
INPUT_PARAMETERS: Final = (SHARED_MEMORY,)
OUTPUT_PARAMETERS: Final = (CLASSIFICATION, METHOD, STEPS, CLASS, SHARED_MEMORY)
NO_PARAMETERS: Final[Parameters] = MappingProxyType({})
MAX_DIMENSIONS: Final = 16
MAX_OUTPUTS: Final = 16
# So many bytes of the largest message allow one value that is not sent raw: in JSON and in typed
# contents a value of one or two bytes takes up to 60 when it is parsed.
BYTES_PER_VALUE: Final = 8
_SHOWN_CHARACTERS: Final = 80


class InputTensor(NamedTuple):
    """An input as it was sent.

    Attributes:
        name: Its name.
        datatype: The name of its datatype, known or not.
        shape: Its shape.
        data: The values: raw, row-major and little-endian, or one after the other as numbers.
        parameters: Its parameters.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview | npt.NDArray[Any]
    parameters: Parameters = NO_PARAMETERS


class RequestedOutput(NamedTuple):
    """An output that is asked for.

    Attributes:
        name: Its name.
        parameters: Its parameters.
    """

    name: str
    parameters: Parameters = NO_PARAMETERS


class InferRequest(NamedTuple):
    """What a caller asks; nothing in it is checked yet.

    Attributes:
        model_name: The model's name.
        model_version: The version: a number, a label, or empty for the server's choice.
        id: What the response is to be known by.
        input: The one input that all our models take.
        outputs: The outputs that are asked for; none for all.
        parameters: The request's parameters.
    """

    model_name: str
    model_version: str
    id: str
    input: InputTensor
    outputs: Sequence[RequestedOutput] = ()
    parameters: Parameters = NO_PARAMETERS


class OutputTensor(NamedTuple):
    """An output.

    Attributes:
        name: Its name.
        datatype: Its datatype: FP32, INT32 or BYTES.
        shape: Its shape.
        data: The values, raw: row-major and little-endian. Of BYTES each has its length before it,
            as four bytes.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes


class InferResponse(NamedTuple):
    """What is answered.

    Attributes:
        model_name: The model that answered.
        model_version: The version that answered.
        id: The request's.
        outputs: The outputs, in the order in which they were asked for.
    """

    model_name: str
    model_version: int
    id: str
    outputs: tuple[OutputTensor, ...]


def check_one_input(count: int, model_name: str) -> None:
    """Check that a request has the one input that all our models take.

    Raises:
        RequestError: It has none, or more.
    """
    if count != 1:
        raise RequestError(
            f"expected 1 inputs but got {count} inputs for model {shortened(model_name)!r}"
        )


def shortened(text: str) -> str:
    """Return what a caller sent, for a message: the transport limits how long one may be."""
    return text[:_SHOWN_CHARACTERS]


def whole_number(parameters: Parameters, name: str) -> int:
    """Return a parameter; 0 where it is not there.

    Raises:
        RequestError: It is something else.
    """
    value = parameters.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestError(
            f"invalid value type for {name!r} parameter, expected a whole number (int64_param)"
        )
    return value
