"""Callers that ask and never read."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from mlpserve.v1 import prediction_pb2
from raw_http2 import grpc_message

Attack = Callable[..., AbstractContextManager[Any]]
CALLS: Final = 900
IMAGES: Final = 8192
REQUEST_: Final = grpc_message(
    prediction_pb2.PredictRequest(
        images=prediction_pb2.ImageBatch(
            count=IMAGES, data_type=prediction_pb2.DATA_TYPE_UINT8, data=bytes(6 * IMAGES)
        )
    ).SerializeToString()
)
