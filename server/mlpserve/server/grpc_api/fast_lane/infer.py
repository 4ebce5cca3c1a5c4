"""What the fast lane does with the calls of ModelInfer. For the lane's thread only."""

from functools import partial
from typing import Final

from mlpserve.server.grpc_api.fast_lane.lane import HotCall
from mlpserve.server.inference.queue import Outcome, Request, RowQueue
from mlpserve.server.oip.inference import Asked, Inference
from mlpserve.server.oip.messages import read_request, response_message
from mlpserve.server.statuses import Calls
from mlpserve.server.telemetry.request_record import RequestRecord

_METHOD: Final = "ModelInfer"


class HotInfer:
    """Takes the calls of ModelInfer in the fast lane.

    Args:
        inference: Reads the requests.
        queue: Used by this lane only.
        calls: Used by this lane only.
    """

    def __init__(self, inference: Inference, queue: RowQueue, calls: Calls) -> None:
        self._inference = inference
        self._queue = queue
        self._calls = calls
        self._recorder = calls.recorder

    def accept(self, data: bytes, call: HotCall) -> None:
        """Let a call wait for its turn, or refuse it."""
        record = self._recorder.arrived(
            _METHOD, call.metadata, caller=call.caller, remaining_s=call.remaining_s()
        )
        try:
            asked = self._inference.ask(read_request(data), record)
            self._recorder.read(record, asked.model.metadata.name, asked.model.metadata.version)
            is_wanted = asked.wanted(call.is_wanted)
            reply = partial(self._reply, call, record, asked)
            self._queue.put(
                Request(
                    asked.model,
                    asked.images,
                    is_wanted,
                    reply,
                    priority=asked.priority,
                    record=record,
                )
            )
        except Exception as error:  # noqa: BLE001 - it is logged, and the caller told
            call.fail(*self._calls.refusal(record, error))

    def _reply(self, call: HotCall, record: RequestRecord, asked: Asked, outcome: Outcome) -> None:
        if isinstance(outcome, Exception):
            call.fail(*self._calls.refusal(record, asked.reason(outcome)))
        else:
            call.answer(response_message(asked.response(outcome)).SerializeToString())
            self._recorder.answered(record)
