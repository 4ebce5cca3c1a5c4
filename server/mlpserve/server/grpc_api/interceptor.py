"""Admission on the public gRPC API."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import grpc
from grpc_health.v1 import health

from mlpserve.server.grpc_api.arrival import NO_REQUEST, InlineExecutor, done, end_badly
from mlpserve.server.grpc_api.servicer import refuse_call
from mlpserve.server.security.admission import CALLER_NAME, Admission, Place
from mlpserve.server.statuses import Refusal, refuse
from mlpserve.server.telemetry.recorder import Recorder
from mlpserve.server.telemetry.request_record import Metadata

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

    gRPC does not say here over which connection a call comes, but an ``AdmittingExecutor`` knows.
    Without one, callers without tokens are one caller together.

    Args:
        admission: Lets them in.
        recorder: Records calls.
        places_of_stream: As how many requests a call counts that may have several in flight.
        knows_connections: Whether the server has an ``AdmittingExecutor``.
    """

    def __init__(
        self,
        admission: Admission,
        recorder: Recorder,
        *,
        places_of_stream: int,
        knows_connections: bool,
    ) -> None:
        self._admission = admission
        self._recorder = recorder
        self._places_of_stream = places_of_stream
        self._knows_connections = knows_connections
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
        admit = partial(self._admitted, handler, method, handler_call_details.invocation_metadata)
        return _KINDS[handler.response_streaming](
            _Arriving(admit) if self._knows_connections else admit(""),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _admitted(
        self,
        handler: Any,  # noqa: ANN401 - grpcio's
        method: str,
        metadata: Metadata | None,
        connection: str | bytes,
    ) -> _Behavior:
        """Return what answers a call that comes over a connection, or what refuses it."""
        places = self._places_of_stream if handler.request_streaming else 1
        try:
            caller = self._admission.enter(metadata, connection, places=places)
        except Exception as error:  # noqa: BLE001 - it is logged, and the caller told
            record = self._recorder.arrived(method.rpartition("/")[2], metadata)
            return self._refused(refuse(self._recorder, record, error))
        place = Place(partial(self._admission.leave, caller, places=places))
        return _leaving(handler, caller, place)

    def _refused(self, refusal: Refusal) -> _Behavior:
        def refuse(_: object, context: grpc.ServicerContext) -> None:
            refuse_call(context, refusal)

        refuse.experimental_thread_pool = self._refusing  # type: ignore[attr-defined] # of grpcio
        return refuse


class _Arriving:
    """What would answer a call of which nobody has found out yet over which connection it comes.

    Args:
        admit: Returns, for a connection, what answers the call.
    """

    def __init__(self, admit: Callable[[str | bytes], _Behavior]) -> None:
        self.admit = admit

    def __call__(self, requests: Any, context: grpc.ServicerContext) -> Any:  # noqa: ANN401
        """Answer the call, where nobody has found it out."""
        return self.admit(context.peer())(requests, context)


class AdmittingExecutor(ThreadPoolExecutor):
    """Has each call of a gRPC server let in, by its connection, and given to what answers it.

    It is told of a call by grpcio's inside, see `mlpserve.server.grpc_api.arrival`.

    Args:
        executor: Answers calls that are let in.
    """

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        super().__init__(1)  # which is never started
        self._executor = executor

    def submit(self, run: Callable[..., Any], /, *args: Any, **_: Any) -> "Future[Any]":  # noqa: ANN401
        """Have a call answered, or refused at once; the arguments are ``ArrivalExecutor``'s."""
        function, event, state, behavior, *others = args
        if isinstance(behavior, _Arriving):
            try:
                behavior = behavior.admit(event.call.peer())
            except Exception as error:  # noqa: BLE001 - it is logged, and the caller told
                end_badly(event.call, error)
                return done()
        executor = getattr(behavior, "experimental_thread_pool", self._executor)
        return executor.submit(run, function, event, state, behavior, *others)


def _leaving(handler: Any, caller: str | bytes, place: Place) -> _Behavior:  # noqa: ANN401 - grpcio's
    """Return what does as a handler does, and gives a place back when the call has ended."""
    behavior = _as_stream(handler)

    def answer(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:  # noqa: ANN401
        CALLER_NAME.set(caller)
        try:
            return behavior(requests, context)
        finally:
            place.leave()

    def answers(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        CALLER_NAME.set(caller)
        try:
            yield from behavior(requests, context)
        finally:
            place.leave()

    return answers if handler.response_streaming else answer


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
