"""Large fields are cut out of messages, and nobody can tell but by the time that it takes."""

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpserve.oip import inference_pb2
from mlpserve.server.errors import RequestError
from mlpserve.server.grpc_api.parsing import Parser
from mlpserve.server.grpc_api.wire import cut_out
from mlpserve.server.inference.decoding import FLOAT32, aligned
from mlpserve.v1 import prediction_pb2 as pb

PATH = (3, 3)
PIXELS = bytes(range(256)) * 512  # 128 KiB
edits = st.lists(st.tuples(st.integers(-60, 60), st.integers(0, 255)), max_size=3)


@st.composite
def requests(draw: st.DrawFn) -> pb.PredictRequest:
    return pb.PredictRequest(
        model_name=draw(st.text(max_size=3)),
        model_version=draw(st.integers(-(2**63), 2**63 - 1)),
        model_label=draw(st.text(max_size=3)),
        with_timings=draw(st.booleans()),
        images=pb.ImageBatch(
            count=draw(st.integers(0, 2**32 - 1)),
            data_type=draw(st.sampled_from([pb.DATA_TYPE_UINT8, pb.DATA_TYPE_FLOAT32])),
            data=draw(st.sampled_from([b"", b"few", PIXELS, 2 * PIXELS])),
        ),
    )


def put_together(parser: Parser[pb.PredictRequest], data: bytes) -> pb.PredictRequest | None:
    """Return what a request is when it is parsed in parts; None where it is refused."""
    try:
        shared, pixels = parser.parse(data)
    except RequestError:
        return None
    message = pb.PredictRequest.FromString(shared.SerializeToString())  # a copy
    if pixels is not None:
        assert not message.images.data
        message.images.data = bytes(pixels)
    return message


def parsed_whole(data: bytes) -> pb.PredictRequest | None:
    try:
        return pb.PredictRequest.FromString(data)
    except DecodeError:
        return None


@given(st.lists(requests(), min_size=1, max_size=2), edits, edits)
@settings(max_examples=100)
def test_a_request_in_parts_means_what_it_means_as_a_whole_also_when_it_is_like_one_before(
    messages: list[pb.PredictRequest],
    edited: list[tuple[int, int]],
    edited_again: list[tuple[int, int]],
) -> None:
    parser = Parser(pb.PredictRequest, PATH)
    data = bytearray(b"".join(message.SerializeToString() for message in messages))
    for changes in (edited, edited_again, edited):
        for at, byte in changes:
            if data:
                data[at % len(data)] = byte
        for _ in range(2):
            assert put_together(parser, bytes(data)) == parsed_whole(bytes(data))


def test_requests_that_differ_in_their_pixels_only_are_parsed_once() -> None:
    parser = Parser(pb.PredictRequest, PATH)
    first, second = (
        pb.PredictRequest(
            model_name="digits",
            images=pb.ImageBatch(count=1, data=pixels),
            with_timings=True,
        ).SerializeToString()
        for pixels in (b"some", b"more")
    )
    message, _ = parser.parse(first)
    again, pixels = parser.parse(second)
    assert again is message
    assert pixels is not None
    assert (bytes(pixels), pixels.obj is second) == (b"more", True)


def test_few_messages_are_kept_and_none_that_is_large_beside_its_pixels() -> None:
    parser = Parser(pb.PredictRequest, PATH)
    first, large = (
        pb.PredictRequest(model_label=label, images=pb.ImageBatch(data=b"x")).SerializeToString()
        for label in ("", "a" * 300)
    )
    assert parser.parse(large)[0] is not parser.parse(large)[0]
    message, _ = parser.parse(first)
    assert parser.parse(first)[0] is message
    for length in range(2000):
        other = pb.PredictRequest(images=pb.ImageBatch(data=bytes(2 + length)))
        parser.parse(other.SerializeToString())
    assert parser.parse(first)[0] is not message


def test_the_pixels_of_a_request_are_not_copied() -> None:
    data = pb.PredictRequest(images=pb.ImageBatch(count=1, data=PIXELS)).SerializeToString()
    cut = cut_out(data, PATH)
    assert cut is not None
    assert cut.field.obj is data
    assert bytes(cut.field) == PIXELS
    assert pb.PredictRequest.FromString(cut.rest).images == pb.ImageBatch(count=1)


def test_raw_contents_of_the_open_inference_protocol_are_not_copied() -> None:
    tensor = inference_pb2.ModelInferRequest.InferInputTensor(name="images", shape=[1, len(PIXELS)])
    request = inference_pb2.ModelInferRequest(inputs=[tensor], raw_input_contents=[PIXELS])
    message, raw = Parser(type(request), (7,)).parse(request.SerializeToString())
    assert raw is not None
    assert bytes(raw) == PIXELS
    assert list(message.inputs) == [tensor]
    assert not message.raw_input_contents


@pytest.mark.parametrize(
    "data",
    [
        pb.PredictRequest(images=pb.ImageBatch(data=PIXELS)).SerializeToString() * 2,
        pb.PredictRequest(images=pb.ImageBatch(data=PIXELS)).SerializeToString()[:-1],
        pb.PredictRequest(images=pb.ImageBatch(data=PIXELS)).SerializeToString() + b"\x0b\x0c",
        pb.PredictRequest(images=pb.ImageBatch(data=PIXELS)).SerializeToString() + b"\x28\x01" * 99,
        pb.PredictRequest(model_name="a" * len(PIXELS)).SerializeToString(),
        b"\x1a" + b"\xff" * 20 + PIXELS,
    ],
    ids=["twice", "cut short", "a group", "many fields", "no images", "no length"],
)
def test_what_is_not_as_libraries_write_it_is_left_whole(data: bytes) -> None:
    assert cut_out(data, PATH) is None


def test_numbers_at_odd_addresses_are_copied_and_others_are_not() -> None:
    numbers = np.arange(8, dtype=FLOAT32)
    data = numbers.tobytes()
    odd = memoryview(b"x" + data)[1:]
    assert np.shares_memory(aligned(data, FLOAT32), np.frombuffer(data, np.uint8))
    for found in (aligned(data, FLOAT32), aligned(odd, FLOAT32)):
        assert found.flags.aligned
        assert found.tolist() == numbers.tolist()
