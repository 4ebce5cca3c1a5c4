"""Bearer tokens on the public gRPC API."""

from collections.abc import Callable
from typing import Any, Final

import grpc
from grpc_health.v1 import health

from mlpserve.server.errors import UnauthenticatedError
from mlpserve.server.security.tokens import Tokens
from mlpserve.server.statuses import refusal

# Those who ask whether the server lives, load balancers and orchestrators, cannot be given a token,
# and learn nothing else.
_OPEN: Final = f"/{health.SERVICE_NAME}/"


class TokenInterceptor(grpc.ServerInterceptor):
    """Refuses calls without the right token, before their requests are read.

    Args:
        tokens: The tokens.
    """

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

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
        try:
            self._tokens.caller(handler_call_details.invocation_metadata)
        except UnauthenticatedError as error:
            return _refusing(handler, *refusal(method.rpartition("/")[2], error))
        return handler


def _refusing(
    handler: Any,  # noqa: ANN401 - grpcio's, of four kinds
    code: grpc.StatusCode,
    details: str,
) -> Any:  # noqa: ANN401
    """Return a handler of the same kind that answers nothing."""

    def refuse(_: object, context: grpc.ServicerContext) -> None:
        context.abort(code, details)

    kinds = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    make: Any = kinds[handler.request_streaming, handler.response_streaming]
    return make(refuse)
