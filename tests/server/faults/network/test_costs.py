"""Requests whose form makes the most of their bytes: what they may cost, in units of the limit."""

import gzip
import http.client
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from ports import free_port

Attack = Callable[..., AbstractContextManager[Any]]
MB: Final = 1 << 20
LIMIT_MB: Final = 8
FACTOR: Final = 12  # as docs/security.md says
MAX_VALUES: Final = LIMIT_MB * MB // 8  # that are not sent raw
KEPT_MB: Final = FACTOR * LIMIT_MB  # by allocators, for the next message of that size
TIMEOUT_S: Final = 60.0
TOO_LARGE: Final = 413
INFER: Final = "/v2/models/tiny/infer"
MODELS: Final = "/v2/repository/models/tiny/"
OIP: Final = "/inference.GRPCInferenceService/"
PREDICTION: Final = "/mlpserve.v1.PredictionService/"
INPUTS, OUTPUTS, PARAMETERS, CONTENTS, SHAPE = 5, 6, 4, 5, 3  # fields of ModelInferRequest
INT64_CONTENTS: Final = 3


def filled(item: bytes, *, head: bytes = b"", tail: bytes = b"") -> bytes:
    """Return a body of nearly the limit that is the same again and again."""
    return head + item * ((LIMIT_MB * MB - 4096) // len(item)) + tail


HEAD: Final = b'{"inputs":[{"name":"images","datatype":"FP32","shape":[1,6],"data":['


def json_of(item: bytes) -> bytes:
    return filled(item + b",", head=HEAD, tail=item + b"]}]}")


def just_allowed(item: bytes, values: int) -> bytes:
    """Return JSON with as many items as are read; each counts as so many values."""
    return HEAD + (item + b",") * (MAX_VALUES // values - 100) + item + b"]}]}"


def field(number: int, data: bytes) -> bytes:
    """Return a field of protobuf that has a length."""
    length, rest = bytearray(), len(data)
    while rest > 127:
        length.append(rest & 127 | 128)
        rest >>= 7
    return bytes([number << 3 | 2, *length, rest]) + data


def refused_json() -> dict[str, bytes]:
    """Return JSON that is over a limit, by its form."""
    return {
        "empty lists": json_of(b"[]"),
        "lists of lists": json_of(b"[[[[1]]]]"),
        "empty objects": json_of(b"{}"),
        "objects": json_of(b'{"a":1}'),
        "numbers": json_of(b"1"),
        "fractions": json_of(b"0.5"),
        "texts": json_of(b'"ab"'),
        "keys": b"{" + b",".join(b'"%x":1' % each for each in range(LIMIT_MB * MB // 10)) + b"}",
        "letters": filled(b"a", head='{"\U0001f600'.encode(), tail=b'":1}'),
    }


def allowed_json() -> dict[str, bytes]:
    """Return JSON of which as much as may be is read."""
    return {
        "allowed lists": just_allowed(b"[1.5]", 3),
        "allowed objects": just_allowed(b'{"a":1.5}', 8),
        "allowed fractions": just_allowed(b"0.123456", 1),
        "allowed numbers": just_allowed(b"100000", 1),
        "allowed texts": just_allowed(b'"abc"', 1),
        "allowed keys": b"{"
        + b",".join(b'"%x":1.5' % each for each in range(MAX_VALUES // 4 - 9))
        + b"}",
        "allowed letters": '{"a\U0001f600":"\U0001f600'.encode() + b"a" * (MAX_VALUES - 99) + b'"}',
        "a long text": b'{"a":"\\ud83d\\ude00' + b"a" * (LIMIT_MB * MB - 99) + b'"}',
    }


def inferences() -> dict[str, bytes]:
    """Return requests of ModelInfer."""
    return {
        "inputs": filled(field(INPUTS, b"")),
        "outputs": filled(field(OUTPUTS, b"")),
        "parameters": filled(field(PARAMETERS, b"")),
        "raw contents": filled(field(7, b"")),
        "parameters of an input": field(INPUTS, filled(field(PARAMETERS, b""))),
        "parameters of an output": field(OUTPUTS, filled(field(2, b""))),
        "inputs after a group": b"\x7b\x7c" + filled(field(INPUTS, b"")),
        "bytes of an input": field(INPUTS, field(CONTENTS, filled(field(8, b"")))),
        "packed numbers": field(INPUTS, field(CONTENTS, field(INT64_CONTENTS, filled(b"\x01")))),
        "allowed numbers": field(
            INPUTS,
            field(1, b"images")
            + field(2, b"INT64")
            + b"\x18\x01\x18\x06"
            + field(CONTENTS, field(INT64_CONTENTS, b"\x01" * MAX_VALUES)),
        ),
        "packed sizes of the shape": field(INPUTS, field(SHAPE, filled(b"\x01"))),
    }


class Peak:
    """What requests cost a server: by how much it has more memory while it answers them."""

    def __init__(self, server: Any) -> None:
        self._folder = Path(f"/proc/{server.server.process.pid}")
        self.factors: dict[str, float] = {}

    def measure(self, form: str, send: Callable[[bytes], object], data: bytes) -> None:
        """Send a request, and note what it cost in units of the limit."""
        (self._folder / "clear_refs").write_text("5")  # the peak begins anew
        before_kb = self._kb("VmRSS")
        send(data)
        cost_kb = self._kb("VmHWM") - before_kb
        self.factors[form] = round(cost_kb / 1024 / LIMIT_MB, 1)

    def _kb(self, name: str) -> int:
        lines = (self._folder / "status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def told(peak: Peak) -> str:
    assert max(peak.factors.values()) < FACTOR, peak.factors
    form, factor = max(peak.factors.items(), key=lambda each: each[1])
    return f"refused; the dearest, {form}, cost {factor:g} times the limit"


@pytest.mark.exhaustive
def test_json_of_whatever_form_costs_a_small_multiple_of_the_limit(attack: Attack) -> None:
    port = free_port()
    over, allowed = refused_json(), allowed_json()

    def status(path: str, body: bytes, **headers: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        connection.request("POST", path, body, headers)
        with connection.getresponse() as response:
            response.read()
        connection.close()
        return response.status

    flags = ("--http-port", str(port), "--max-message-mb", str(LIMIT_MB), "--allow-management")
    fault = f"HTTP: {LIMIT_MB} MB of JSON, compressed to some kB, of {len(over | allowed)} forms"
    with attack(fault, *flags, peak_mb=2 * KEPT_MB, most_mb_more=KEPT_MB) as server:
        status(INFER, b"{}")
        peak = Peak(server)
        packed = {"Content-Encoding": "gzip"}
        found = set()

        def infer(data: bytes) -> None:
            found.add(status(INFER, data, **packed))

        for form, body in over.items():
            data = gzip.compress(body, 1)
            peak.measure(form, infer, data)
            for path in (MODELS + "load", MODELS + "unload", "/v2/repository/index"):
                assert status(path, data, **packed) == TOO_LARGE
        assert found == {TOO_LARGE}
        for form, body in allowed.items():
            data = gzip.compress(body, 1)
            peak.measure(form, infer, data)
        assert found == {TOO_LARGE, 400}
        server.outcome = told(peak)


@pytest.mark.exhaustive
def test_a_model_infer_of_whatever_form_costs_a_small_multiple_of_the_limit(
    attack: Attack, adapter: str
) -> None:
    forms = inferences()
    fault = f"ModelInfer and ModelStreamInfer of {LIMIT_MB} MB, of {len(forms)} forms"
    flags = ("--max-message-mb", str(LIMIT_MB))
    with (
        attack(fault, *flags, adapter=adapter, peak_mb=2 * KEPT_MB, most_mb_more=KEPT_MB) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        infer: Any = channel.unary_unary(OIP + "ModelInfer")
        stream: Any = channel.stream_stream(OIP + "ModelStreamInfer")

        def stream_of(data: bytes) -> None:
            (answer,) = stream(iter([data]), timeout=TIMEOUT_S)
            assert b"expected" in answer

        stream_of(b"")
        peak = Peak(server)
        for form, data in forms.items():
            peak.measure(form, partial(refused, infer), data)
            peak.measure(form + ", streamed", stream_of, data)
        server.outcome = told(peak)


@pytest.mark.exhaustive
def test_a_question_without_images_is_a_few_kilobytes(attack: Attack) -> None:
    questions = [
        *(OIP + name for name in ("ServerReady", "ModelMetadata", "RepositoryModelLoad")),
        *(PREDICTION + name for name in ("GetModel", "ListModels")),
    ]
    fault = f"{len(questions)} rpcs that take no images, with {LIMIT_MB} MB of parameters"
    flags = ("--max-message-mb", str(LIMIT_MB))
    with (
        attack(fault, *flags, peak_mb=2 * KEPT_MB, most_mb_more=KEPT_MB) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        peak = Peak(server)
        data = b"".join(field(3, field(1, b"%x" % each)) for each in range(MB))
        for method in questions:
            ask: Any = channel.unary_unary(method)
            peak.measure(method, partial(refused, ask), data)
        server.outcome = told(peak)


def refused(ask: Callable[..., bytes], data: bytes) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        ask(data, timeout=TIMEOUT_S)
    assert caught.value.code().name in {"RESOURCE_EXHAUSTED", "INVALID_ARGUMENT"}, caught.value
