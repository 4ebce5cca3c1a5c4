"""Options of gRPC's transport: what it takes from connections, and when it closes them.

Nothing here makes a well-behaved caller wait: its library sends calls over the limits when there is
room again, answers pings, and connects anew where it was idle.
"""

from typing import Final

from mlpserve.server.settings.config import ServerConfig
from mlpserve.server.system.descriptors import connections_with_room

# Without calls a connection costs a descriptor, and a place among --max-connections.
_HANDSHAKE_TIMEOUT_MS: Final = 10_000  # TLS, and the first settings of HTTP/2; gRPC's own: 120 s
# Until a caller has taken note of the server's limits, it is not held to them; gRPC's own: 60 s.
_SETTINGS_TIMEOUT_MS: Final = 10_000
_MAX_IDLE_MS: Final = 600_000  # gRPC's own: without end
# Whoever does not answer a ping is gone, or reads nothing of what waits for it here.
_PING_AFTER_MS: Final = 60_000  # gRPC's own: two hours
_PING_TIMEOUT_MS: Final = 20_000
# Many clients and balancers ping every 10 s to see that a quiet stream lives; gRPC's own: 5 min.
_MIN_PING_PERIOD_MS: Final = 5_000
_MS_PER_S: Final = 1000
# gRPC's own is without end. Each may hold an answer that its caller does not take.
_MAX_STREAMS_OF_A_CONNECTION: Final = 1024
_MAX_METADATA_BYTES: Final = 16_384
_MAX_UNSEEN_CALLS: Final = 16_384  # with gRPC's own limit it would refuse some of a thousand
# Bits of the ways to compress; that of no way is always set.
_IDENTITY: Final = 0b001
_ALL: Final = 0b111


def transport_options(config: ServerConfig) -> list[tuple[str, int]]:
    """Return the options of a gRPC server."""
    return [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        (
            "grpc.max_allowed_incoming_connections",
            connections_with_room(config.max_connections),
        ),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_TIMEOUT_MS),
        ("grpc.http2.settings_timeout", _SETTINGS_TIMEOUT_MS),
        ("grpc.max_connection_idle_ms", _MAX_IDLE_MS),
        ("grpc.keepalive_time_ms", _PING_AFTER_MS),
        ("grpc.http2.ping_timeout_ms", _PING_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _MIN_PING_PERIOD_MS),
        *_max_age(config.max_connection_age_s),
        ("grpc.max_concurrent_streams", _MAX_STREAMS_OF_A_CONNECTION),
        # Counts streams that have ended but are not cleared away yet, of which callers cannot know:
        # those who keep to the limit would be refused now and then.
        ("grpc.http.overload_protection", 0),
        # Those that come while the fast lane computes. They are to get our sentence too.
        ("grpc.server.max_pending_requests", _MAX_UNSEEN_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", _MAX_UNSEEN_CALLS),
        # Up to the one, all are let in; beyond the other, none; between them, chance decides.
        ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", _MAX_METADATA_BYTES),
        ("grpc.compression_enabled_algorithms_bitset", _ALL if config.compression else _IDENTITY),
        # With it a second server on the port would start and take half the calls, unless somebody
        # watches the port.
        ("grpc.so_reuseport", int(config.shares_port)),
    ]


def _max_age(seconds: float) -> list[tuple[str, int]]:
    """Return the option that has connections closed, a tenth sooner or later, when calls end.

    gRPC's own grace for calls is without end: no call is cut for the sake of new servers.
    """
    return [("grpc.max_connection_age_ms", round(seconds * _MS_PER_S))] if seconds else []
