"""A client that speaks HTTP/2 by hand, frame by frame, and so may break each of its rules."""

import socket
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from time import monotonic
from types import MappingProxyType, TracebackType
from typing import Final, Self

import hpack
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

TIMEOUT_S: Final = 60.0
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PREDICT: Final = "/mlpserve.v1.PredictionService/Predict"
PREDICT_STREAM: Final = "/mlpserve.v1.PredictionService/PredictStream"
MODEL_INFER: Final = "/inference.GRPCInferenceService/ModelInfer"
DEFAULTS: Final[Mapping[int, int]] = MappingProxyType({})  # of the settings
OK: Final = "0"
_HEAD_BYTES: Final = 9  # of a frame
_LARGEST_PART_BYTES: Final = 16_384  # of a message, in one frame
_FIRST_STREAM: Final = 1
_NO_ERROR: Final = 0
_FIRST_WINDOW_BYTES: Final = 65_535


def grpc_message(data: bytes, *, announced: int | None = None, compressed: bool = False) -> bytes:
    """Return a message as gRPC frames it, which may announce another length than it has."""
    return struct.pack(">?I", compressed, len(data) if announced is None else announced) + data


class RawHttp2:
    """A connection to a server, and what came over it.

    Args:
        address: The server's.
        settings: What is sent of settings; None for neither them nor the preface.

    Attributes:
        statuses: How often each status came, by its number and message.
        resets: How often each error code came that ends a stream.
        goaway: The last words of the server, as its error code and text; None as long as it has
            said none.
        is_closed: Whether the server has closed the connection.
    """

    def __init__(self, address: str, settings: Mapping[int, int] | None = DEFAULTS) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), TIMEOUT_S)
        self.statuses: Counter[tuple[str, str]] = Counter()
        self.resets: Counter[int] = Counter()
        self.goaway: tuple[int, str] | None = None
        self.is_closed = False
        self._next_stream = _FIRST_STREAM
        self._encoder, self._decoder = hpack.Encoder(), hpack.Decoder()
        self._unread = bytearray()
        # What may be sent: of the connection under 0; of streams, beside what each may at first.
        self._windows: Counter[int] = Counter({0: _FIRST_WINDOW_BYTES})
        self._first_window = _FIRST_WINDOW_BYTES
        self._is_greeted = settings is not None
        self._has_noted = False
        if settings is not None:
            self.send(PREFACE, SettingsFrame(settings=dict(settings)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, *parts: bytes | Frame) -> None:
        """Send bytes and frames, or as many as the server takes before it closes."""
        data = b"".join(part if isinstance(part, bytes) else part.serialize() for part in parts)
        try:
            self.socket.sendall(data)
        except (ConnectionError, TimeoutError):
            self.is_closed = True

    def take_note(self) -> None:
        """Take the server's settings, so that it holds this connection to them from now on."""
        while not self.is_closed and self._is_greeted is not self._has_noted:
            self._receive_once()

    def headers(self, path: str, *more: tuple[str, str], ends: bool = False) -> HeadersFrame:
        """Return the headers of a call, on a stream of its own."""
        fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            *more,
        ]
        flags = ["END_HEADERS", "END_STREAM"] if ends else ["END_HEADERS"]
        frame = HeadersFrame(
            self._next_stream, self._encoder.encode(fields, huffman=False), flags=flags
        )
        self._next_stream += 2
        return frame

    def call(self, path: str, message: bytes, *more: tuple[str, str]) -> list[Frame]:
        """Return the frames of a call whose message is framed already."""
        headers = self.headers(path, *more)
        return [headers, *data_frames(headers.stream_id, message)]

    def receive(self, *, ends: int | None = None, timeout_s: float = TIMEOUT_S) -> None:
        """Take what comes until the server closes, so many streams have ended, or it is time."""
        deadline_s = monotonic() + timeout_s
        while not self.is_closed and (ends is None or self.ended < ends):
            self.socket.settimeout(max(deadline_s - monotonic(), 0.001))
            if not self._receive_once():
                break

    def discard(self, *, timeout_s: float = TIMEOUT_S) -> None:
        """Take what comes until the server closes, or it is time, without a look at it."""
        deadline_s = monotonic() + timeout_s
        while not self.is_closed:
            self.socket.settimeout(max(deadline_s - monotonic(), 0.001))
            try:
                self.is_closed = not self.socket.recv(1 << 16)
            except TimeoutError:
                break
            except ConnectionError:
                self.is_closed = True

    @property
    def ended(self) -> int:
        """Return how many streams have ended."""
        # A status may be followed by a reset without an error: nothing more is to be sent.
        return self.statuses.total() + self.resets.total() - self.resets[_NO_ERROR]

    def _receive_once(self) -> bool:
        """Take what has come; return whether it did in time."""
        try:
            data = self.socket.recv(1 << 16)
        except TimeoutError:
            return False
        except ConnectionError:
            data = b""
        self.is_closed = not data
        self._unread += data
        for frame in self._frames():
            self._take(frame)
        return True

    def send_data(self, stream: int, data: bytes) -> None:
        """Send what a stream carries, no faster than the server lets it."""
        for frame in data_frames(stream, data):
            if self.can_send(stream, len(frame.data)):
                self.send(frame)

    def can_send(self, stream: int, size: int) -> bool:
        """Wait until the server lets a stream carry so many bytes; return whether it did.

        Where it did they count as sent.
        """
        while not self.is_closed and not self._fits(stream, size):
            if not self._receive_once():
                return False
        self._windows[0] -= size
        self._windows[stream] -= size
        return not self.is_closed

    def _fits(self, stream: int, size: int) -> bool:
        return min(self._windows[0], self._windows[stream] + self._first_window) >= size

    def _takes_note(self, settings: SettingsFrame) -> None:
        self._first_window = settings.settings.get(
            SettingsFrame.INITIAL_WINDOW_SIZE, self._first_window
        )
        if self._is_greeted:
            self._has_noted = True
            self.send(SettingsFrame(flags=["ACK"]))

    def _frames(self) -> Iterable[Frame]:
        while len(self._unread) >= _HEAD_BYTES:
            frame, length = Frame.parse_frame_header(memoryview(bytes(self._unread[:_HEAD_BYTES])))
            if len(self._unread) < _HEAD_BYTES + length:
                break
            frame.parse_body(memoryview(bytes(self._unread[_HEAD_BYTES : _HEAD_BYTES + length])))
            del self._unread[: _HEAD_BYTES + length]
            yield frame

    def _take(self, frame: Frame) -> None:
        if isinstance(frame, HeadersFrame):
            fields = {str(key): str(value) for key, value in self._decoder.decode(frame.data)}
            if "grpc-status" in fields:
                self.statuses[fields["grpc-status"], fields.get("grpc-message", "")] += 1
        elif isinstance(frame, RstStreamFrame):
            self.resets[frame.error_code] += 1
        elif isinstance(frame, GoAwayFrame):
            self.goaway = frame.error_code, frame.additional_data.decode()
        elif isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            self._takes_note(frame)
        elif isinstance(frame, WindowUpdateFrame):
            self._windows[frame.stream_id] += frame.window_increment


def data_frames(stream: int, data: bytes, *, ends: bool = True) -> list[DataFrame]:
    """Return the frames that carry some bytes of a stream."""
    starts = range(0, max(len(data), 1), _LARGEST_PART_BYTES)
    frames = [DataFrame(stream, data[start : start + _LARGEST_PART_BYTES]) for start in starts]
    if ends:
        frames[-1].flags.add("END_STREAM")
    return frames
