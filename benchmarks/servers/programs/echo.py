"""Answers Predict with one prepared response, on our fast lane: all of a call but the inference.

python echo.py MODELS PORT
"""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import grpc

from mlpserve.server.grpc_api.fast_lane.calls import HotCall
from mlpserve.server.grpc_api.fast_lane.lane import FastLane
from mlpserve.server.grpc_api.late_calls import LateCalls
from mlpserve.v1 import prediction_pb2

_METHOD: Final = "/mlpserve.v1.PredictionService/Predict"
_CLASSES: Final = 10
_MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024


class Echo:
    """Collects calls as the server does, and answers them together.

    The response depends on the size of the request alone, and so has the right size.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[int, HotCall]] = []
        self._responses: dict[int, bytes] = {}

    def __bool__(self) -> bool:
        """Return whether any call waits."""
        return bool(self._waiting)

    def admits(self, call: HotCall) -> bool:  # noqa: ARG002 - as HotWork has it
        """Let any call send its request."""
        return True

    def ended(self, call: HotCall) -> None:
        """Do nothing: no call is counted."""

    def accept(self, data: bytes, call: HotCall) -> None:
        """Let a call wait."""
        if len(data) not in self._responses:
            self._responses[len(data)] = _response(data)
        self._waiting.append((len(data), call))

    def refuse(self, call: HotCall, error: Exception) -> None:
        """See ``HotWork``."""
        call.fail(grpc.StatusCode.CANCELLED, str(error))

    def work(self) -> None:
        """Answer all calls that wait."""
        waiting, self._waiting = self._waiting, []
        for length, call in waiting:
            if call.is_wanted():
                call.answer(self._responses[length])


def _response(data: bytes) -> bytes:
    count = prediction_pb2.PredictRequest.FromString(data).images.count
    return prediction_pb2.PredictResponse(
        model_name="digits",
        model_version=1,
        probabilities=bytes(4 * _CLASSES * count),
        labels=bytes(4 * count),
    ).SerializeToString()


def main() -> None:
    """Serve until killed."""
    server = grpc.server(
        ThreadPoolExecutor(1),
        options=[("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES)],
    )
    server.add_insecure_port(f"127.0.0.1:{sys.argv[2]}")
    echo = Echo()
    FastLane(server, [_METHOD], echo, LateCalls()).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
