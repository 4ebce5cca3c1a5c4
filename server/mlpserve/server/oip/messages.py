"""Messages of GRPCInferenceService: requests to plain values, responses from them."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

import numpy as np

from mlpserve.oip import inference_pb2
from mlpserve.server.errors import RequestError
from mlpserve.server.grpc_api.parsing import Parser, parsed
from mlpserve.server.oip.tensors import DTYPES
from mlpserve.server.oip.values import (
    INPUT_PARAMETERS,
    MAX_DIMENSIONS,
    MAX_OUTPUTS,
    NO_PARAMETERS,
    OUTPUT_PARAMETERS,
    REQUEST_PARAMETERS,
    InferRequest,
    InferResponse,
    InputTensor,
    Parameters,
    RequestedOutput,
    check_one_input,
)
from mlpserve.server.oip.wire_scan import check_fields

_FINAL_RESPONSE: Final = "triton_final_response"
_RAW: Final = (inference_pb2.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER,)
# Requests have ids, so that few are alike: small ones are copied sooner than looked through.
_PARSER: Final = Parser(inference_pb2.ModelInferRequest, _RAW, min_bytes=1 << 16)
SERVICE_NAME: Final = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

# The field of InferTensorContents in which the values of a datatype are, and its dtype. The others
# can be sent raw only.
_CONTENTS: Final[Mapping[str, tuple[str, str]]] = {
    "INT8": ("int_contents", "<i4"),
    "INT16": ("int_contents", "<i4"),
    "INT32": ("int_contents", "<i4"),
    "INT64": ("int64_contents", "<i8"),
    "UINT8": ("uint_contents", "<u4"),
    "UINT16": ("uint_contents", "<u4"),
    "UINT32": ("uint_contents", "<u4"),
    "UINT64": ("uint64_contents", "<u8"),
    "FP32": ("fp32_contents", "<f4"),
    "FP64": ("fp64_contents", "<f8"),
}


def decode_request(data: bytes, max_values: int) -> InferRequest:
    """Return the request that a ModelInferRequest is, in plain values.

    Args:
        data: The message.
        max_values: The most values that it may have outside of raw contents.

    Raises:
        RequestError: ``data`` is none, does not have exactly one input, or its values are not where
            they belong.
        TooLargeError: It would take far more memory than it has bytes.
    """
    check_fields(data, max_values)
    message, raw = _PARSER.parse(data)
    check_one_input(len(message.inputs), message.model_name)
    if len(message.outputs) > MAX_OUTPUTS:
        raise RequestError(f"outputs: expected at most {MAX_OUTPUTS}, got {len(message.outputs)}")
    return InferRequest(
        message.model_name,
        message.model_version,
        message.id,
        _input(message, raw),
        [
            RequestedOutput(output.name, _known(output.parameters, OUTPUT_PARAMETERS))
            for output in message.outputs
        ],
        _known(message.parameters, REQUEST_PARAMETERS),
    )


def encode_response(response: InferResponse) -> bytes:
    """Return a response as a ModelInferResponse."""
    return _response_message(response).SerializeToString()


def encode_stream_response(response: InferResponse) -> bytes:
    """Return a response as a ModelStreamInferResponse."""
    message = _response_message(response)
    message.parameters[_FINAL_RESPONSE].bool_param = True
    return inference_pb2.ModelStreamInferResponse(infer_response=message).SerializeToString()


def encode_stream_error(data: bytes, error_message: str, max_values: int) -> bytes:
    """Return the error of a request as one of the responses of a stream, as Triton has it.

    Args:
        data: The request, which may be no message at all.
        error_message: What is wrong.
        max_values: As for ``decode_request``; of what is too large for it, not even the id is read.
    """
    request_id = ""
    with suppress(RequestError):
        check_fields(data, max_values)
        request_id = parsed(inference_pb2.ModelInferRequest, data).id
    return inference_pb2.ModelStreamInferResponse(
        error_message=error_message,
        infer_response=inference_pb2.ModelInferResponse(id=request_id),
    ).SerializeToString()


def _response_message(response: InferResponse) -> inference_pb2.ModelInferResponse:
    message = inference_pb2.ModelInferResponse(
        model_name=response.model_name,
        model_version=str(response.model_version),
        id=response.id,
        raw_output_contents=[output.data for output in response.outputs],
    )
    for output in response.outputs:
        message.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
    return message


def _input(message: inference_pb2.ModelInferRequest, raw: memoryview | None) -> InputTensor:
    tensor = message.inputs[0]
    if len(tensor.shape) > MAX_DIMENSIONS:
        raise RequestError(
            f"unexpected shape for input: expected at most {MAX_DIMENSIONS} dimensions, "
            f"got {len(tensor.shape)}"
        )
    return InputTensor(
        tensor.name,
        tensor.datatype,
        tuple(tensor.shape),
        _values(message, raw),
        _known(tensor.parameters, INPUT_PARAMETERS),
    )


def _values(message: inference_pb2.ModelInferRequest, raw: memoryview | None) -> Any:  # noqa: ANN401 - bytes or an array
    contents = message.raw_input_contents if raw is None else [raw]
    if not contents:
        return _typed_values(message.inputs[0])
    if message.inputs[0].HasField("contents"):
        raise RequestError(
            "contents field must not be specified when using raw_input_contents for input 'images'"
        )
    if len(contents) != 1:
        raise RequestError(
            f"raw_input_contents: expected one entry for each of 1 inputs, got {len(contents)}"
        )
    return contents[0]


def _typed_values(tensor: inference_pb2.ModelInferRequest.InferInputTensor) -> Any:  # noqa: ANN401 - an array
    if tensor.datatype not in _CONTENTS:
        if tensor.datatype in DTYPES:
            raise RequestError(f"contents: there are none of {tensor.datatype}; send it raw")
        return np.empty(0)  # what is wrong with the datatype is said where datatypes are known
    name, dtype = _CONTENTS[tensor.datatype]
    for field, _ in tensor.contents.ListFields():
        if field.name != name:
            raise RequestError(
                f"contents: expected {name} for {tensor.datatype}, got {field.name} as well"
            )
    values: Iterable[float] = getattr(tensor.contents, name)
    return np.fromiter(values, dtype)


def _known(parameters: Mapping[str, Any], names: Iterable[str]) -> Parameters:
    """Return those parameters that mean something to us, however many there are."""
    if not parameters:
        return NO_PARAMETERS
    found = {}
    for name in names:
        if name in parameters:
            choice = parameters[name].WhichOneof("parameter_choice")
            if choice is not None:
                found[name] = getattr(parameters[name], choice)
    return found
