"""Requests divided between labels: by whom they are of, or evenly."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.model.labels import set_label
from mlpserve.oip import inference_pb2
from mlpserve.server.errors import StartError
from mlpserve.server.inference.registry import Registry, Router
from mlpserve.server.server import Server
from mlpserve.server.settings.config import ServerConfig
from mlpserve.server.settings.values import Shares
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc

TIMEOUT_S = 60.0
USERS = [f"user-{number}" for number in range(40)]
SHARES = st.dictionaries(
    st.sampled_from(["stable", "canary", "old", "new"]), st.integers(1, 1000), min_size=1
)


def splitter(shares: dict[str, int]) -> Router:
    return Router(lambda: Registry({}), shares, header=ServerConfig.split_header)


@given(SHARES, st.integers(1, 2000))
def test_without_a_header_each_label_gets_its_share_of_any_number_of_requests(
    shares: dict[str, int], requests: int
) -> None:
    split = splitter(shares)
    answered = Counter(split.label("digits", None) for _ in range(requests))
    for label, share in shares.items():
        due = requests * share / sum(shares.values())
        assert abs(answered[label] - due) <= 2 + math.log2(requests)


@given(SHARES, st.one_of(st.text(min_size=1), st.binary(min_size=1)))
def test_a_user_stays_on_one_version_in_every_process(shares: dict[str, int], user: str) -> None:
    labels = {splitter(shares).label("digits", user) for _ in range(3)}
    assert len(labels) == 1
    assert labels <= set(shares)


def test_what_a_user_gets_is_the_same_in_later_releases() -> None:
    split = splitter({"stable": 50, "canary": 50})
    labels = [split.label("digits", user) for user in ("ann", "bob", "cem", b"dan", "eve", "fay")]
    assert labels == ["canary", "stable", "stable", "stable", "canary", "canary"]


@given(SHARES)
def test_of_many_users_each_label_gets_its_share(shares: dict[str, int]) -> None:
    split, users = splitter(shares), 2000
    answered = Counter(split.label("digits", f"user {number}") for number in range(users))
    for label, number in shares.items():
        share = number / sum(shares.values())
        deviation = math.sqrt(users * share * (1 - share))
        assert abs(answered[label] - users * share) <= 5 * deviation + 1


@given(st.integers(1, 98), st.integers(1, 98), st.text(min_size=1))
def test_who_has_the_last_label_keeps_it_while_its_share_grows(
    one: int, other: int, user: str
) -> None:
    less, more = sorted((one, other))
    before = splitter({"stable": 100 - less, "canary": less}).label("digits", user)
    after = splitter({"stable": 100 - more, "canary": more}).label("digits", user)
    assert (before, after) != ("canary", "stable")


def test_a_place_in_one_model_says_nothing_of_that_in_another() -> None:
    split = splitter({"stable": 50, "canary": 50})
    same = sum(split.label("digits", user) == split.label("letters", user) for user in USERS)
    assert 5 < same < 35


@pytest.mark.parametrize(
    "text",
    [
        *("stable", "stable=", "stable=0", "stable=-1", "stable=1.5", "=5", "7=5", "a=1,a=2"),
        *("a=1,,b=2", "a=1000001", "a=9999999999999999999999", "a=٣"),
    ],
)
def test_what_is_no_list_of_shares_is_refused(text: str) -> None:
    with pytest.raises(StartError, match=r"split: expected labels, each once"):
        ServerConfig(split=text)  # type: ignore[arg-type] # as a source gives it


@pytest.mark.parametrize("header", ["X-User-Id", "user id", "", "ü"])
def test_what_is_no_header_is_refused(header: str, tmp_path: Path) -> None:
    with pytest.raises(StartError, match="split_header: "):
        ServerConfig(models=tmp_path, split_header=header)


def test_shares_are_read_as_they_are_written() -> None:
    assert Shares.parse("stable=95, canary=5").of_labels == {"stable": 95, "canary": 5}
    assert not Shares.parse(" ")


@pytest.fixture
def labelled(models: Path, tiny_models: None) -> None:
    """Give version 1 of the tiny model the label stable, and version 2 the label canary."""
    set_label(models, "tiny", "stable", 1)
    set_label(models, "tiny", "canary", 2)


@pytest.fixture
def split_server(labelled: None, start_server: Callable[..., Server]) -> Server:
    """Return a server that gives canary every fourth request."""
    return start_server(split="stable=3,canary=1")


@pytest.fixture
def stub(split_server: Server) -> Iterator[prediction_pb2_grpc.PredictionServiceStub]:
    with grpc.insecure_channel(f"localhost:{split_server.port}") as channel:
        yield prediction_pb2_grpc.PredictionServiceStub(channel)


def request(version: int = 0, label: str = "") -> prediction_pb2.PredictRequest:
    images = prediction_pb2.ImageBatch(
        count=1, data_type=prediction_pb2.DATA_TYPE_UINT8, data=bytes(6)
    )
    return prediction_pb2.PredictRequest(model_version=version, model_label=label, images=images)


def version_for(
    stub: prediction_pb2_grpc.PredictionServiceStub, *headers: tuple[str, str | bytes]
) -> int:
    response = stub.Predict(request(), metadata=headers, timeout=TIMEOUT_S)
    return response.model_version


def test_a_server_gives_every_label_its_share(
    stub: prediction_pb2_grpc.PredictionServiceStub,
) -> None:
    answered = Counter(version_for(stub) for _ in range(200))
    assert abs(answered[2] - 50) <= 4
    assert answered[1] + answered[2] == 200


def test_a_server_keeps_each_user_on_one_version(
    stub: prediction_pb2_grpc.PredictionServiceStub,
) -> None:
    first = [version_for(stub, ("x-user-id", user)) for user in USERS]
    assert set(first) == {1, 2}
    for _ in range(3):
        assert [version_for(stub, ("x-user-id", user)) for user in USERS] == first


def test_a_user_stays_on_one_version_whichever_protocol_is_spoken(
    split_server: Server, stub: prediction_pb2_grpc.PredictionServiceStub
) -> None:
    images = inference_pb2.ModelInferRequest.InferInputTensor(
        name="images", datatype="UINT8", shape=[1, 6]
    )
    asked = inference_pb2.ModelInferRequest(
        model_name="tiny", inputs=[images], raw_input_contents=[bytes(6)]
    )
    with grpc.insecure_channel(f"localhost:{split_server.port}") as channel:
        infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer"
        )
        for user in USERS:
            headers = (("x-user-id", user),)
            answer = infer(asked.SerializeToString(), metadata=headers, timeout=TIMEOUT_S)
            version = inference_pb2.ModelInferResponse.FromString(answer).model_version
            assert version == str(version_for(stub, *headers))


def test_requests_that_ask_for_a_version_or_a_label_get_it(
    stub: prediction_pb2_grpc.PredictionServiceStub,
) -> None:
    for _ in range(8):
        assert stub.Predict(request(version=2), timeout=TIMEOUT_S).model_version == 2
        assert stub.Predict(request(label="stable"), timeout=TIMEOUT_S).model_version == 1


def test_all_batches_of_a_stream_are_answered_by_one_version(
    stub: prediction_pb2_grpc.PredictionServiceStub,
) -> None:
    batch = prediction_pb2.PredictStreamRequest(images=request().images)
    seen = set()
    for _ in range(12):
        responses = stub.PredictStream(iter([batch] * 5), timeout=TIMEOUT_S)
        versions = {response.model_version for response in responses}
        assert len(versions) == 1
        seen |= versions
    assert seen == {1, 2}


def test_a_stream_is_its_users(stub: prediction_pb2_grpc.PredictionServiceStub) -> None:
    batch = prediction_pb2.PredictStreamRequest(images=request().images)
    for user in USERS[:8]:
        headers = (("x-user-id", user),)
        (response,) = stub.PredictStream(iter([batch]), metadata=headers, timeout=TIMEOUT_S)
        assert response.model_version == version_for(stub, *headers)


def test_a_header_of_another_name_can_be_chosen(
    labelled: None, start_server: Callable[..., Server]
) -> None:
    server = start_server(split="stable=50,canary=50", split_header="session-bin")
    with grpc.insecure_channel(f"localhost:{server.port}") as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        for session in (b"\xff\x00", b"2", b"3", b"4"):
            assert len({version_for(stub, ("session-bin", session)) for _ in range(4)}) == 1


def test_the_share_of_a_label_that_a_model_lacks_goes_to_its_default_version(
    models: Path, tiny_models: None, start_server: Callable[..., Server]
) -> None:
    set_label(models, "tiny", "stable", 1)
    server = start_server(split="stable=1,canary=1")
    with grpc.insecure_channel(f"localhost:{server.port}") as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        assert {version_for(stub) for _ in range(8)} == {1}
