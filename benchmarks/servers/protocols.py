"""Protocols by which the benchmark asks each kind of server, and reads the answers."""

import http.client
import struct
from abc import ABC, abstractmethod
from typing import Final

import grpc
import numpy as np
import numpy.typing as npt

from mlpserve.v1 import prediction_pb2
from servers.wire import first_output, infer_request

MODEL: Final = "digits"
_TIMEOUT_S: Final = 30.0
_BOUNDARY: Final = "mlpserve-boundary"

Images = npt.NDArray[np.uint8]


class Protocol(ABC):
    """One way to ask for the probabilities of a batch of images.

    Attributes:
        path: Where to ask.
        multiplexes: Whether a connection carries several requests at a time; a request at a time
            gets a connection of its own where it does not.
    """

    path: str
    multiplexes = False

    @property
    @abstractmethod
    def load_options(self) -> tuple[str, ...]:
        """Return what h2load needs to know."""

    @abstractmethod
    def request(self, images: Images) -> bytes:
        """Return the request for (N, D) images, without any framing."""

    @abstractmethod
    def probabilities(self, response: bytes) -> bytes:
        """Return the float32 probabilities that a response carries."""

    @abstractmethod
    def body(self, request: bytes) -> bytes:
        """Return what h2load is to send for a request."""

    @abstractmethod
    def ask(self, port: int, request: bytes) -> bytes:
        """Send a request over a connection of its own, and return the response.

        Raises:
            grpc.RpcError, OSError, http.client.HTTPException: There is no answer.
        """

    @abstractmethod
    def body_bytes(self, response: bytes) -> int:
        """Return how many bytes of data h2load must count for a response."""


class _Grpc(Protocol):
    multiplexes = True

    @property
    def load_options(self) -> tuple[str, ...]:
        """Return the headers of gRPC."""
        return ("-H", "content-type: application/grpc", "-H", "te: trailers")

    def body(self, request: bytes) -> bytes:
        # Not compressed, and how long it is: gRPC's frame for a message.
        return b"\0" + struct.pack(">I", len(request)) + request

    def body_bytes(self, response: bytes) -> int:
        return len(self.body(response))

    def ask(self, port: int, request: bytes) -> bytes:
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
        ]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(self.path)
            return call(request, timeout=_TIMEOUT_S)


class Mlpserve(_Grpc):
    """Our own contract."""

    path = "/mlpserve.v1.PredictionService/Predict"

    def request(self, images: Images) -> bytes:
        """Return a PredictRequest."""
        batch = prediction_pb2.ImageBatch(
            count=len(images), data_type=prediction_pb2.DATA_TYPE_UINT8, data=images.tobytes()
        )
        return prediction_pb2.PredictRequest(images=batch).SerializeToString()

    def probabilities(self, response: bytes) -> bytes:
        """Return the field of a PredictResponse."""
        return prediction_pb2.PredictResponse.FromString(response).probabilities


class OpenInference(_Grpc):
    """The Open Inference Protocol, V2, with raw contents."""

    path = "/inference.GRPCInferenceService/ModelInfer"

    def request(self, images: Images) -> bytes:
        """Return a ModelInferRequest."""
        return infer_request(MODEL, images.tobytes(), (len(images), images.shape[1]))

    def probabilities(self, response: bytes) -> bytes:
        """Return the first output of a ModelInferResponse."""
        return first_output(response)


class PlainHttp(Protocol):
    """Pixels posted as they are over HTTP/1.1, probabilities back."""

    path = "/inference"
    content_type = "application/octet-stream"

    @property
    def load_options(self) -> tuple[str, ...]:
        """Return what h2load needs to know."""
        return ("--h1", "-H", f"content-type: {self.content_type}")

    def request(self, images: Images) -> bytes:
        """Return the pixels."""
        return images.tobytes()

    def probabilities(self, response: bytes) -> bytes:
        """Return the response."""
        return response

    def body(self, request: bytes) -> bytes:
        """Return the request."""
        return request

    def body_bytes(self, response: bytes) -> int:
        """Return the length of the response."""
        return len(response)

    def ask(self, port: int, request: bytes) -> bytes:
        """Post a request."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
        try:
            headers = {"content-type": self.content_type}
            connection.request("POST", self.path, request, headers)
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise http.client.HTTPException(f"status {response.status}: {data[:200]!r}")
        return data


class HttpForm(PlainHttp):
    """The same with the pixels as a file in a form."""

    content_type = f"multipart/form-data; boundary={_BOUNDARY}"

    def request(self, images: Images) -> bytes:
        """Return the form."""
        disposition = 'Content-Disposition: form-data; name="images"; filename="images"'
        head = f"--{_BOUNDARY}\r\n{disposition}\r\n\r\n"
        return head.encode() + images.tobytes() + f"\r\n--{_BOUNDARY}--\r\n".encode()
