"""Calls that begin and say nothing, of several callers at once: who is answered meanwhile."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from time import monotonic
from typing import Any, Final

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc
from raw_http2 import MODEL_INFER, PREDICT, PREDICT_STREAM, RawHttp2

Attack = Callable[..., AbstractContextManager[Any]]
TIMEOUT_S: Final = 20.0
CALLERS: Final = 8
EACH: Final = 20
PATHS: Final = (
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/mlpserve.v1.PredictionService/ListModels",
    PREDICT,
    MODEL_INFER,
    PREDICT_STREAM,
)


@pytest.mark.exhaustive
def test_calls_that_send_headers_and_nothing_else_keep_nobody_waiting(
    attack: Attack, adapter: str
) -> None:
    calls = CALLERS * EACH * len(PATHS)
    fault = f"{calls:,} calls of {len(PATHS)} rpcs, by {CALLERS} callers, that send headers only"
    with attack(fault, adapter=adapter) as server, ExitStack() as held:
        for _ in range(CALLERS):
            caller = held.enter_context(RawHttp2(server.address))
            caller.take_note()
            caller.send(*(caller.headers(path) for path in PATHS for _ in range(EACH)))
        with grpc.insecure_channel(server.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            stub = prediction_pb2_grpc.PredictionServiceStub(channel)
            longest_s = 0.0
            for _ in range(50):
                began_s = monotonic()
                health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
                stub.ListModels(prediction_pb2.ListModelsRequest(), timeout=TIMEOUT_S)
                longest_s = max(longest_s, monotonic() - began_s)
        server.outcome = f"health and ListModels are answered, both within {longest_s:.2f} s"
