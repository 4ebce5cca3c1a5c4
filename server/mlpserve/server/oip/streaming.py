"""The requests of one call of ModelStreamInfer: an error of one leaves the others their answers."""

from collections.abc import Callable
from typing import Final

from mlpserve.oip import inference_pb2
from mlpserve.server.grpc_api.caller import Caller
from mlpserve.server.grpc_api.messages import parsed
from mlpserve.server.inference.batcher import Batcher
from mlpserve.server.oip.inference import Inference, hand_in
from mlpserve.server.oip.messages import plain_request, response_message
from mlpserve.server.oip.requests import InferResponse
from mlpserve.server.statuses import Calls
from mlpserve.server.telemetry.request_record import RequestRecord

_METHOD: Final = "ModelStreamInfer"
_FINAL_RESPONSE: Final = "triton_final_response"


class StreamedRequests:
    """Starts the requests of one call.

    Args:
        inference: Reads inference requests.
        batcher: What runs the networks.
        calls: What is done about requests besides answering them.
        is_awaited: Whether anybody still takes responses.
        caller: Who made the call.
        ends_with_error: Whether an error is raised, so that it ends the call; otherwise it is a
            response among the others, as Triton has it.
    """

    def __init__(
        self,
        inference: Inference,
        batcher: Batcher,
        calls: Calls,
        is_awaited: Callable[[], bool],
        caller: Caller,
        *,
        ends_with_error: bool,
    ) -> None:
        self._inference = inference
        self._batcher = batcher
        self._calls = calls
        self._caller = caller
        self._is_awaited = is_awaited
        self._ends_with_error = ends_with_error

    def start(self, data: bytes) -> Callable[[], bytes]:
        """Hand a request in, and return what waits for its response."""
        record = self._calls.arrived(_METHOD, self._caller)
        if self._ends_with_error:
            return self._waiting(parsed(inference_pb2.ModelInferRequest, data), record)
        request_id = ""
        try:
            message = parsed(inference_pb2.ModelInferRequest, data)
            request_id = message.id
            wait = self._waiting(message, record)
        except Exception as error:  # noqa: BLE001 - it is logged, and the caller told
            refused = self._refused(error, record, request_id)
            return lambda: refused
        return lambda: self._answered(wait, record, request_id)

    def _waiting(
        self, message: inference_pb2.ModelInferRequest, record: RequestRecord
    ) -> Callable[[], bytes]:
        asked = self._inference.ask(plain_request(message), record)
        wait = hand_in(self._batcher, asked, record, self._is_awaited, waits_for_room=True)

        def response() -> bytes:
            data = _response(wait())
            self._calls.recorder.answered(record)
            return data

        return response

    def _answered(self, wait: Callable[[], bytes], record: RequestRecord, request_id: str) -> bytes:
        try:
            return wait()
        except Exception as error:  # noqa: BLE001 - it is logged, and the caller told
            return self._refused(error, record, request_id)

    def _refused(self, error: Exception, record: RequestRecord, request_id: str) -> bytes:
        refusal = self._calls.refusal(record, error)
        return inference_pb2.ModelStreamInferResponse(
            error_message=refusal.details,
            infer_response=inference_pb2.ModelInferResponse(id=request_id),
        ).SerializeToString()


def _response(response: InferResponse) -> bytes:
    message = response_message(response)
    message.parameters[_FINAL_RESPONSE].bool_param = True
    return inference_pb2.ModelStreamInferResponse(infer_response=message).SerializeToString()
