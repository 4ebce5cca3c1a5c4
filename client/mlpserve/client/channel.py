"""The gRPC channel of the client: balancing, retries, keepalive, message sizes, trace context."""

import json
import os
import re
import sys
from typing import Final

import grpc
import grpc.aio

from mlpserve.client.errors import ClientError, InvalidRequestError
from mlpserve.client.proxies import is_loopback

_URI_SCHEMES: Final = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:", "xds:")
_SERVICE: Final = "mlpserve.v1.PredictionService"
# Not PredictStream: the core of the client sees to it.
_RETRIED_METHODS: Final = ("Predict", "Explain", "GetModel", "ListModels")
_SERVICE_CONFIG: Final = {
    # Over all addresses that the target's name has, not only the first.
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": _SERVICE, "method": method} for method in _RETRIED_METHODS],
            # All rpcs are idempotent. Only what may be over a moment later is tried again.
            "retryPolicy": {
                # 0.1, 0.3, 0.9 and 1 s apart: longer than a server takes to start again.
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 3,
                # CANCELLED is what gRPC's core answers to a call that reaches a server in the
                # moment in which it stops. One that its own caller cancels is not tried again.
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
    # Where most calls fail, retries stop, so that they do not keep a struggling server down.
    # A failed attempt takes a token, an answered call gives a tenth of one back.
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
}
# A request is kept for another attempt only within this; gRPC's own 256 KiB are a third of a batch.
_RETRY_BUFFER_BYTES: Final = 8 * 1024 * 1024
# A server that is started again is found within the attempts; gRPC's own second is longer than all.
_FIRST_RECONNECT_MS: Final = 100
_LAST_RECONNECT_MS: Final = 1000
# A connection that is forgotten on the way, by a NAT or a balancer, is found at rest within the
# sum, and in use within the second. Our server allows pings every 5 s. One that allows fewer says
# so, and gRPC pings it half as often from then on.
_PING_AFTER_MS: Final = 6_000
_PING_TIMEOUT_MS: Final = 4_000
# A name is looked up anew when a connection ends, but not more often; gRPC's own is 30 s.
_DNS_PAUSE_MS: Final = 5_000
_FORK_SUPPORT: Final = "GRPC_ENABLE_FORK_SUPPORT"
# This one, and those that it was forked from, as far as they opened a channel.
_processes: Final[set[int]] = set()
_TRACING_API: Final = "opentelemetry.trace"
_MAX_PORT: Final = 65_535
_HOST_AND_PORT: Final = re.compile(r"(?:[^\s:/\[\]]+|\[[0-9A-Fa-f:.%]+\]):([0-9]{1,5})")


def checked_target(target: str) -> str:
    """Return a target of the form ``host:port``, or a URI that gRPC knows, as ``unix:path``.

    Raises:
        InvalidRequestError: It is neither. gRPC itself would ask port 443 of a host without a port.
    """
    if target.startswith(_URI_SCHEMES):
        return target
    parts = _HOST_AND_PORT.fullmatch(target)
    if parts is None or not 0 < int(parts[1]) <= _MAX_PORT:
        raise InvalidRequestError(
            f"target: expected HOST:PORT, an IPv6 address in brackets, got {target!r}",
            field="target",
        )
    return target


def open_channel(
    target: str,
    credentials: grpc.ChannelCredentials | None = None,
    *,
    checks_health: bool = False,
) -> grpc.Channel:
    """Return a channel that connects with the first call; not encrypted without credentials.

    Args:
        target: As ``checked_target`` returns it.
        credentials: For TLS.
        checks_health: Whether servers that say that they do not serve are sent nothing.

    Raises:
        ClientError: gRPC does not work in this process, because of a fork.
    """
    options = _options(target, checks_health=checks_health)
    if credentials is None:
        return grpc.insecure_channel(target, options)
    return grpc.secure_channel(target, credentials, options)


def open_async_channel(
    target: str,
    credentials: grpc.ChannelCredentials | None = None,
    *,
    checks_health: bool = False,
) -> grpc.aio.Channel:
    """Return the same for the running event loop; see ``open_channel``."""
    options = _options(target, checks_health=checks_health)
    if credentials is None:
        return grpc.aio.insecure_channel(target, options)
    return grpc.aio.secure_channel(target, credentials, options)


def means_several(target: str) -> bool:
    """Return whether a target is written as one of several servers: a list, or a URI of DNS."""
    return "," in target or target.startswith("dns:")


def _options(target: str, *, checks_health: bool) -> list[tuple[str, object]]:
    """Return the options of a channel, the same for both kinds."""
    _check_fork(target)
    # Without a name it is the server as a whole. Servers without a health service are trusted.
    health = {"healthCheckConfig": {"serviceName": ""}} if checks_health else {}
    return [
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG | health)),
        # The server's limits count, and it says them; answers are small.
        ("grpc.max_send_message_length", -1),
        ("grpc.per_rpc_retry_buffer_size", _RETRY_BUFFER_BYTES),
        ("grpc.initial_reconnect_backoff_ms", _FIRST_RECONNECT_MS),
        ("grpc.max_reconnect_backoff_ms", _LAST_RECONNECT_MS),
        ("grpc.max_receive_message_length", -1),
        # Or all clients of a program that ask one server would share one connection, and so be
        # answered by one of its processes.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.keepalive_time_ms", _PING_AFTER_MS),
        ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        # Of the pings that measure bandwidth too. No other is sent while one of these is awaited,
        # and gRPC's own limit for it is a minute.
        ("grpc.http2.ping_timeout_ms", _PING_TIMEOUT_MS),
        ("grpc.dns_min_time_between_resolutions_ms", _DNS_PAUSE_MS),
        ("grpc.enable_http_proxy", int(not is_loopback(target))),
    ]


def _check_fork(target: str) -> None:
    """Refuse to go on where gRPC would hang: its threads are not in a process that was forked."""
    own = os.getpid()
    if not _processes or own in _processes or _is_fork_supported():
        _processes.add(own)
        return
    raise ClientError(
        f"{target}: this process was forked from one that had a client already, and gRPC does not "
        "survive that; fork before the first client is made, start processes by multiprocessing's "
        f"'spawn' or 'forkserver', or set {_FORK_SUPPORT}=1 for the program and fork while no call "
        "is under way"
    )


def _is_fork_supported() -> bool:
    return os.environ.get(_FORK_SUPPORT, "").lower() in ("1", "true", "yes", "on", "t", "y")


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """Return what tells the server which span is current: ``traceparent``, as the W3C has it.

    What else is sent along, or in which other form, is set by OpenTelemetry's own OTEL_PROPAGATORS.
    Empty where no span is current. Nothing is imported for a program that does not trace.
    """
    if (
        _TRACING_API not in sys.modules
    ):  # then there is no span, and to import it would take a while
        return ()
    from opentelemetry import propagate, trace  # noqa: PLC0415 - only where the program has it

    if not trace.get_current_span().get_span_context().is_valid:
        return ()
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return tuple((key.lower(), value) for key, value in carrier.items())  # gRPC's keys are so
