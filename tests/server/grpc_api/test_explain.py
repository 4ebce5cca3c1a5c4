"""Explain over a real channel, on either adapter: what it answers, what it refuses, in parts."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.model.attribution import gradient_times_input, integrated_gradients, logits
from mlpserve.model.inputs import InputSpec, ValueRange
from mlpserve.model.versions import publish
from mlpserve.model.weights import Model
from mlpserve.server.server import Server
from mlpserve.server.telemetry.metrics import REQUESTS
from mlpserve.v1 import prediction_pb2
from mlpserve.v1.prediction_pb2_grpc import PredictionServiceStub

StartServer = Callable[..., Server]
TIMEOUT_S: Final = 10.0
GRADIENT: Final = prediction_pb2.EXPLANATION_METHOD_GRADIENT_TIMES_INPUT
INTEGRATED: Final = prediction_pb2.EXPLANATION_METHOD_INTEGRATED_GRADIENTS
Floats = npt.NDArray[np.float32]
UINT8: Final = np.random.default_rng(8).integers(0, 256, (3, 6), np.uint8)
FLOATS: Final = (UINT8 / 255).astype(np.float32)


class Explained:
    """A response in arrays, of images of 6 values and 3 classes."""

    def __init__(self, response: prediction_pb2.ExplainResponse) -> None:
        def floats(data: bytes) -> Floats:
            return np.frombuffer(data, "<f4")

        self.attributions = floats(response.attributions).reshape(-1, 6)
        self.classes = np.frombuffer(response.classes, "<i4")
        self.logits = floats(response.logits)
        self.baseline_logits = floats(response.baseline_logits)
        self.probabilities = floats(response.probabilities).reshape(-1, 3)


def batch_of(images: npt.NDArray[Any]) -> prediction_pb2.ImageBatch:
    is_uint8 = images.dtype == np.uint8
    data_type = prediction_pb2.DATA_TYPE_UINT8 if is_uint8 else prediction_pb2.DATA_TYPE_FLOAT32
    return prediction_pb2.ImageBatch(count=len(images), data_type=data_type, data=images.tobytes())


def explain(stub: PredictionServiceStub, images: npt.NDArray[Any], **fields: Any) -> Explained:
    if "classes" in fields:
        fields["classes"] = np.array(fields["classes"], "<i4").tobytes()
    request = prediction_pb2.ExplainRequest(images=batch_of(images), **fields)
    return Explained(stub.Explain(request, timeout=TIMEOUT_S))


@pytest.fixture
def stub(server: Server) -> Iterator[PredictionServiceStub]:
    with grpc.insecure_channel(server.address) as channel:
        yield PredictionServiceStub(channel)


def refusal(stub: PredictionServiceStub, **fields: Any) -> tuple[str, str]:
    request = prediction_pb2.ExplainRequest(**{"images": batch_of(UINT8), **fields})
    with pytest.raises(grpc.RpcError) as caught:
        stub.Explain(request, timeout=TIMEOUT_S)
    return caught.value.code().name, caught.value.details() or ""


METHODS: Final[dict[str, tuple[dict[str, Any], Callable[..., npt.NDArray[Any]]]]] = {
    "default": ({}, integrated_gradients),
    "integrated": ({"method": INTEGRATED, "steps": 7}, partial(integrated_gradients, steps=7)),
    "gradient": ({"method": GRADIENT}, gradient_times_input),
}


@pytest.mark.parametrize("images", [UINT8, FLOATS], ids=["uint8", "float32"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("classes", [[2, 0, 1], [2, -1, -1], []], ids=str)
def test_attributions_are_those_of_the_model_as_it_is_computed_here(
    stub: PredictionServiceStub,
    model: Model,
    images: npt.NDArray[Any],
    method: str,
    classes: list[int],
) -> None:
    network, inputs = model.network.astype(np.float64), FLOATS.astype(np.float64)
    wanted = np.array(classes or [-1] * 3)
    chosen = np.where(wanted < 0, network.probabilities(inputs).argmax(axis=1), wanted)
    fields, attribute = METHODS[method]
    found = explain(stub, images, classes=classes, **fields)
    np.testing.assert_array_equal(found.classes, chosen)
    expected = attribute(network, inputs, chosen)
    np.testing.assert_allclose(found.attributions, expected, rtol=0, atol=1e-5)
    rows = np.arange(len(chosen))
    for sums, of in ((found.logits, inputs), (found.baseline_logits, 0 * inputs)):
        np.testing.assert_allclose(sums, logits(network, of)[rows, chosen], rtol=0, atol=1e-5)


def test_the_answer_has_the_prediction_and_where_the_time_went(stub: PredictionServiceStub) -> None:
    images = batch_of(UINT8)
    request = prediction_pb2.PredictRequest(images=images, model_version=1)
    predicted = stub.Predict(request, timeout=TIMEOUT_S)
    asked = prediction_pb2.ExplainRequest(images=images, model_version=1, with_timings=True)
    found = stub.Explain(asked, timeout=TIMEOUT_S)
    assert (found.model_name, found.model_version) == ("tiny", 1)
    assert (found.probabilities, found.labels) == (predicted.probabilities, predicted.labels)
    assert found.timings.compute_s > 0
    assert not stub.Explain(prediction_pb2.ExplainRequest(images=images)).HasField("timings")


def test_integrated_gradients_sum_to_what_the_image_changed_in_the_logit(
    stub: PredictionServiceStub,
) -> None:
    rough, fine = (
        np.concatenate([explain_one(stub, image, steps) for image in FLOATS]) for steps in (2, 256)
    )
    assert np.abs(fine).max() < 1e-4 < np.abs(rough).max()


def explain_one(stub: PredictionServiceStub, image: Floats, steps: int) -> Floats:
    """Return what is missing to the sum."""
    found = explain(stub, image[np.newaxis], steps=steps, classes=[1])
    missing: Floats = found.attributions.sum(axis=1) - (found.logits - found.baseline_logits)
    return missing


def test_gradients_are_those_of_finite_differences_of_the_logits_that_are_answered(
    stub: PredictionServiceStub,
) -> None:
    images, classes, step = FLOATS * 0.8 + 0.1, [1, 2, 0], np.float32(1 / 64)
    found = explain(stub, images, classes=classes, method=GRADIENT)
    for value in range(images.shape[1]):
        nudge = np.zeros(images.shape[1], np.float32)
        nudge[value] = step
        above, below = (
            explain(stub, images + each, classes=classes, method=GRADIENT).logits
            for each in (nudge, -nudge)
        )
        differences = (above - below) / (2 * step) * images[:, value]
        np.testing.assert_allclose(found.attributions[:, value], differences, rtol=0, atol=2e-3)


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_the_darkest_value_of_a_models_range_is_the_baseline(
    start_server: StartServer, models: Path, model: Model, low: float
) -> None:
    spec = InputSpec((2, 3), value_range=ValueRange(low, 16))
    ranged = Model(model.network, replace(model.metadata, name="ranged", input=spec))
    publish(models, ranged)
    images = (low + FLOATS * (16 - low)).astype(np.float32)
    images[0] = low
    with grpc.insecure_channel(start_server().address) as channel:
        stub = PredictionServiceStub(channel)
        found = explain(stub, images, model_name="ranged", steps=256, classes=[1, 1, 1])
    assert not found.attributions[0].any()
    assert found.logits[0] == pytest.approx(found.baseline_logits[0], abs=1e-5)
    expected = integrated_gradients(
        model.network.astype(np.float64),
        spec.scale(images, np.float64),
        np.ones(3, np.intp),
        steps=256,
    )
    np.testing.assert_allclose(found.attributions, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 0}, "steps: expected from 1 to 256, got 0"),
        ({"steps": 257}, "steps: expected from 1 to 256, got 257"),
        ({"method": GRADIENT, "steps": 3}, "steps: expected none with EXPLANATION_METHOD_GRADI"),
        ({"method": 3}, "method: expected EXPLANATION_METHOD_GRADIENT_TIMES_INPUT, EXPL"),
        ({"classes": bytes(8)}, "classes: expected 12 bytes (3 int32 values, one for each image)"),
        ({"classes": bytes(13)}, "classes: expected 12 bytes (3 int32 values, one for each image)"),
        (
            {"classes": np.array([0, 3, 0], "<i4").tobytes()},
            "classes: expected from 0 to 2, or -1 for the most probable, got 3",
        ),
        ({"classes": np.array([0, -2, 0], "<i4").tobytes()}, "got -2"),
        ({"images": prediction_pb2.ImageBatch()}, "images.data_type: expected DATA_TYPE_UINT8"),
        ({"images": batch_of(UINT8[:, :5])}, "images.data: expected 18 bytes"),
        ({"images": batch_of(FLOATS + 1)}, "images.data: expected float32 values from 0 to 1"),
        ({"model_version": -1}, "model_version: expected a positive number"),
        ({"model_version": 1, "model_label": "x"}, "model_label: expected none beside"),
    ],
    ids=str,
)
def test_a_wrong_field_is_named(
    stub: PredictionServiceStub, fields: dict[str, Any], message: str
) -> None:
    code, details = refusal(stub, **fields)
    assert (code, message in details) == ("INVALID_ARGUMENT", True), details
    assert refusal(stub, model_name="huge")[0] == refusal(stub, model_version=9)[0] == "NOT_FOUND"


def test_images_times_steps_are_at_most_what_a_request_may_carry(
    stub: PredictionServiceStub,
) -> None:
    images = np.resize(UINT8, (64, 6))
    allowed: list[tuple[int, dict[str, Any]]]
    allowed = [(3, {}), (16, {"method": GRADIENT}), (16, {"steps": 1}), (1, {"steps": 256})]
    for most, fields in allowed:
        assert len(explain(stub, images[:most], **fields).classes) == most
        code, details = refusal(stub, images=batch_of(images[: most + 1]), **fields)
        assert code == "INVALID_ARGUMENT"
        assert details.startswith(f"images.count: expected from 1 to {most} images to explain, ")
        assert details.endswith(f" and all as at most 64, got {most + 1}")


@pytest.mark.parametrize("fields", [{"method": GRADIENT}, {"steps": 4}], ids=str)
def test_an_explanation_in_parts_is_the_same_as_each_image_alone(
    start_server: StartServer, fields: dict[str, Any]
) -> None:
    images = np.random.default_rng(3).integers(0, 256, (50, 6), np.uint8)
    classes = np.random.default_rng(4).integers(-1, 3, 50)
    server = start_server(max_batch_rows=12, max_batch_images=200)
    with grpc.insecure_channel(server.address) as channel:
        stub = PredictionServiceStub(channel)
        whole = explain(stub, images, classes=classes, **fields)
        for number in range(0, 50, 7):
            row = slice(number, number + 1)
            alone = explain(stub, images[row], classes=classes[row], **fields)
            for name, array in vars(alone).items():
                np.testing.assert_allclose(vars(whole)[name][row], array, rtol=0, atol=1e-5)


def test_reproducible_explanations_have_the_same_bits_in_any_company(
    start_server: StartServer,
) -> None:
    images = np.random.default_rng(3).integers(0, 256, (21, 6), np.uint8)
    server = start_server(reproducible=True)
    with grpc.insecure_channel(server.address) as channel:
        stub = PredictionServiceStub(channel)
        whole = explain(stub, images, steps=3)
        for number in range(21):
            alone = explain(stub, images[number : number + 1], steps=3)
            for name, array in vars(alone).items():
                assert vars(whole)[name][number].tobytes() == array.tobytes()


def test_calls_at_once_get_what_is_theirs(stub: PredictionServiceStub) -> None:
    images = np.random.default_rng(3).integers(0, 256, (40, 6), np.uint8)
    asked = [
        prediction_pb2.ExplainRequest(images=batch_of(images[row : row + 1]), steps=1 + row % 3)
        for row in range(40)
    ]
    calls = [stub.Explain.future(each, timeout=TIMEOUT_S) for each in asked]
    for each, call in zip(asked, calls, strict=True):
        found, alone = Explained(call.result()), Explained(stub.Explain(each))
        np.testing.assert_allclose(found.attributions, alone.attributions, rtol=0, atol=1e-6)


def test_it_is_counted_by_its_name(server: Server, stub: PredictionServiceStub) -> None:
    explain(stub, UINT8)
    refusal(stub, steps=0)
    counted = server.metrics("")[REQUESTS.name]
    of_explain = {tuple(labels): count for labels, count in counted if labels[0] == "Explain"}
    assert of_explain == {
        ("Explain", "tiny", "2", "OK"): 1,
        ("Explain", "", "", "INVALID_ARGUMENT"): 1,
    }
