"""Calls of gRPC that are begun and not ended, taken back, or no calls at all."""

import random
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Final

from hyperframe.frame import DataFrame, RstStreamFrame

from mlpserve.v1 import prediction_pb2
from raw_http2 import MODEL_INFER, PREDICT, PREDICT_STREAM, RawHttp2, grpc_message
from servers.abuses.abuse import Abuse, Held, Target, status_name
from servers.abuses.grpc_messages import PIXELS
from servers.protocols import MODEL

_CHECK: Final = "/grpc.health.v1.Health/Check"
_WATCH: Final = "/grpc.health.v1.Health/Watch"
_LIST_MODELS: Final = "/mlpserve.v1.PredictionService/ListModels"
_REFLECT: Final = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
_ALL: Final = (_CHECK, _LIST_MODELS, PREDICT, MODEL_INFER, _WATCH, PREDICT_STREAM, _REFLECT)
_CANCEL: Final = 8
_TAKE_S: Final = 0.2


class Connection(RawHttp2):
    """A connection that can be closed, and tells its statuses."""

    def close(self) -> None:
        """Close it."""
        self.socket.close()

    def told(self) -> Iterator[str]:
        """Yield the statuses that came since the last time, or that nothing has come."""
        counts = {status_name(code): count for (code, _), count in self.statuses.items()}
        counts |= {f"reset {code}": count for code, count in self.resets.items() if code}
        self.statuses.clear()
        self.resets.clear()
        for status, count in counts.items():
            yield from [status] * count
        if not counts:
            yield "closed" if self.is_closed else "open"


class _OverConnections(Abuse):
    """Opens a connection each time, does something over it, and holds the last few."""

    connections = 8

    def __init__(self, target: Target, rng: random.Random) -> None:
        super().__init__(target, rng)
        self._held = Held(self.connections)

    def act(self) -> Iterable[str]:
        """Open the next, and tell what has come of it so far."""
        opened = Connection(self.target.address)
        self._held.add(opened)
        opened.take_note()
        self.begin(opened)
        opened.receive(timeout_s=_TAKE_S)
        return opened.told()

    @abstractmethod
    def begin(self, connection: Connection) -> None:
        """Do it over a new connection."""

    def close(self) -> Iterable[str]:
        """Close the connections; tell what came over them since."""
        for connection in self._held.all:
            connection.receive(timeout_s=_TAKE_S)
            yield from connection.told()
        self._held.close()


class HeadersOnly(_OverConnections):
    """Calls of which nothing comes but the headers."""

    what = "140 calls on a connection that send headers only; 8 connections held"
    per_s = 0.5

    def begin(self, connection: Connection) -> None:
        """Send the headers."""
        connection.send(*(connection.headers(path) for path in _ALL for _ in range(20)))


class SilentStreams(_OverConnections):
    """Streams that say nothing after their first message."""

    what = "64 streams on a connection, silent after a first message; 8 connections held"
    per_s = 0.5

    def begin(self, connection: Connection) -> None:
        """Open the streams."""
        images = prediction_pb2.ImageBatch(
            count=1, data_type=prediction_pb2.DATA_TYPE_UINT8, data=bytes(PIXELS)
        )
        first = prediction_pb2.PredictStreamRequest(images=images, model_name=MODEL)
        for _ in range(64):
            headers = connection.headers(PREDICT_STREAM)
            connection.send(
                headers, DataFrame(headers.stream_id, grpc_message(first.SerializeToString()))
            )


class Watches(_OverConnections):
    """Health watches that nobody reads."""

    what = "400 health watches on a connection; 4 connections held"
    per_s = 0.25
    connections = 4

    def begin(self, connection: Connection) -> None:
        """Watch."""
        for _ in range(400):
            connection.send(*connection.call(_WATCH, grpc_message(b"")))


class ResetFlood(_OverConnections):
    """Calls that are taken back at once (CVE-2023-44487)."""

    what = "500 calls on a connection, with and without a request, reset at once"
    per_s = 0.5
    connections = 4

    def begin(self, connection: Connection) -> None:
        """Begin the calls and reset them."""
        for number in range(500):
            path = self.rng.choice((PREDICT, MODEL_INFER, PREDICT_STREAM, _LIST_MODELS))
            call = connection.call(path, grpc_message(b""))[: 1 + number % 2]
            connection.send(*call, RstStreamFrame(call[0].stream_id, error_code=_CANCEL))


class HalfMessages(_OverConnections):
    """Callers who leave in the middle of a message."""

    what = "gRPC: 8 calls that leave in the middle of a message of 1 MB"
    per_s = 4
    connections = 1

    def begin(self, connection: Connection) -> None:
        """Send a part, and leave."""
        for path in (PREDICT, MODEL_INFER, PREDICT_STREAM, _LIST_MODELS) * 2:
            headers = connection.headers(path)
            part = grpc_message(bytes(self.rng.randrange(8000)), announced=1 << 20)
            connection.send(headers, DataFrame(headers.stream_id, part))
        connection.close()
        connection.is_closed = True


class NoHttp2(Abuse):
    """Bytes that are no HTTP/2, or HTTP/2 of which the frames are random."""

    what = "malformed HTTP/2: another protocol, or random frames after a preface"
    per_s = 5

    def act(self) -> Iterable[str]:
        """Send such bytes over a connection of its own."""
        rubbish = self.rng.randbytes(self.rng.randrange(20, 4000))
        settings: dict[int, int] | None = self.rng.choice((None, {}))
        with Connection(self.target.address, settings) as connection:
            connection.send(rubbish)
            connection.discard(timeout_s=_TAKE_S)
            return ["closed" if connection.is_closed else "open"]


ABUSES: Final = (HeadersOnly, SilentStreams, Watches, ResetFlood, HalfMessages, NoHttp2)
