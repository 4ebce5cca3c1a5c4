"""The same bits for an image, whoever shares its batch and however large it is."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.model.compiled import Classified, CompiledModel, Images, Workspace
from mlpserve.model.inputs import InputSpec
from mlpserve.model.metadata import Metadata
from mlpserve.model.network import Layer, Network
from mlpserve.model.weights import Model
from mlpserve.server.inference.self_test import reproducibility_problem
from mlpserve.server.server import Server
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc

SIZES = (300, 40, 10)
TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def wide(metadata: Metadata) -> Model:
    """Return a network that is wide enough for BLAS to treat batches of many sizes differently."""
    rng = np.random.default_rng(5)
    layers = [
        Layer(
            (rng.normal(size=(fan_in, fan_out)) / fan_in**0.5).astype(np.float32),
            rng.normal(size=fan_out).astype(np.float32),
            activation,
        )
        for fan_in, fan_out, activation in zip(
            SIZES[:-1], SIZES[1:], ("tanh", "softmax"), strict=True
        )
    ]
    labels = tuple(map(str, range(SIZES[-1])))
    described = replace(
        metadata, layer_sizes=SIZES, input=InputSpec((SIZES[0],)), class_labels=labels
    )
    return Model(Network(tuple(layers)), described)


@pytest.fixture(scope="module")
def images() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(6).integers(0, 256, (700, SIZES[0]), np.uint8)


@pytest.fixture(scope="module")
def compiled(wide: Model) -> CompiledModel:
    model = CompiledModel(wide, reproducible=True)
    if (problem := reproducibility_problem(model)) is not None:
        pytest.skip(f"not with the BLAS of this machine: {problem}")
    return model


@given(
    firsts=st.lists(st.integers(0, 660), min_size=1, max_size=6),
    count=st.integers(1, 40),
    is_float=st.booleans(),
)
def test_an_image_gets_the_same_bits_in_any_company(
    compiled: CompiledModel,
    images: npt.NDArray[np.uint8],
    firsts: list[int],
    count: int,
    is_float: bool,  # noqa: FBT001 - Hypothesis draws it
) -> None:
    whole: Images = (images / np.float32(255)).astype(np.float32) if is_float else images
    batches = [whole[first : first + count] for first in firsts]
    found = compiled.classify(batches, Workspace()).probabilities
    alone = [
        compiled.classify([image[np.newaxis]], Workspace()).probabilities
        for batch in batches
        for image in batch
    ]
    assert found.tobytes() == np.concatenate(alone).tobytes()


def test_a_batch_of_several_blocks_has_the_same_bits(
    compiled: CompiledModel, images: npt.NDArray[np.uint8]
) -> None:
    in_blocks = compiled.classify([images], Workspace(block_rows=100)).probabilities
    assert (
        in_blocks.tobytes() == compiled.classify([images], Workspace(1024)).probabilities.tobytes()
    )


def test_reproducible_answers_are_those_of_the_plain_network(
    compiled: CompiledModel, wide: Model, images: npt.NDArray[np.uint8]
) -> None:
    found = compiled.classify([images], Workspace()).probabilities
    expected = wide.network.probabilities(wide.metadata.input.scale(images))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_version_whose_answers_cannot_be_promised_is_not_served(
    models: Path,
    publish: Callable[..., None],
    serve_folder: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish("digits", versions=1)
    classify = CompiledModel.classify

    def depends_on_size(
        self: CompiledModel, batches: Sequence[Images], workspace: Workspace
    ) -> Classified:
        found = classify(self, batches, workspace)
        found.probabilities[:] += np.float32(1e-7) * (len(found.labels) == 33)
        return found

    monkeypatch.setattr(CompiledModel, "classify", depends_on_size)
    promising = serve_folder(models, reproducible=True).registry.models["digits"]
    assert promising.versions == ()
    assert "reproducible: cannot be promised with the BLAS" in promising.quarantined[1]
    assert "a batch of 33 uint8 images" in promising.quarantined[1]
    assert serve_folder(models).served == {"digits": [1]}


def test_a_reproducible_server_gives_the_same_bits_to_joined_and_single_calls(
    start_server: Callable[..., Server],
) -> None:
    pixels = np.random.default_rng(7).integers(0, 256, (200, 6), np.uint8)

    def request(rows: npt.NDArray[np.uint8]) -> prediction_pb2.PredictRequest:
        batch = prediction_pb2.ImageBatch(
            count=len(rows), data_type=prediction_pb2.DATA_TYPE_UINT8, data=rows.tobytes()
        )
        return prediction_pb2.PredictRequest(images=batch)

    with grpc.insecure_channel(start_server(reproducible=True).address) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        whole = stub.Predict(request(pixels), timeout=TIMEOUT_S).probabilities
        calls = [stub.Predict.future(request(row[np.newaxis]), timeout=TIMEOUT_S) for row in pixels]
        assert b"".join(call.result().probabilities for call in calls) == whole
