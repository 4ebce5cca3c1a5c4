"""Bearer tokens on the public gRPC API."""

from collections.abc import Callable
from typing import Any, Final

import grpc
from grpc_health.v1 import health

from mlpserve.server.errors import UnauthenticatedError
from mlpserve.server.security.tokens import Tokens
from mlpserve.server.statuses import Calls, Refusal, refuse_call

# Those who ask whether the server lives, load balancers and orchestrators, cannot be given a token,
# and learn nothing else.
_OPEN: Final = f"/{health.SERVICE_NAME}/"


class TokenInterceptor(grpc.ServerInterceptor):
    """Refuses calls without the right token, before their requests are read.

    Args:
        tokens: The tokens.
        calls: What is done about calls that are refused.
    """

    def __init__(self, tokens: Tokens, calls: Calls) -> None:
        self._tokens = tokens
        self._calls = calls

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
        try:
            self._tokens.caller(metadata)
        except UnauthenticatedError as error:
            record = self._calls.recorder.arrived(method.rpartition("/")[2], metadata)
            return _refusing(handler, self._calls.refusal(record, error))
        return handler


def _refusing(handler: Any, refusal: Refusal) -> Any:  # noqa: ANN401 - grpcio's, of four kinds
    """Return a handler of the same kind that answers nothing."""

    def refuse(_: object, context: grpc.ServicerContext) -> None:
        refuse_call(context, refusal)

    kinds = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    make: Any = kinds[handler.request_streaming, handler.response_streaming]
    return make(refuse)
