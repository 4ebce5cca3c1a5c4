"""The client library: batches of images in, NumPy arrays out.

In short:

    with Client("localhost:50051") as client:
        result = client.predict(images)
    print(result.labels, result.probabilities, result.model_version)
"""

try:
    import grpc  # noqa: F401 - asked for here, where the answer to its absence can be given
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "mlpserve.client needs grpcio: pip install 'mlpserve[client]'"
    ) from error

from mlpserve.client.async_batching import AsyncBatchingClient
from mlpserve.client.async_client import AsyncClient
from mlpserve.client.batching import BatchingClient
from mlpserve.client.client import Client
from mlpserve.client.errors import (
    ClientError,
    InvalidRequestError,
    NotFoundError,
    ServerFaultError,
    TimeoutExceededError,
    UnauthenticatedError,
    UnavailableError,
)
from mlpserve.client.explanations import Explanations
from mlpserve.client.photographs import preprocess
from mlpserve.client.predictions import Predictions, ServerTimings, TopClasses
from mlpserve.client.results import (
    HealthStatus,
    ModelInfo,
    ShadowInfo,
    TrainingInfo,
    VersionInfo,
)

__all__ = [
    "AsyncBatchingClient",
    "AsyncClient",
    "BatchingClient",
    "Client",
    "ClientError",
    "Explanations",
    "HealthStatus",
    "InvalidRequestError",
    "ModelInfo",
    "NotFoundError",
    "Predictions",
    "ServerFaultError",
    "ServerTimings",
    "ShadowInfo",
    "TimeoutExceededError",
    "TopClasses",
    "TrainingInfo",
    "UnauthenticatedError",
    "UnavailableError",
    "VersionInfo",
    "preprocess",
]
