"""What the fast lane does with the calls of Predict. For the lane's thread only."""

from functools import partial

from mlpserve.server.grpc_api.fast_lane.lane import HotCall
from mlpserve.server.grpc_api.messages import PREDICT, Messages
from mlpserve.server.inference.compiled import CompiledModel
from mlpserve.server.inference.queue import Outcome, Request, RowQueue
from mlpserve.server.statuses import Calls
from mlpserve.server.telemetry.request_record import RequestRecord


class HotPredict:
    """Takes the calls of Predict in the fast lane.

    Args:
        messages: The contract.
        queue: Used by this lane only.
        calls: Used by this lane only.
    """

    def __init__(self, messages: Messages, queue: RowQueue, calls: Calls) -> None:
        self._messages = messages
        self._queue = queue
        self._calls = calls
        self._recorder = calls.recorder
        self._splitter = messages.splitter

    def accept(self, data: bytes, call: HotCall) -> None:
        """Let a call wait for its turn, or refuse it."""
        record = self._recorder.arrived(
            "Predict", call.metadata, caller=call.caller, remaining_s=call.remaining_s()
        )
        try:
            key = None if self._splitter is None else self._splitter.key(call.metadata)
            model, images = self._messages.images(PREDICT, data, key)
            self._recorder.read(record, model.metadata.name, model.metadata.version)
            reply = partial(self._reply, call, record, model)
            self._queue.put(Request(model, images, call.is_wanted, reply, record=record))
        except Exception as error:  # noqa: BLE001 - it is logged, and the caller told
            call.fail(*self._calls.refusal(record, error))

    def _reply(
        self, call: HotCall, record: RequestRecord, model: CompiledModel, outcome: Outcome
    ) -> None:
        if isinstance(outcome, Exception):
            call.fail(*self._calls.refusal(record, outcome))
        else:
            call.answer(self._messages.answer(PREDICT, model, outcome))
            self._recorder.answered(record)
