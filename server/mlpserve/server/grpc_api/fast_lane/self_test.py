"""Self-test of the fast lane: proves at start that it works with the grpcio that is installed."""

from concurrent.futures import ThreadPoolExecutor
from typing import Final

import grpc

from mlpserve.server.grpc_api.fast_lane.calls import HotCall
from mlpserve.server.grpc_api.fast_lane.lane import FastLane, untested_release
from mlpserve.server.grpc_api.late_calls import LateCalls

_SERVICE: Final = "mlpserve.SelfTest"
_HOT: Final = (f"/{_SERVICE}/Hot", f"/{_SERVICE}/AlsoHot")
_OTHERS: Final = (_HOT[1], f"/{_SERVICE}/Generic", f"/{_SERVICE}/Registered")
# Long, because a machine on which much is started at once is slow, and without the lane a server is
# four times slower for as long as it runs.
_TIMEOUT_S: Final = 20.0
_REFUSAL: Final = "refused"


def why_unusable() -> str | None:
    """Return why the fast lane may not be used here; None where it may.

    An unknown release is not tried: what goes wrong inside gRPC's core ends the process.
    """
    release = untested_release()
    if release is not None:
        return f"it has not been tested with grpcio {release}"
    try:
        problem = _self_test()
    except Exception as error:  # noqa: BLE001 - whatever it is, the public API is there
        problem = f"{type(error).__name__}: {error}"
    return None if problem is None else f"its self-test failed: {problem}"


class _Echo:
    """Answers two calls together, in the reverse of their order; refuses an empty request."""

    def __init__(self) -> None:
        self._waiting: list[tuple[bytes, HotCall]] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def admits(self, call: HotCall) -> bool:
        return bool(call.metadata)  # gRPC sends who it is

    def ended(self, call: HotCall) -> None:
        pass

    def accept(self, data: bytes, call: HotCall) -> None:
        if data:
            self._waiting.append((data, call))
        else:
            call.fail(grpc.StatusCode.NOT_FOUND, _REFUSAL)

    def refuse(self, call: HotCall, error: Exception) -> None:
        call.fail(grpc.StatusCode.CANCELLED, str(error))

    def work(self) -> None:
        while self._waiting:
            data, call = self._waiting.pop()
            if call.is_wanted():
                call.answer(data)


def _self_test() -> str | None:
    server = grpc.server(ThreadPoolExecutor(1))
    echo: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
        lambda data, _: data
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(_SERVICE, {"Generic": echo}),)
    )
    server.add_registered_method_handlers(_SERVICE, {"Registered": echo})
    port = server.add_insecure_port("127.0.0.1:0")
    echoes = _Echo()
    FastLane(server, _HOT, echoes, LateCalls()).start()
    try:
        # Never through a proxy: it is this process that is asked.
        options = [("grpc.enable_http_proxy", 0)]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            return _problem(channel)
    finally:
        # Not at once: gRPC would log that it cancels calls, though there are none.
        server.stop(_TIMEOUT_S)


def _problem(channel: grpc.Channel) -> str | None:
    hot: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_HOT[0])
    sent = [b"first", b"second", bytes(100_000), *map(str.encode, _OTHERS)]
    calls = [hot.future(data, timeout=_TIMEOUT_S) for data in sent[: -len(_OTHERS)]]
    for method, data in zip(_OTHERS, sent[-len(_OTHERS) :], strict=True):
        other: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        calls.append(other.future(data, timeout=_TIMEOUT_S))
    if [call.result() for call in calls] != sent:
        return "calls got each other's answers"
    refused = hot.future(b"", timeout=_TIMEOUT_S)
    if (refused.code(), refused.details()) != (grpc.StatusCode.NOT_FOUND, _REFUSAL):
        return f"expected a refusal, got {refused.code()}"
    return None
