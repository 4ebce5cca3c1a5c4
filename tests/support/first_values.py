"""A server for tests of batching: classifies each image as its first value, notes its calls."""

import threading
from typing import Final

import grpc
import numpy as np
import numpy.typing as npt

from mlpserve.v1 import prediction_pb2

BAD: Final = 255  # an image that begins so is refused, with all that came along
_CLASSES: Final = 256
_WAIT_S: Final = 60.0


def image(*first: int, width: int = 6) -> npt.NDArray[np.uint8]:
    """Return images with these first values."""
    images = np.zeros((len(first), width), np.uint8)
    images[:, 0] = first
    return images


class Asked:
    """A server that classifies each image as its first value, and notes what it was asked."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.versions: list[int] = []
        self.is_held = False
        self.entered, self.released, self.cancelled = (threading.Event() for _ in range(3))

    def predict(
        self, request: prediction_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> prediction_pb2.PredictResponse:
        count = request.images.count
        self.counts.append(count)
        self.versions.append(request.model_version)
        if self.is_held:
            context.add_callback(self.cancelled.set)
            self.entered.set()
            self.released.wait(_WAIT_S)
        found = np.frombuffer(request.images.data, np.uint8).reshape(count, -1)[:, 0]
        if request.model_name == "busy":
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "images: too many bytes")
        if request.model_name == "none":
            context.abort(grpc.StatusCode.NOT_FOUND, "no model 'none' is served")
        if BAD in found:
            row = found.tolist().index(BAD)
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"images.data: image {row} is bad")
        return prediction_pb2.PredictResponse(
            model_name="first",
            model_version=1,
            probabilities=np.eye(_CLASSES, dtype="<f4")[found].tobytes(),
            labels=found.astype("<i4").tobytes(),
        )
