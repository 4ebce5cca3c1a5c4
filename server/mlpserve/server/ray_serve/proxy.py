"""Proxy: our services as Ray Serve's gRPC proxy knows them; it passes bytes on, and parses none.

The proxy takes from each service the names of its rpcs, and puts handlers of its own in the place
of the service's, which send requests to replicas. Around these, in the proxy's process, requests
get their deadline, of which Ray tells a replica nothing, and failures of Ray a status that clients
try again after.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Final, NamedTuple

import grpc
from grpc_health.v1 import health_pb2

from mlpserve.oip import inference_pb2
from mlpserve.server.statuses import PUSHBACK
from mlpserve.server.telemetry.request_log import REQUEST_ID_KEY
from mlpserve.v1 import prediction_pb2

_MAX_CAUSE_CHARACTERS: Final = 200
# Statuses by which Ray says what with us is UNAVAILABLE; from a replica they mean something else.
_RAYS_STATUSES: Final = {
    grpc.StatusCode.INTERNAL: "the replica that had this request did not answer it",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "the server is busy: too many requests wait",
    grpc.StatusCode.NOT_FOUND: "no application is ready here for this request",
}


class Rpc(NamedTuple):
    """One rpc that replicas answer.

    Attributes:
        service: The full name of its service.
        name: Its own name; Ray finds the replica's method by it.
        is_stream: Whether requests and responses are streams; otherwise there is one of each.
    """

    service: str
    name: str
    is_stream: bool

    @property
    def path(self) -> str:
        """Return its name on the wire."""
        return f"/{self.service}/{self.name}"


def _rpcs() -> Iterator[Rpc]:
    services = (
        prediction_pb2.DESCRIPTOR.services_by_name["PredictionService"],
        inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
        health_pb2.DESCRIPTOR.services_by_name["Health"],
    )
    for service in services:
        for method in service.methods:
            # A watch of health would be an open request of a replica, for as long as a client is
            # connected. Clients take who answers none for healthy. Source: gRPC proposal A17.
            if method.name != "Watch":
                yield Rpc(service.full_name, method.name, method.client_streaming)


RPCS: Final = tuple(_rpcs())


def add_services_to_server(_: object, server: Any) -> None:  # noqa: ANN401 - grpcio's, or Ray's
    """Add our services to the server of a proxy; named in Ray Serve's `grpc_servicer_functions`."""
    for service in dict.fromkeys(rpc.service for rpc in RPCS):
        server.add_generic_rpc_handlers((ProxiedService(service),))


class ProxiedService(grpc.GenericRpcHandler):
    """A service whose handlers Ray replaces by its own.

    Args:
        service: Its full name.
    """

    def __init__(self, service: str) -> None:
        # By this name Ray looks for handlers, and sets its own. Those here are never called; they
        # have no functions that parse or write messages, so that bytes come and go.
        self._method_handlers: dict[str, Any] = {
            rpc.path: (
                grpc.stream_stream_rpc_method_handler(_unused)
                if rpc.is_stream
                else grpc.unary_unary_rpc_method_handler(_unused)
            )
            for rpc in RPCS
            if rpc.service == service
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:  # noqa: ANN401 - as gRPC has it
        """Return what answers a call; None where it is for no rpc of this service."""
        handler = self._method_handlers.get(handler_call_details.method)
        if handler is None:
            return None
        return handler._replace(
            unary_unary=_unary(handler.unary_unary), stream_stream=_stream(handler.stream_stream)
        )


def _unused(*_: object) -> Any:  # noqa: ANN401
    raise NotImplementedError


def _unary(
    ask_replica: Callable[[tuple[bytes, float | None], Any], Awaitable[bytes]],
) -> Callable[[bytes, Any], Awaitable[bytes]]:
    async def answer(data: bytes, context: Any) -> bytes:  # noqa: ANN401 - grpcio's
        response = await ask_replica((data, context.time_remaining()), context)
        await _end(context)
        return response

    return answer


def _stream(
    ask_replica: Callable[[AsyncIterator[bytes], Any], AsyncIterator[bytes]],
) -> Callable[[AsyncIterator[bytes], Any], AsyncIterator[bytes]]:
    async def answer(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:  # noqa: ANN401
        async for response in ask_replica(requests, context):
            if not _has_failed(context):  # otherwise it only brought the status
                yield response
        await _end(context)

    return answer


def _has_failed(context: Any) -> bool:  # noqa: ANN401
    return context.code() not in {None, grpc.StatusCode.OK}


async def _end(context: Any) -> None:  # noqa: ANN401
    """End a call that has failed as clients expect it, be it by a replica or by Ray.

    By an abort, because only then gRPC sends nothing but trailers. Where anything comes before
    them, clients do not try again. Source: gRPC proposal A6, client retries, "committed".
    """
    if not _has_failed(context):
        return
    code, details, trailers = context.code(), str(context.details()), context.trailing_metadata()
    is_of_a_replica = any(key == REQUEST_ID_KEY for key, _ in trailers)  # see ``Call``
    if not is_of_a_replica and code in _RAYS_STATUSES:
        cause = details.strip().partition("\n")[0][:_MAX_CAUSE_CHARACTERS]
        details = f"{_RAYS_STATUSES[code]}; try again later: {cause}"
        code, trailers = grpc.StatusCode.UNAVAILABLE, (*trailers, PUSHBACK)
    await context.abort(code, details, tuple(trailers))
