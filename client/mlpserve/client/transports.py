"""The way to the server, as the core of the client sees it, and the names of what it is asked."""

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final, Protocol, TypeAlias

from mlpserve.client.streams import StreamRequests, Turns

_SERVICE: Final = "/mlpserve.v1.PredictionService/"
PREDICT: Final = f"{_SERVICE}Predict"
PREDICT_STREAM: Final = f"{_SERVICE}PredictStream"
EXPLAIN: Final = f"{_SERVICE}Explain"
GET_MODEL: Final = f"{_SERVICE}GetModel"
LIST_MODELS: Final = f"{_SERVICE}ListModels"
HEALTH: Final = "/grpc.health.v1.Health/Check"
Metadata: TypeAlias = tuple[tuple[str, str], ...]


class Pending(Protocol):
    """A call that was started."""

    @property
    def is_over(self) -> bool:
        """Return whether there is an answer or an error."""

    def when_over(self, act: Callable[[], None]) -> None:
        """Call ``act`` when it is over, or at once if it is."""

    async def answer(self) -> bytes:
        """Wait for the answer."""

    def cancel(self) -> None:
        """Give the call up, if it is not over."""


class Transport(Protocol):
    """The way to the server. Requests and answers are encoded messages, failures grpc.RpcError."""

    is_closed: bool
    process: int | None  # that opened the channel; None before it is open

    async def ask(self, method: str, request: bytes, timeout_s: float, metadata: Metadata) -> bytes:
        """Send a request, wait for its answer and return it."""

    def start(self, method: str, request: bytes, timeout_s: float, metadata: Metadata) -> Pending:
        """Send a request and return without its answer."""

    def turns(self) -> Turns:
        """Return the turns of a new stream."""

    def stream(
        self,
        method: str,
        requests: StreamRequests,
        timeout_s: float,
        metadata: Metadata,
    ) -> AsyncGenerator[bytes, None]:
        """Send a stream of requests, and yield the answers; the call ends with the iterator."""

    async def first(self, calls: Sequence[Pending], timeout_s: float) -> Pending | None:
        """Wait until one of the calls is over, and return it; None where that takes longer."""

    async def sleep(self, duration_s: float) -> None:
        """Wait a while."""
