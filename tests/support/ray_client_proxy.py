"""Proxy before Ray's server for ``ray://`` that lets the first drivers wait without end."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

_DATA_PATH = "/ray.rpc.RayletDataStreamer/Datapath"  # the call that a driver begins with


class _Forwarding(grpc.GenericRpcHandler):
    """Hands on calls as they are, but for the first data paths, which get no answer."""

    def __init__(self, channel: grpc.Channel, unanswered: int) -> None:
        self._channel = channel
        self._unanswered = unanswered

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = handler_call_details.method
        assert method is not None
        if method == _DATA_PATH and self._unanswered > 0:
            self._unanswered -= 1
            return grpc.stream_stream_rpc_method_handler(_wait)
        forward: Any = self._channel.stream_stream(method)

        def answer(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            call = forward(requests, metadata=context.invocation_metadata())
            context.add_callback(call.cancel)
            yield from call

        return grpc.stream_stream_rpc_method_handler(answer)


def _wait(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    del requests
    is_over = threading.Event()
    if context.add_callback(is_over.set):
        is_over.wait()
    yield from ()


@contextmanager
def deaf_proxy(target: str, *, unanswered: int) -> Iterator[str]:
    """Run a proxy of which so many drivers get no answer; yield its address."""
    with grpc.insecure_channel(target) as channel:
        server = grpc.server(ThreadPoolExecutor(16), handlers=[_Forwarding(channel, unanswered)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"ray://127.0.0.1:{port}"
        finally:
            server.stop(0).wait()
