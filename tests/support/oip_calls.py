"""Calls of the Open Inference Protocol, in our own messages."""

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.oip import inference_pb2 as pb

TIMEOUT_S = 60.0
SERVICE = "inference.GRPCInferenceService"
DATATYPES = {
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
CONTENTS = {
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}


def call(channel: grpc.Channel, method: str, request: Any, response: type[Any]) -> Any:
    """Call a unary rpc of the protocol."""
    ask: grpc.UnaryUnaryMultiCallable[Any, Any] = channel.unary_unary(
        f"/{SERVICE}/{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=response.FromString,
    )
    return ask(request, timeout=TIMEOUT_S)


def infer(channel: grpc.Channel, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    """Call ModelInfer."""
    response: pb.ModelInferResponse = call(channel, "ModelInfer", request, pb.ModelInferResponse)
    return response


def raw_request(images: npt.NDArray[Any], **fields: Any) -> pb.ModelInferRequest:
    """Return a request whose values are raw."""
    request = pb.ModelInferRequest(
        **{"model_name": "tiny", "raw_input_contents": [images.tobytes()], **fields}
    )
    datatype = DATATYPES[images.dtype.name]
    request.inputs.add(name="images", datatype=datatype, shape=images.shape)
    return request


def typed_request(images: npt.NDArray[Any], **fields: Any) -> pb.ModelInferRequest:
    """Return a request whose values are in the field of their datatype."""
    request = raw_request(images, raw_input_contents=[], **fields)
    contents = CONTENTS[request.inputs[0].datatype]
    getattr(request.inputs[0].contents, contents).extend(images.ravel().tolist())
    return request


def raw_outputs(response: pb.ModelInferResponse) -> dict[str, bytes]:
    """Return the values of each output."""
    names = [output.name for output in response.outputs]
    return dict(zip(names, response.raw_output_contents, strict=True))


def probabilities(response: pb.ModelInferResponse) -> npt.NDArray[np.float32]:
    """Return the (N, 3) probabilities that the tiny model answered."""
    return np.frombuffer(raw_outputs(response)["probabilities"], "<f4").reshape(-1, 3)


def refusal(ask: Callable[[], object]) -> tuple[str, str]:
    """Return the name of the status and the message with which a call is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        ask()
    return caught.value.code().name, caught.value.details() or ""


def stream_infer(channel: grpc.Channel, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    """Call ModelStreamInfer with one request.

    Raises:
        LookupError: The server has answered it with an error.
    """
    ask: grpc.StreamStreamMultiCallable[Any, Any] = channel.stream_stream(
        f"/{SERVICE}/ModelStreamInfer",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=pb.ModelStreamInferResponse.FromString,
    )
    answer: pb.ModelStreamInferResponse = next(ask(iter([request]), timeout=TIMEOUT_S))
    if answer.error_message:
        raise LookupError(answer.error_message)
    return answer.infer_response
