"""What the fast lane does with the calls of Predict. For the lane's thread only."""

from functools import partial
from time import monotonic_ns

from mlpserve.server.batching import NORMAL_PRIORITY, Outcome, Request, RowQueue
from mlpserve.server.compiled import CompiledModel
from mlpserve.server.fast_lane.lane import HotCall
from mlpserve.server.messages import PREDICT, Messages
from mlpserve.server.statuses import refusal


class HotPredict:
    """Takes the calls of Predict in the fast lane.

    Args:
        messages: The contract.
        queue: Used by this lane only.
    """

    def __init__(self, messages: Messages, queue: RowQueue) -> None:
        self._messages = messages
        self._queue = queue

    def accept(self, data: bytes, call: HotCall) -> None:
        """Let a call wait for its turn, or refuse it."""
        received_ns = monotonic_ns()
        try:
            model, images = self._messages.images(PREDICT, data)
            reply = partial(self._reply, call, model)
            self._queue.put(
                Request(model, images, call.is_wanted, reply, NORMAL_PRIORITY, received_ns)
            )
        except Exception as error:  # noqa: BLE001 - it is logged, and the caller told
            call.fail(*refusal("Predict", error))

    def _reply(self, call: HotCall, model: CompiledModel, outcome: Outcome) -> None:
        if isinstance(outcome, Exception):
            call.fail(*refusal("Predict", outcome))
        else:
            call.answer(self._messages.answer(PREDICT, model, outcome))
