"""What the fast lane does with the calls of ModelInfer. For the lane's thread only."""

from functools import partial
from time import monotonic_ns
from typing import Final

from mlpserve.server.batching import Outcome, Request, RowQueue
from mlpserve.server.fast_lane.lane import HotCall
from mlpserve.server.oip.inference import Asked, Inference
from mlpserve.server.oip.messages import read_request, response_message
from mlpserve.server.statuses import refusal

_METHOD: Final = "ModelInfer"


class HotInfer:
    """Takes the calls of ModelInfer in the fast lane.

    Args:
        inference: Reads the requests.
        queue: Used by this lane only.
    """

    def __init__(self, inference: Inference, queue: RowQueue) -> None:
        self._inference = inference
        self._queue = queue

    def accept(self, data: bytes, call: HotCall) -> None:
        """Let a call wait for its turn, or refuse it."""
        received_ns = monotonic_ns()
        try:
            asked = self._inference.ask(read_request(data), received_ns=received_ns)
            is_wanted, reply = asked.wanted(call.is_wanted), partial(_reply, call, asked)
            self._queue.put(
                Request(asked.model, asked.images, is_wanted, reply, asked.priority, received_ns)
            )
        except Exception as error:  # noqa: BLE001 - it is logged, and the caller told
            call.fail(*refusal(_METHOD, error))


def _reply(call: HotCall, asked: Asked, outcome: Outcome) -> None:
    if isinstance(outcome, Exception):
        call.fail(*refusal(_METHOD, asked.reason(outcome)))
    else:
        call.answer(response_message(asked.response(outcome)).SerializeToString())
