"""The requests of one call of ModelStreamInfer: an error of one leaves the others their answers."""

from collections.abc import Callable
from time import monotonic_ns
from typing import Final

from mlpserve.oip import inference_pb2
from mlpserve.server.batching import Batcher
from mlpserve.server.messages import parsed
from mlpserve.server.oip.inference import Inference, hand_in
from mlpserve.server.oip.messages import plain_request, response_message
from mlpserve.server.oip.requests import InferResponse
from mlpserve.server.statuses import refusal

_METHOD: Final = "ModelStreamInfer"
_FINAL_RESPONSE: Final = "triton_final_response"


class StreamedRequests:
    """Starts the requests of one call.

    Args:
        inference: Reads inference requests.
        batcher: What runs the networks.
        is_awaited: Whether anybody still takes responses.
        ends_with_error: Whether an error is raised, so that it ends the call; otherwise it is a
            response among the others, as Triton has it.
    """

    def __init__(
        self,
        inference: Inference,
        batcher: Batcher,
        is_awaited: Callable[[], bool],
        *,
        ends_with_error: bool,
    ) -> None:
        self._inference = inference
        self._batcher = batcher
        self._is_awaited = is_awaited
        self._ends_with_error = ends_with_error

    def start(self, data: bytes) -> Callable[[], bytes]:
        """Hand a request in, and return what waits for its response."""
        if self._ends_with_error:
            return self._waiting(parsed(inference_pb2.ModelInferRequest, data))
        request_id = ""
        try:
            message = parsed(inference_pb2.ModelInferRequest, data)
            request_id = message.id
            wait = self._waiting(message)
        except Exception as error:  # noqa: BLE001 - it is logged, and the caller told
            refused = _refused(error, request_id)
            return lambda: refused
        return lambda: _answered(wait, request_id)

    def _waiting(self, message: inference_pb2.ModelInferRequest) -> Callable[[], bytes]:
        asked = self._inference.ask(plain_request(message), received_ns=monotonic_ns())
        wait = hand_in(self._batcher, asked, self._is_awaited, waits_for_room=True)
        return lambda: _response(wait())


def _answered(wait: Callable[[], bytes], request_id: str) -> bytes:
    try:
        return wait()
    except Exception as error:  # noqa: BLE001 - it is logged, and the caller told
        return _refused(error, request_id)


def _response(response: InferResponse) -> bytes:
    message = response_message(response)
    message.parameters[_FINAL_RESPONSE].bool_param = True
    return inference_pb2.ModelStreamInferResponse(infer_response=message).SerializeToString()


def _refused(error: Exception, request_id: str) -> bytes:
    _, sentence = refusal(_METHOD, error)
    return inference_pb2.ModelStreamInferResponse(
        error_message=sentence, infer_response=inference_pb2.ModelInferResponse(id=request_id)
    ).SerializeToString()
