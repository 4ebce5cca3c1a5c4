"""Values of a range of their own: scaled, checked, folded into a layer, kept in a file."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.model.compiled import CompiledModel, Workspace
from mlpserve.model.errors import ValueRangeError, WeightsFileError
from mlpserve.model.inputs import InputSpec, ValueRange
from mlpserve.model.metadata import Metadata
from mlpserve.model.network import Layer, Network
from mlpserve.model.weights import (
    GoldenSamples,
    Model,
    check_golden,
    golden_samples,
    load_model,
    save_model,
)

SHAPE = (2, 3)
RANGES = [
    ValueRange(0, 16),
    ValueRange(-1, 1),
    ValueRange(0, 4095),
    ValueRange(0, 65535),
    ValueRange(0, 1),
    ValueRange(-1024, 3071),
    ValueRange(99, 100),
    ValueRange(-0.43, 2.83),
]
SCALE = "; scale them as those were that the model learned from"
every_range = pytest.mark.parametrize("value_range", RANGES, ids=str)


def spec_of(value_range: ValueRange | None) -> InputSpec:
    return InputSpec(SHAPE, value_range=value_range)


def shares(count: int) -> npt.NDArray[np.float64]:
    values = np.random.default_rng(3).random((count, *SHAPE))
    values[0], values[1] = 0, 1
    return values


def model_of(model: Model, value_range: ValueRange | None) -> Model:
    return Model(model.network, replace(model.metadata, input=spec_of(value_range)))


@every_range
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_lowest_value_is_0_and_the_highest_1(
    value_range: ValueRange, dtype: type[np.floating]
) -> None:
    values = np.float32(value_range.low) + shares(20) * value_range.width
    out = np.empty((20, 6), dtype)
    inputs = spec_of(value_range).scale(values, dtype, out)
    assert inputs is out
    np.testing.assert_allclose(inputs, shares(20).reshape(20, 6), atol=1e-5)
    np.testing.assert_array_equal(spec_of(value_range).scale(values, dtype), inputs)


@pytest.mark.parametrize("dtype", ["u1", "i1", ">u2", "<i4", "i8", "f2", "f4", "f8"])
def test_a_value_is_the_same_in_every_data_type(dtype: str) -> None:
    values = np.arange(12).reshape(2, *SHAPE)
    spec = spec_of(ValueRange(0, 16))
    np.testing.assert_array_equal(spec.scale(values.astype(dtype)), values.reshape(2, 6) / 16)


@every_range
def test_the_compiled_model_folds_the_range_into_its_first_layer(
    model: Model, value_range: ValueRange
) -> None:
    ranged = model_of(model, value_range)
    values = (value_range.low + shares(30) * value_range.width).astype(np.float32)
    expected = model.network.probabilities(ranged.metadata.input.scale(values))
    compiled = CompiledModel(ranged)
    found = compiled.classify([values.reshape(30, 6)], Workspace())
    np.testing.assert_allclose(found.probabilities, expected, atol=2e-5)


def test_bytes_and_floats_of_a_range_are_answered_alike(model: Model) -> None:
    compiled = CompiledModel(model_of(model, ValueRange(0, 16)))
    values = np.random.default_rng(5).integers(0, 17, (9, 6), np.uint8)
    of_bytes = compiled.classify([values], Workspace()).probabilities
    of_floats = compiled.classify([values.astype(np.float32)], Workspace()).probabilities
    assert of_bytes.tobytes() == of_floats.tobytes()


@given(
    low=st.floats(-(2.0**20), 2.0**20, width=32),
    width=st.floats(2.0**-10, 2.0**20, width=32),
)
def test_unscaled_weights_give_what_scaled_inputs_give(low: float, width: float) -> None:
    try:
        value_range = ValueRange(low, low + width)
    except ValueRangeError:
        return
    rng = np.random.default_rng(1)
    layer = Layer(rng.normal(size=(6, 4)), rng.normal(size=4), "tanh")
    spec = spec_of(value_range)
    values = value_range.low + rng.random((8, 6)) * value_range.width
    unscaled = layer.unscaled(*spec.scaling(values.dtype))
    np.testing.assert_allclose(
        unscaled.forward(values), layer.forward(spec.scale(values, np.float64)), atol=1e-9
    )
    # No sum on the way is larger than the proof against overflows has it.
    scaled_sums = np.abs(layer.weights).sum(axis=0) + np.abs(layer.bias)
    unscaled_sums = np.abs(values) @ np.abs(unscaled.weights) + np.abs(unscaled.bias)
    assert (unscaled_sums <= spec.growth * scaled_sums * (1 + 1e-9)).all()
    assert np.abs(unscaled.weights).max() <= spec.growth * scaled_sums.max() * (1 + 1e-9)


def test_a_layer_for_bytes_and_shares_has_the_weights_that_it_had() -> None:
    weights = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    layer = Layer(weights, np.zeros(4, np.float32), "tanh")
    spec = spec_of(None)
    assert layer.unscaled(*spec.scaling(np.dtype("f4"))) is layer
    divided = layer.unscaled(*spec.scaling(np.dtype("u1")))
    assert divided.weights.tobytes() == (weights / np.float32(255)).tobytes()
    assert divided.bias is layer.bias


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (1, 1, "expected a lowest and a highest value at least 1e-06 apart"),
        (2, 1, "got 2 to 1"),
        (float("nan"), 1, "got nan to 1"),
        (0, float("inf"), "none beyond 1e\\+12, got 0 to inf"),
        (-1e300, 1, "got -inf to 1"),
        (1000, 1001, "a 100th as wide .* got 1000 to 1001; subtract the lowest value"),
    ],
)
def test_what_is_no_range_is_refused(low: float, high: float, message: str) -> None:
    with pytest.raises(ValueRangeError, match=message):
        ValueRange(low, high)


@pytest.mark.parametrize(
    ("values", "value_range", "message"),
    [
        (
            np.array([0, 1.0000001], "f4"),
            None,
            "float32 values from 0 to 1, got 0 to 1.0000001; numpy.clip removes what rounding left "
            "beyond them",
        ),
        (
            np.array([0, 255], "f4"),
            None,
            "float32 values from 0 to 1, got 0 to 255; values up to 255 are sent as uint8, or "
            "divided by 255",
        ),
        (np.array([0, np.nan], "f4"), None, "float32 values from 0 to 1, got NaN"),
        (np.array([-0.5, 0.1], "f4"), None, "float32 values from 0 to 1, got -0.5 to 0.1"),
        (np.array([0, 256], "i8"), None, "int64 values from 0 to 255, got 0 to 256"),
        (np.array([0, 17], "u1"), (0, 16), f"uint8 values from 0 to 16, got 0 to 17{SCALE}"),
        (np.array([0, 255.0]), (0, 16), f"float64 values from 0 to 16, got 0 to 255{SCALE}"),
        (np.array([-1.5, 0]), (-1, 1), f"float64 values from -1 to 1, got -1.5 to 0{SCALE}"),
        (np.array([0, 20]), (0, 16), f"int64 values from 0 to 16, got 0 to 20{SCALE}"),
    ],
    ids=repr,
)
def test_values_beyond_a_range_are_told_with_what_to_do(
    values: npt.NDArray[Any], value_range: tuple[float, float] | None, message: str
) -> None:
    spec = spec_of(value_range and ValueRange(*value_range))
    assert spec.problem(values) == f"expected {message}"


@every_range
def test_a_file_keeps_its_range(tmp_path: Path, model: Model, value_range: ValueRange) -> None:
    ranged = model_of(model, value_range)
    values = (value_range.low + shares(4) * value_range.width).astype(np.float32)
    golden = golden_samples(ranged.network, ranged.metadata.input, values)
    path = tmp_path / "weights.npz"
    save_model(path, Model(ranged.network, ranged.metadata, golden))
    loaded = load_model(path)
    assert loaded.metadata == ranged.metadata
    check_golden(loaded)


def test_releases_that_know_no_ranges_refuse_a_file_with_one_and_read_all_others(
    metadata: Metadata,
) -> None:
    ranged = replace(metadata, input=InputSpec(SHAPE, value_range=ValueRange(0, 16)))
    document = json.loads(ranged.to_json())
    assert document["format_version"] == 2  # they expect 1, and say that a later release knows it
    assert document["input"]["value_range"] == {"low": 0.0, "high": 16.0}
    plain = json.loads(metadata.to_json())
    assert plain["format_version"] == 1
    assert "value_range" not in plain["input"]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"low": 0}, "metadata.input.value_range: the field 'high' is missing"),
        ({"low": "0", "high": 1}, "metadata.input.value_range.low: expected float, got str"),
        ({"low": 3, "high": 1}, "metadata.input.value_range: expected a lowest and a highest"),
        ({"low": 0, "high": float("nan")}, "got 0 to nan"),
        ({"low": 0, "high": 10**400}, "metadata.input.value_range"),
        ([0, 1], "metadata.input.value_range: expected dict, got list"),
    ],
    ids=repr,
)
def test_a_damaged_range_is_refused(metadata: Metadata, written: object, message: str) -> None:
    document = json.loads(metadata.to_json())
    document["input"]["value_range"] = written
    with pytest.raises(WeightsFileError) as caught:
        Metadata.from_json(json.dumps(document))
    assert message in str(caught.value)


def test_golden_samples_beyond_the_range_are_refused(model: Model) -> None:
    golden = GoldenSamples(np.full((1, *SHAPE), 17, np.uint8), np.full((1, 3), 1 / 3, np.float32))
    metadata = replace(model.metadata, input=spec_of(ValueRange(0, 16)))
    with pytest.raises(WeightsFileError, match="golden_images: expected uint8 values from 0 to 16"):
        Model(model.network, metadata, golden)


def test_weights_that_the_range_could_make_overflow_are_refused(
    tmp_path: Path, model: Model
) -> None:
    first, *others = model.network.layers
    huge = Layer(np.full_like(first.weights, 1e33), first.bias, first.activation)
    network = Network((huge, *others))
    save_model(tmp_path / "fine.npz", Model(network, model.metadata))
    load_model(tmp_path / "fine.npz")
    narrow = replace(model.metadata, input=spec_of(ValueRange(0, 1e-6)))
    save_model(tmp_path / "narrow.npz", Model(network, narrow))
    with pytest.raises(WeightsFileError, match="expected values with which no image overflows"):
        load_model(tmp_path / "narrow.npz")


def test_warnings_are_kept(metadata: Metadata) -> None:
    warned = replace(metadata, training=replace(metadata.training, warnings=("all is black",)))
    assert Metadata.from_json(warned.to_json()).training.warnings == ("all is black",)
