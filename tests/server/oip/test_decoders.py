"""Requests as nobody should send them: never a crash, nor INTERNAL, nor a word of our inside."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlpserve.oip import inference_pb2 as pb
from oip_attack import MAX_BATCH_IMAGES, attack_grpc, attack_http

DATATYPES = [
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16",
    "FP32", "FP64", "BF16", "BYTES", "", "uint8",
]  # fmt: skip
CONTENTS = {
    "bool_contents": st.booleans(),
    "int_contents": st.integers(-(2**31), 2**31 - 1),
    "int64_contents": st.integers(-(2**63), 2**63 - 1),
    "uint_contents": st.integers(0, 2**32 - 1),
    "uint64_contents": st.integers(0, 2**64 - 1),
    "fp32_contents": st.floats(width=32),
    "fp64_contents": st.floats(),
    "bytes_contents": st.binary(max_size=4),
}
names = st.sampled_from(["images", "probabilities", "labels", "tiny", "", "x"]) | st.text(
    max_size=9
)
versions = st.sampled_from(["", "1", "0", "-1", "stable", "1" * 5000, "٣"]) | st.text(max_size=5)
sizes = st.sampled_from([-1, 0, 1, 2, 3, 6, 2**62]) | st.integers(-(2**63), 2**63 - 1)
shapes = st.sampled_from([[1, 6], [2, 6], [1, 2, 3], [2, 2, 3]]) | st.lists(sizes, max_size=20)
raw = st.sampled_from([0, 1, 6, 12, 24, 48, 96]).flatmap(
    lambda size: st.binary(min_size=size, max_size=size)
)
parameter_names = st.sampled_from(
    ["classification", "priority", "timeout", "sequence_id", "shared_memory_region", "binary_data"]
)
THOUSANDS = settings(max_examples=2000)


@st.composite
def parameters(draw: st.DrawFn) -> pb.InferParameter:
    choice = draw(
        st.sampled_from(
            ["bool_param", "int64_param", "string_param", "double_param", "uint64_param", None]
        )
    )
    values: dict[str, st.SearchStrategy[Any]] = {
        "bool_param": st.booleans(),
        "int64_param": st.integers(-(2**63), 2**63 - 1),
        "string_param": st.text(max_size=5),
        "double_param": st.floats(),
        "uint64_param": st.integers(0, 2**64 - 1),
    }
    return pb.InferParameter(**{choice: draw(values[choice])}) if choice else pb.InferParameter()


parameter_maps = st.dictionaries(parameter_names, parameters(), max_size=3)


@st.composite
def contents(draw: st.DrawFn) -> pb.InferTensorContents:
    fields = draw(st.lists(st.sampled_from(sorted(CONTENTS)), max_size=2, unique=True))
    count = draw(st.sampled_from([0, 1, 6, 12]))
    drawn: dict[str, Any] = {
        name: draw(st.lists(CONTENTS[name], min_size=count, max_size=count)) for name in fields
    }
    return pb.InferTensorContents(**drawn)


@st.composite
def inputs(draw: st.DrawFn) -> pb.ModelInferRequest.InferInputTensor:
    return pb.ModelInferRequest.InferInputTensor(
        name=draw(st.just("images") | names),
        datatype=draw(st.sampled_from(DATATYPES)),
        shape=draw(shapes),
        parameters=draw(parameter_maps),
        contents=draw(st.none() | contents()),
    )


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    output = st.builds(
        pb.ModelInferRequest.InferRequestedOutputTensor, name=names, parameters=parameter_maps
    )
    return pb.ModelInferRequest(
        model_name=draw(st.just("tiny") | names),
        model_version=draw(st.just("") | versions),
        id=draw(st.text(max_size=5)),
        parameters=draw(parameter_maps),
        inputs=draw(st.lists(inputs(), min_size=1, max_size=1) | st.lists(inputs(), max_size=2)),
        outputs=draw(st.lists(output, max_size=2)),
        raw_input_contents=draw(st.lists(raw, max_size=1) | st.lists(raw, max_size=2)),
    ).SerializeToString()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.integers(0, 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda children: st.lists(children, max_size=6) | st.dictionaries(names, children, max_size=3),
    max_leaves=15,
)
json_parameters = st.dictionaries(
    parameter_names | st.sampled_from(["binary_data_size", "binary_data_output"]),
    st.sampled_from([True, False, 0, 1, 6, 12, -1, 2**70, "1", 0.5]) | json_values,
    max_size=2,
)
json_inputs = st.fixed_dictionaries(
    {
        "name": st.just("images") | json_values,
        "shape": shapes | json_values,
        "datatype": st.sampled_from(DATATYPES) | json_values,
    },
    optional={
        "data": st.lists(st.integers(0, 255), min_size=6, max_size=6) | json_values,
        "parameters": json_parameters | json_values,
    },
)
json_requests = st.fixed_dictionaries(
    {"inputs": st.lists(json_inputs, min_size=1, max_size=1) | json_values},
    optional={
        "id": st.text(max_size=5) | json_values,
        "parameters": json_parameters | json_values,
        "outputs": st.lists(
            st.fixed_dictionaries({"name": names}, optional={"parameters": json_parameters}),
            max_size=2,
        )
        | json_values,
    },
)


@pytest.mark.exhaustive
@THOUSANDS
@given(requests())
def test_any_message_is_answered_or_refused_with_a_reason(data: bytes) -> None:
    attack_grpc(data)


@pytest.mark.exhaustive
@THOUSANDS
@given(requests(), st.integers(0, 200), st.binary(max_size=8))
def test_any_damaged_message_is_answered_or_refused(data: bytes, place: int, put: bytes) -> None:
    attack_grpc(data[:place] + put + data[place + len(put) :])


@given(st.binary(max_size=200))
def test_any_bytes_are_answered_or_refused(data: bytes) -> None:
    attack_grpc(data)


@pytest.mark.exhaustive
@THOUSANDS
@given(json_requests | json_values, raw, st.sampled_from([None, "right", "0", "-1", "9" * 99, "²"]))
@example([[[]]], b"", None)
def test_any_json_is_answered_or_refused(document: Any, binary: bytes, length: str | None) -> None:
    text = json.dumps(document).encode()
    attack_http(text + binary, str(len(text)) if length == "right" else length)


@given(st.binary(max_size=200), st.none() | st.text(max_size=3))
@example(b"[" * 100_000, None)
@example(b'{"inputs":' + b"[" * 100_000, None)
@example(b'{"id":"\\ud800","inputs":[{}]}', None)
@example(b'{"inputs":[' + b"9" * 10_000 + b"]}", None)
@example(b"NaN", None)
@example(b"\xff\xfe{}", None)
def test_any_body_is_answered_or_refused(body: bytes, length: str | None) -> None:
    attack_http(body, length)


def test_the_attack_reaches_answers_too() -> None:
    images = np.zeros((MAX_BATCH_IMAGES, 6), np.uint8)
    request = pb.ModelInferRequest(model_name="tiny", raw_input_contents=[images.tobytes()])
    request.inputs.add(name="images", datatype="UINT8", shape=images.shape)
    assert attack_grpc(request.SerializeToString()) == "answered"
    described = {"name": "images", "datatype": "UINT8", "shape": [8, 6], "data": images.tolist()}
    assert attack_http(json.dumps({"inputs": [described]}).encode(), None) == "answered"
    assert attack_http(images.tobytes(), "0") == "answered"


def test_a_long_text_among_the_numbers_takes_no_memory() -> None:
    # NumPy would make room for the longest text at each place.
    data = [0] * 100_000 + ["x" * 1_000_000]
    described = {"name": "images", "datatype": "FP32", "shape": [1, 6], "data": data}
    assert attack_http(json.dumps({"inputs": [described]}).encode(), None) == "refused"
