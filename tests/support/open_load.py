"""Callers that ask as often as they like, whether they are answered or not."""

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from threading import Condition, Event
from time import monotonic
from typing import Any, Final, NamedTuple

import grpc
import numpy as np
import numpy.typing as npt

from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc
from steady_load import Figures

_PATIENCE_S: Final = 30.0
_OWN_CONNECTION: Final = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]


class Offered(NamedTuple):
    """What became of calls that were offered at a rate.

    Attributes:
        figures: Lost are those that got no word from the server before their deadline.
        answered_s: How long each took that was answered; in its order.
        refused_s: How long each took that was refused; in its order.
        over_s: For how long calls were offered.
    """

    figures: Figures
    answered_s: list[float]
    refused_s: list[float]
    over_s: float

    @property
    def answered_per_s(self) -> float:
        """Return how many a second were answered."""
        return len(self.answered_s) / self.over_s


def share_of(values: list[float], share: float) -> float:
    """Return the value below which so much of sorted values is."""
    return values[min(len(values) - 1, math.floor(share * len(values)))] if values else 0.0


class OpenLoad:
    """Some connections, over which calls are made in turn.

    Args:
        address: The server's.
        images: What each call asks about.
        expected: The probabilities that it is to be answered with.
        connections: How many.
    """

    def __init__(
        self,
        address: str,
        images: npt.NDArray[np.uint8],
        expected: npt.NDArray[np.float32],
        *,
        connections: int = 16,
    ) -> None:
        self._request = prediction_pb2.PredictRequest(
            images=prediction_pb2.ImageBatch(
                count=len(images),
                data_type=prediction_pb2.DATA_TYPE_UINT8,
                data=images.tobytes(),
            )
        )
        self._expected = expected
        self._channels = [
            grpc.insecure_channel(address, _OWN_CONNECTION) for _ in range(connections)
        ]
        self._stubs = [prediction_pb2_grpc.PredictionServiceStub(each) for each in self._channels]
        self._changed = Condition()
        self._ended: list[tuple[Any, float]] = []

    def peak_per_s(self, over_s: float) -> float:
        """Return how many calls a second are answered, where each connection has one open."""
        ends_s = monotonic() + over_s
        with ThreadPoolExecutor(len(self._stubs)) as asking:
            return (
                sum(asking.map(lambda stub: self._answers_until(stub, ends_s), self._stubs))
                / over_s
            )

    def _answers_until(self, stub: prediction_pb2_grpc.PredictionServiceStub, ends_s: float) -> int:
        count = 0
        while monotonic() < ends_s:
            stub.Predict(self._request, timeout=_PATIENCE_S)
            count += 1
        return count

    def offer(self, *, per_s: float, over_s: float, deadline_s: float) -> Offered:
        """Make calls at a rate, wait until all have ended, and return what became of them."""
        self._ended.clear()
        began_s, sent = monotonic(), math.ceil(per_s * over_s)
        for number, stub in zip(range(sent), itertools.cycle(self._stubs), strict=False):
            Event().wait(max(0.0, began_s + number / per_s - monotonic()))
            self._ask(stub, deadline_s)
        with self._changed:
            assert self._changed.wait_for(
                lambda: len(self._ended) == sent, deadline_s + _PATIENCE_S
            )
        return self._offered(over_s)

    def close(self) -> None:
        for channel in self._channels:
            channel.close()

    def _ask(self, stub: prediction_pb2_grpc.PredictionServiceStub, deadline_s: float) -> Any:
        began_s = monotonic()
        call = stub.Predict.future(self._request, timeout=deadline_s)

        def note(ended: Any) -> None:
            with self._changed:
                self._ended.append((ended, monotonic() - began_s))
                self._changed.notify_all()

        call.add_done_callback(note)
        return call

    def _offered(self, over_s: float) -> Offered:
        answered = [(call, took_s) for call, took_s in self._ended if call.exception() is None]
        refused = [took_s for call, took_s in self._ended if _has_said_why(call)]
        wrong = sum(not self._is_right(call.result()) for call, _ in answered)
        took = sorted(took_s for _, took_s in answered)
        lost = len(self._ended) - len(answered) - len(refused)
        figures = Figures(len(self._ended), len(refused), wrong, lost, share_of(took, 1))
        return Offered(figures, took, sorted(refused), over_s)

    def _is_right(self, response: prediction_pb2.PredictResponse) -> bool:
        found = np.frombuffer(response.probabilities, "<f4").reshape(self._expected.shape)
        return np.allclose(found, self._expected, rtol=0, atol=1e-5)


def _has_said_why(call: Any) -> bool:
    """Return whether the server has refused a call; its words are none of gRPC's own."""
    if call.exception() is None:
        return False
    return call.code() is grpc.StatusCode.UNAVAILABLE or "deadline" in call.details()
