"""Servicer of the public gRPC API: what all services have in common, bytes in and bytes out.

Each call has a thread of a pool. A service is a table of rpcs, each made by `unary`, `predict` or
`stream` of a ``Servicer``.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import monotonic
from typing import Final, NoReturn, TypeAlias

import grpc

from mlpserve.server.errors import TooLargeError
from mlpserve.server.grpc_api.streaming import ReadAhead
from mlpserve.server.inference.batcher import Batcher
from mlpserve.server.inference.registry import Router, SplitKey
from mlpserve.server.inference.request import Parse
from mlpserve.server.security.admission import CALLER_NAME, CallLimit
from mlpserve.server.statuses import Refusal, refuse
from mlpserve.server.telemetry.recorder import Recorder
from mlpserve.server.telemetry.request_record import Metadata, RequestRecord

RpcHandler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"
# Writes the response that tells of an error in its place among the responses of a stream; takes the
# request and the refusal.
EncodeRefusal: TypeAlias = Callable[[bytes, Refusal], bytes]
_NO_LIMIT: Final = nullcontext()
MAX_QUESTION_BYTES: Final = 16 * 1024  # a request without images: names and options


class Caller:
    """The caller of a call that has just come. Safe to use from many threads.

    gRPC tells the deadline by the wall clock, which may be set while the call is open. So it is
    asked once, and kept by a clock that only runs on.

    Args:
        context: The call's.

    Attributes:
        metadata: What it sent along: pairs of a key and a value.
        name: What it is called, as its token says, or its connection.
    """

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._context = context
        self._deadline_s = monotonic() + context.time_remaining()
        self.metadata: Metadata = context.invocation_metadata()
        self.name = CALLER_NAME.get("") or context.peer()

    def remaining_s(self) -> float:
        """Return the seconds until the deadline."""
        return self._deadline_s - monotonic()

    def is_waiting(self) -> bool:
        """Return whether it still waits."""
        return self._context.is_active() and self.remaining_s() > 0


class Servicer:
    """Makes the handlers of rpcs. Safe to use from many threads.

    Args:
        batcher: Runs the networks.
        router: Knows whose requests of a split belong together.
        recorder: Records calls.
        streams: How many calls that last may be open.
        max_stream_batches: So many batches of one such call are in flight at once.
    """

    def __init__(
        self,
        batcher: Batcher,
        router: Router,
        recorder: Recorder,
        *,
        streams: CallLimit,
        max_stream_batches: int,
    ) -> None:
        self._batcher = batcher
        self._router = router
        self._recorder = recorder
        self._streams = streams
        self._max_stream_batches = max_stream_batches

    def unary(
        self,
        method: str,
        answer: Callable[[bytes], bytes],
        limit: AbstractContextManager[None] = _NO_LIMIT,
    ) -> RpcHandler:
        """Return the handler of an rpc that no network runs for.

        Args:
            method: The rpc's name.
            answer: Returns the response to a request.
            limit: Entered while it is answered.
        """

        def handle(data: bytes, context: grpc.ServicerContext) -> bytes:
            with handling(self._recorder, method, context) as record, limit:
                _check_length(data)
                response = answer(data)
                self._recorder.ended(record, "OK")
            return response

        return grpc.unary_unary_rpc_method_handler(handle)

    def predict(self, method: str, parse: Parse) -> RpcHandler:
        """Return the handler of an rpc that classifies one batch."""

        def handle(data: bytes, context: grpc.ServicerContext) -> bytes:
            caller = Caller(context)
            with handling(self._recorder, method, context, caller) as record:
                key = self._router.key(caller.metadata)
                return self._submit(parse, data, record, key, caller.is_waiting)()

        return grpc.unary_unary_rpc_method_handler(handle)

    def stream(
        self,
        method: str,
        parse: Parse,
        refusal_encoder: Callable[[Metadata], EncodeRefusal | None] = lambda _: None,
    ) -> RpcHandler:
        """Return the handler of an rpc that classifies batch after batch, answered in their order.

        Args:
            method: The rpc's name.
            parse: Reads each request.
            refusal_encoder: Returns, for the metadata of a call, what writes an error as one of the
                responses; None where the first error ends the call.
        """

        def handle(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            caller = Caller(context)
            if not caller.is_waiting():
                return  # whoever takes calls back by the thousand gets no thread for it

            def is_wanted() -> bool:
                return caller.is_waiting() and not ahead.is_abandoned

            def start(data: bytes) -> Callable[[], bytes]:
                record = arrived(self._recorder, method, caller)

                def submit() -> Callable[[], bytes]:
                    return self._submit(parse, data, record, key, is_wanted, waits_for_room=True)

                if encode_refusal is None:
                    return submit()
                return self._with_refusals(submit, data, record, encode_refusal)

            ahead = ReadAhead(requests, start, max_in_flight=self._max_stream_batches)
            with handling(self._recorder, method, context, caller), self._streams:
                key = self._router.stream_key(caller.metadata)
                encode_refusal = refusal_encoder(caller.metadata)
                yield from ahead.responses()

        return grpc.stream_stream_rpc_method_handler(handle)

    def _submit(
        self,
        parse: Parse,
        data: bytes,
        record: RequestRecord,
        key: SplitKey,
        is_wanted: Callable[[], bool],
        *,
        waits_for_room: bool = False,
    ) -> Callable[[], bytes]:
        """Queue a request, and return what waits for its response."""
        request = parse(data, record, key)
        request.is_wanted = is_wanted
        self._batcher.submit(request, waits_for_room=waits_for_room)

        def response() -> bytes:
            encoded = request.encode(self._batcher.wait(request))
            self._recorder.answered(record)
            return encoded

        return response

    def _with_refusals(
        self,
        submit: Callable[[], Callable[[], bytes]],
        data: bytes,
        record: RequestRecord,
        encode_refusal: EncodeRefusal,
    ) -> Callable[[], bytes]:
        """Submit a request whose error is a response, so that the call goes on."""

        def refused(error: Exception) -> bytes:
            return encode_refusal(data, refuse(self._recorder, record, error))

        try:
            wait = submit()
        except Exception as error:  # noqa: BLE001 - it is logged, and the caller told
            response = refused(error)
            return lambda: response

        def answered() -> bytes:
            try:
                return wait()
            except Exception as error:  # noqa: BLE001 - it is logged, and the caller told
                return refused(error)

        return answered


def _check_length(data: bytes) -> None:
    if len(data) > MAX_QUESTION_BYTES:
        raise TooLargeError(f"expected at most {MAX_QUESTION_BYTES} bytes, got {len(data)}")


def arrived(recorder: Recorder, method: str, caller: Caller) -> RequestRecord:
    """Return the record of a request of the public API that comes now."""
    return recorder.arrived(
        method, caller.metadata, caller=caller.name, remaining_s=caller.remaining_s()
    )


@contextmanager
def handling(
    recorder: Recorder, method: str, context: grpc.ServicerContext, caller: Caller | None = None
) -> Iterator[RequestRecord]:
    """Follow a call of the public API, and end it with the right status where the block raises.

    Left to itself, gRPC would answer with the text of any exception, and so show our internals.

    Yields:
        The call's record. Whoever answers says so to the recorder.
    """
    record = RequestRecord(method)
    try:
        record = arrived(recorder, method, Caller(context) if caller is None else caller)
        yield record
    except grpc.RpcError:
        # gRPC's own way to say that the caller is gone; nobody is left to be told.
        raise
    except Exception as error:  # noqa: BLE001 - it is logged, and the caller told
        refuse_call(context, refuse(recorder, record, error))


def refuse_call(context: grpc.ServicerContext, refusal: Refusal) -> NoReturn:
    """End a call of the public API."""
    context.set_trailing_metadata(refusal.metadata)
    context.abort(refusal.code, refusal.details)
