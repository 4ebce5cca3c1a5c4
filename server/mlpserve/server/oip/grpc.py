"""The adapter on the public gRPC API: the rpcs of inference.GRPCInferenceService."""

from collections.abc import Iterator
from typing import Final

import grpc

from mlpserve.server.grpc_api.caller import Caller
from mlpserve.server.grpc_api.streaming import ReadAhead
from mlpserve.server.inference.batcher import Batcher
from mlpserve.server.oip.inference import Inference, hand_in
from mlpserve.server.oip.messages import SERVICE_NAME, read_request, response_message
from mlpserve.server.oip.metadata_rpcs import question_handlers
from mlpserve.server.oip.repository import Repository
from mlpserve.server.oip.streaming import StreamedRequests
from mlpserve.server.security.limits import CallLimit
from mlpserve.server.statuses import Calls

MODEL_INFER: Final = "ModelInfer"
_STREAM: Final = "ModelStreamInfer"
_REAL_STATUSES: Final = ("triton_grpc_error", "true")  # metadata of a call


class InferenceService:
    """Answers the rpcs of GRPCInferenceService. Safe to call from many threads.

    Args:
        inference: Reads inference requests.
        repository: Answers all other questions.
        batcher: What runs the networks.
        calls: What is done about calls besides answering them.
        streams: How many calls that last may be open.
        max_stream_batches: So many batches of one such call are in flight at once.
    """

    def __init__(
        self,
        inference: Inference,
        repository: Repository,
        batcher: Batcher,
        calls: Calls,
        *,
        streams: CallLimit,
        max_stream_batches: int,
    ) -> None:
        self._inference = inference
        self._repository = repository
        self._batcher = batcher
        self._calls = calls
        self._streams = streams
        self._max_stream_batches = max_stream_batches

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return what a gRPC server calls."""
        return grpc.method_handlers_generic_handler(
            SERVICE_NAME,
            {
                MODEL_INFER: grpc.unary_unary_rpc_method_handler(self.model_infer),
                _STREAM: grpc.stream_stream_rpc_method_handler(self.model_stream_infer),
                **question_handlers(self._repository, self._calls),
            },
        )

    def model_infer(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        """Classify one batch."""
        with self._calls.handling(MODEL_INFER, context) as record:
            asked = self._inference.ask(read_request(data), record)
            wait = hand_in(
                self._batcher, asked, record, Caller(context).is_waiting, waits_for_room=False
            )
            response = response_message(wait()).SerializeToString()
            self._calls.recorder.answered(record)
        return response

    def model_stream_infer(
        self, requests: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        """Classify batch after batch."""
        caller = Caller(context)
        if (
            not caller.is_waiting()
        ):  # whoever takes calls back by the thousand gets no thread for it
            return

        def is_awaited() -> bool:
            return caller.is_waiting() and not ahead.is_abandoned

        streamed = StreamedRequests(
            self._inference,
            self._batcher,
            self._calls,
            is_awaited,
            caller,
            ends_with_error=_wants_statuses(context),
        )
        ahead = ReadAhead(requests, streamed.start, most=self._max_stream_batches)
        with self._calls.handling(_STREAM, context), self._streams:
            yield from ahead.responses()


def _wants_statuses(context: grpc.ServicerContext) -> bool:
    metadata = context.invocation_metadata() or ()
    return any((key, value) == _REAL_STATUSES for key, value in metadata)
