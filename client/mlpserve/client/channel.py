"""How the client's channel behaves: balancing, retries, message sizes."""

import json
from typing import Final

import grpc

_SERVICE: Final = "mlpserve.v1.PredictionService"
# Not PredictStream: gRPC 1.85 loses a message now and then of a stream that it tries again.
_RETRIED_METHODS: Final = ("Predict", "GetModel", "ListModels")
_SERVICE_CONFIG: Final = {
    # Over all addresses that the target's name has, not only the first.
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": _SERVICE, "method": method} for method in _RETRIED_METHODS],
            # All rpcs are idempotent. Only what may be over a moment later is tried again.
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    # Where most calls fail, retries stop, so that they do not keep a struggling server down.
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
}


def open_channel(target: str) -> grpc.Channel:
    """Return a channel without encryption; it connects with the first call."""
    return grpc.insecure_channel(
        target,
        options=[
            ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
            # The server's limits count, and it says them; answers are small.
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
        ],
    )
