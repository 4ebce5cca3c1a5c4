"""Admission on the public gRPC API."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import grpc
from grpc_health.v1 import health

from mlpserve.server.errors import OverloadedError, UnauthenticatedError
from mlpserve.server.grpc_api.arrival import NO_REQUEST, InlineExecutor
from mlpserve.server.grpc_api.servicer import refuse_call
from mlpserve.server.security.admission import Admission
from mlpserve.server.statuses import Refusal, refuse
from mlpserve.server.telemetry.recorder import Recorder

# Those who ask whether the server lives, load balancers and orchestrators, cannot be given a token,
# and learn nothing else.
_OPEN: Final = f"/{health.SERVICE_NAME}/"

# What answers a call: takes what comes in and the call, returns what goes out.
_Behavior = Callable[[Any, grpc.ServicerContext], Any]
# By whether many responses are sent. Requests are always many, see ``_as_stream``.
_KINDS: Final[Mapping[bool, Any]] = {
    False: grpc.stream_unary_rpc_method_handler,
    True: grpc.stream_stream_rpc_method_handler,
}


class AdmissionInterceptor(grpc.ServerInterceptor):
    """Refuses calls that are not let in, before their requests are read.

    gRPC does not say here over which connection a call comes. So callers without tokens are one
    caller together.

    Args:
        admission: Lets them in.
        recorder: Records calls.
        places_of_stream: As how many requests a call counts that may have several in flight.
    """

    def __init__(self, admission: Admission, recorder: Recorder, *, places_of_stream: int) -> None:
        self._admission = admission
        self._recorder = recorder
        self._places_of_stream = places_of_stream
        # At once: the threads that answer may all be busy, which is why calls are refused.
        self._refusing = InlineExecutor()

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Any],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401 - as gRPC has it
        """Return what answers a call, or what refuses it."""
        handler = continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(_OPEN):
            return handler
        metadata = handler_call_details.invocation_metadata
        places = self._places_of_stream if handler.request_streaming else 1
        try:
            caller = self._admission.enter(metadata, places=places)
        except (OverloadedError, UnauthenticatedError) as error:
            record = self._recorder.arrived(method.rpartition("/")[2], metadata)
            return self._refused(refuse(self._recorder, record, error))
        return _leaving(handler, lambda: self._admission.leave(caller, places=places))

    def _refused(self, refusal: Refusal) -> Any:  # noqa: ANN401 - grpcio's
        def refuse(_: object, context: grpc.ServicerContext) -> None:
            refuse_call(context, refusal)

        refuse.experimental_thread_pool = self._refusing  # type: ignore[attr-defined] # of grpcio
        return grpc.stream_unary_rpc_method_handler(refuse)


def _leaving(handler: Any, leave: Callable[[], None]) -> Any:  # noqa: ANN401 - grpcio's, of four kinds
    """Return a handler that does the same, and calls ``leave`` at the end of the call."""
    behavior = _as_stream(handler)

    def answer(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:  # noqa: ANN401
        try:
            return behavior(requests, context)
        finally:
            leave()

    def answers(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            yield from behavior(requests, context)
        finally:
            leave()

    return _KINDS[handler.response_streaming](
        answers if handler.response_streaming else answer,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


def _as_stream(handler: Any) -> _Behavior:  # noqa: ANN401
    """Return what a handler does, as a function of the stream of requests.

    gRPC would not call one for a single request where the caller goes before having sent it, and
    nobody would know that the call has ended.
    """
    streams = handler.stream_stream or handler.stream_unary
    if streams is not None:
        taken: _Behavior = streams
        return taken
    behavior: _Behavior = handler.unary_stream or handler.unary_unary

    def behave(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:  # noqa: ANN401
        request = next(requests, None)
        if request is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, NO_REQUEST)
        return behavior(request, context)

    return behave
