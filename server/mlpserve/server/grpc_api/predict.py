"""The adapter on the public gRPC API: each call in a thread of a pool, bytes in and bytes out."""

from collections.abc import Callable, Iterator

import grpc

from mlpserve.server.grpc_api.caller import Caller
from mlpserve.server.grpc_api.messages import (
    PREDICT,
    PREDICT_STREAM,
    SERVICE_NAME,
    Exchange,
    Messages,
)
from mlpserve.server.grpc_api.streaming import ReadAhead
from mlpserve.server.inference.batcher import Batcher
from mlpserve.server.inference.traffic_split import SplitKey
from mlpserve.server.security.limits import CallLimit
from mlpserve.server.statuses import Calls
from mlpserve.server.telemetry.request_record import RequestRecord


class PredictionService:
    """Answers the rpcs of PredictionService.

    Safe to call from many threads.

    Args:
        messages: The contract.
        batcher: What runs the networks.
        calls: What is done about calls besides answering them.
        streams: How many calls that last may be open.
        max_stream_batches: So many batches of one such call are in flight at once.
    """

    def __init__(
        self,
        messages: Messages,
        batcher: Batcher,
        calls: Calls,
        *,
        streams: CallLimit,
        max_stream_batches: int,
    ) -> None:
        self._messages = messages
        self._batcher = batcher
        self._calls = calls
        self._recorder = calls.recorder
        self._streams = streams
        self._max_stream_batches = max_stream_batches

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return what a gRPC server calls."""
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        return grpc.method_handlers_generic_handler(
            SERVICE_NAME,
            {
                "Predict": unary(self.predict),
                "PredictStream": stream(self.predict_stream),
                "GetModel": unary(self.get_model),
                "ListModels": unary(self.list_models),
            },
        )

    def predict(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        """Classify one batch."""
        with self._calls.handling("Predict", context) as record:
            splitter = self._messages.splitter
            key = None if splitter is None else splitter.key(context.invocation_metadata())
            return self._start(PREDICT, data, record, Caller(context).is_waiting, key)()

    def predict_stream(
        self, requests: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        """Classify batch after batch."""
        caller = Caller(context)
        if (
            not caller.is_waiting()
        ):  # whoever takes calls back by the thousand gets no thread for it
            return
        splitter = self._messages.splitter
        key = None if splitter is None else splitter.call_key(context.invocation_metadata())

        def is_awaited() -> bool:
            return caller.is_waiting() and not ahead.is_abandoned

        def start(data: bytes) -> Callable[[], bytes]:
            record = self._calls.arrived("PredictStream", caller)
            return self._start(PREDICT_STREAM, data, record, is_awaited, key, waits_for_room=True)

        ahead = ReadAhead(requests, start, most=self._max_stream_batches)
        with self._calls.handling("PredictStream", context), self._streams:
            yield from ahead.responses()

    def get_model(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        """Describe one model."""
        with self._calls.handling("GetModel", context) as record:
            response = self._messages.get_model(data)
            self._recorder.ended(record, "OK")
        return response

    def list_models(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        """Describe all models."""
        with self._calls.handling("ListModels", context) as record:
            response = self._messages.list_models(data)
            self._recorder.ended(record, "OK")
        return response

    def _start(
        self,
        exchange: Exchange,
        data: bytes,
        record: RequestRecord,
        is_wanted: Callable[[], bool],
        key: SplitKey,
        *,
        waits_for_room: bool = False,
    ) -> Callable[[], bytes]:
        """Hand a request in, and return what waits for its response."""
        model, images = self._messages.images(exchange, data, key)
        ticket = self._batcher.submit(
            model,
            images,
            is_wanted=is_wanted,
            waits_for_room=waits_for_room,
            record=record,
        )

        def response() -> bytes:
            data = self._messages.answer(exchange, model, ticket.result())
            self._recorder.answered(record)
            return data

        return response
