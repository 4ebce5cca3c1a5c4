"""Whole calls of gRPC that ask for too much."""

import random
from collections.abc import Iterable
from typing import Any, Final

import grpc

from mlpserve.oip import inference_pb2
from mlpserve.v1 import prediction_pb2
from raw_http2 import MODEL_INFER, PREDICT, RawHttp2, grpc_message
from servers.abuses.abuse import TIMEOUT_S, Abuse, Target, status_name
from servers.protocols import MODEL

PIXELS: Final = 784
FORGED: Final = "X\n2026-01-01 00:00:00,000 INFO all is well\x1b[2J\r\u2028"
_MB: Final = 1 << 20
_OPTIONS: Final = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
]
_EMPTY_INPUT: Final = b"\x2a\x00"  # field 5 of ModelInferRequest, without content


class _Asking(Abuse):
    """Calls a method with bytes, over one connection."""

    compression = grpc.Compression.NoCompression

    def __init__(self, target: Target, rng: random.Random) -> None:
        super().__init__(target, rng)
        self._channel = grpc.insecure_channel(target.address, _OPTIONS)

    def ask(self, path: str, message: bytes) -> list[str]:
        """Return the status of a call."""
        call: Any = self._channel.unary_unary(path)
        try:
            call(message, timeout=TIMEOUT_S, compression=self.compression)
        except grpc.RpcError as error:
            return [str(error.code().name)]
        return ["OK"]

    def close(self) -> Iterable[str]:
        """Close the connection."""
        self._channel.close()
        return ()


class EmptyInputs(_Asking):
    """ModelInfer with millions of empty inputs."""

    what = "ModelInfer with 4 million empty inputs (8 MB), compressed"
    per_s = 0.25
    compression = grpc.Compression.Gzip

    def act(self) -> Iterable[str]:
        """Send one."""
        return self.ask(MODEL_INFER, _EMPTY_INPUT * 4_000_000)


class Varints(_Asking):
    """ModelInfer with millions of numbers of a byte."""

    what = "ModelInfer with 16 million numbers of a byte in int64_contents, compressed"
    per_s = 0.2
    compression = grpc.Compression.Gzip

    def act(self) -> Iterable[str]:
        """Send one."""
        contents = _field(3, b"\x01" * (16 * _MB))
        head = _field(1, b"images") + _field(2, b"INT64") + b"\x18\x01\x18\x06"
        return self.ask(MODEL_INFER, _field(5, head + _field(5, contents)))


class TooLarge(_Asking):
    """Messages over the limit."""

    what = "gRPC: a message of 65 MB that is sent, and one that announces 4 GB"
    per_s = 0.1

    def act(self) -> Iterable[str]:
        """Send both."""
        with RawHttp2(self.target.address) as connection:
            connection.take_note()
            connection.send(*connection.call(PREDICT, grpc_message(b"", announced=(1 << 32) - 1)))
            connection.receive(ends=1)
            announced = [status_name(code) for code, _ in connection.statuses.elements()]
        return [*announced, *self.ask(PREDICT, bytes(65 * _MB))]


class PriorityHog(_Asking):
    """One caller that always has large requests of the highest priority waiting."""

    what = "4 requests at once of 1024 images with `priority: 1`"
    per_s = 1.0

    def act(self) -> Iterable[str]:
        """Send them."""
        request = inference_pb2.ModelInferRequest(
            model_name=MODEL, raw_input_contents=[bytes(1024 * PIXELS)]
        )
        request.inputs.add(name="images", datatype="UINT8", shape=[1024, PIXELS])
        request.parameters["priority"].int64_param = 1
        infer: Any = self._channel.unary_unary(MODEL_INFER)
        message = request.SerializeToString()
        calls = [infer.future(message, timeout=TIMEOUT_S) for _ in range(4)]
        return [call.code().name for call in calls]


class BatchSizes(_Asking):
    """Batches of ever other sizes."""

    what = "batches of thousands of sizes, 1 to 4096 images"
    per_s = 8

    def act(self) -> Iterable[str]:
        """Send one; most are small."""
        size = int(2 ** self.rng.uniform(0, 12))
        images = prediction_pb2.ImageBatch(
            count=size, data_type=prediction_pb2.DATA_TYPE_UINT8, data=bytes(size * PIXELS)
        )
        request = prediction_pb2.PredictRequest(images=images, model_name=MODEL)
        return self.ask(PREDICT, request.SerializeToString())


class ForgedNames(_Asking):
    """Names that would be lines of the log."""

    what = "gRPC: model names and data types with new lines and terminal escapes"
    per_s = 20

    def act(self) -> Iterable[str]:
        """Ask for such a name."""
        request = inference_pb2.ModelInferRequest(
            model_name=self.rng.choice((FORGED, MODEL)), id=FORGED, raw_input_contents=[b""]
        )
        request.inputs.add(name=FORGED, datatype=FORGED, shape=[1, PIXELS])
        return self.ask(MODEL_INFER, request.SerializeToString())


def _field(number: int, data: bytes) -> bytes:
    """Return a field of protobuf that has a length."""
    length, rest = bytearray(), len(data)
    while rest > 127:  # noqa: PLR2004 - seven bits of a varint
        length.append(rest & 127 | 128)
        rest >>= 7
    return bytes([number << 3 | 2, *length, rest]) + data


ABUSES: Final = (
    EmptyInputs,
    Varints,
    TooLarge,
    PriorityHog,
    BatchSizes,
    ForgedNames,
)
