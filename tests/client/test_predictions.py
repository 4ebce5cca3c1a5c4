"""What can be made of an answer: the likeliest classes, names, slices, frames, JSON."""

import json
import sys
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

from mlpserve.client import (
    Client,
    ClientError,
    InvalidRequestError,
    Predictions,
    ServerTimings,
)
from mlpserve.v1 import prediction_pb2

IMAGES = np.random.default_rng(5).integers(0, 256, (60, 2, 3), np.uint8)
NAMES = ("cat", "dög", '"bird"')


@pytest.fixture
def found() -> Predictions:
    return Predictions(
        labels=np.array([1, 0], np.int32),
        probabilities=np.array([[0.25, 0.5, 0.25], [0.75, 0.0, 0.25]], np.float32),
        model_name="tiny",
        model_version=2,
    )


@pytest.fixture
def named(found: Predictions) -> Predictions:
    return Predictions(
        found.labels, found.probabilities, "tiny", 2, NAMES, ServerTimings(0.5, 0.25)
    )


def test_names_and_timings_come_where_they_are_asked_for(client: Client) -> None:
    plain = client.predict(IMAGES)
    assert plain.class_names is None
    assert plain.timings is None
    full = client.predict(IMAGES, class_names=True, timings=True, max_images_per_request=20)
    assert full.class_names == NAMES
    assert full.names == [NAMES[label] for label in full.labels]
    assert full.timings is not None
    assert 0 < full.timings.compute_s < 10
    assert 0 < full.timings.queue_s < 10
    for answer in client.predict_stream([IMAGES, IMAGES], class_names=True, timings=True):
        assert answer.class_names == NAMES
        assert answer.timings is not None


def test_names_are_asked_for_once_a_version(serve: Callable[..., str]) -> None:
    asked: list[int] = []

    def predict(
        request: prediction_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> prediction_pb2.PredictResponse:
        return prediction_pb2.PredictResponse(
            model_name="m",
            model_version=request.model_version or 3,
            probabilities=bytes(8),
            labels=bytes(4),
        )

    def get(
        request: prediction_pb2.GetModelRequest, context: grpc.ServicerContext
    ) -> prediction_pb2.GetModelResponse:
        asked.append(request.model_version)
        version = prediction_pb2.ModelVersion(
            version=request.model_version, class_labels=[f"a{request.model_version}", "b"]
        )
        return prediction_pb2.GetModelResponse(
            model=prediction_pb2.Model(name=request.model_name, versions=[version])
        )

    with Client(serve(Predict=predict, GetModel=get)) as client:
        for version in (0, 4, 3, 4):
            answer = client.predict(IMAGES[:1], version=version, class_names=True)
            assert answer.names == [f"a{version or 3}"]
    assert asked == [3, 4]


def test_the_top_classes_are_sorted_and_the_lower_comes_first_of_two_alike(
    found: Predictions,
) -> None:
    labels, probabilities = found.top(2)
    assert labels.tolist() == [[1, 0], [0, 2]]
    assert probabilities.tolist() == [[0.5, 0.25], [0.75, 0.25]]
    assert found.top(np.int64(99)).labels.tolist() == [[1, 0, 2], [0, 2, 1]]  # type: ignore[arg-type]
    assert found.top(1).labels[:, 0].tolist() == found.labels.tolist()


@pytest.mark.parametrize("k", [0, -1, 1.5, "2", None])
def test_the_number_of_top_classes_is_checked(found: Predictions, k: Any) -> None:
    with pytest.raises(InvalidRequestError, match="k: expected at least 1, got"):
        found.top(k)


def test_a_slice_has_views_of_the_rows_and_all_that_is_of_the_whole(named: Predictions) -> None:
    second = named[1:]
    assert second.labels.tolist() == [0]
    assert np.shares_memory(second.probabilities, named.probabilities)
    assert (second.model_name, second.model_version) == ("tiny", 2)
    assert second.names == ["cat"]


def test_names_that_were_not_asked_for_say_how_to_ask(found: Predictions) -> None:
    with pytest.raises(ClientError, match=r"predict\(..., class_names=True\)"):
        _ = found.names


def test_a_dictionary_goes_into_json_and_has_what_is_known(
    found: Predictions, named: Predictions
) -> None:
    assert json.loads(json.dumps(found.to_dict())) == {
        "model_name": "tiny",
        "model_version": 2,
        "labels": [1, 0],
        "probabilities": [[0.25, 0.5, 0.25], [0.75, 0.0, 0.25]],
    }
    assert json.loads(json.dumps(named.to_dict())) == found.to_dict() | {
        "names": ["dög", "cat"],
        "class_names": list(NAMES),
        "timings": {"queue_s": 0.5, "compute_s": 0.25},
    }


@pytest.mark.parametrize("kind", ["to_pandas", "to_polars"])
def test_a_frame_has_a_row_an_image(found: Predictions, named: Predictions, kind: str) -> None:
    frame = getattr(named, kind)()
    assert list(frame.columns) == ["label", "name", *(f"probability_{name}" for name in NAMES)]
    assert list(frame["label"]) == [1, 0]
    assert list(frame["name"]) == ["dög", "cat"]
    assert list(frame["probability_cat"]) == [0.25, 0.75]
    plain = getattr(found, kind)()
    assert list(plain.columns) == ["label", *(f"probability_{number}" for number in range(3))]


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_a_frame_needs_its_package_and_says_so(
    found: Predictions, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ClientError, match=f"to_{package}: needs {package}: pip install {package}"):
        getattr(found, f"to_{package}")()
