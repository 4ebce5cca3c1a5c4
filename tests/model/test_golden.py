from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as array_of

from mlpserve.model.errors import WeightsFileError
from mlpserve.model.weights import (
    GoldenSamples,
    Model,
    check_golden,
    golden_samples,
    load_model,
    save_model,
)

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]

COUNT = 5
NEITHER = "entries: expected both golden_images and golden_probabilities or neither, got only "


def random_images(dtype: type) -> npt.NDArray[Any]:
    rng = np.random.default_rng(8)
    images = rng.integers(0, 256, (COUNT, 2, 3), np.uint8)
    return images if dtype is np.uint8 else rng.random((COUNT, 2, 3), np.float32)


def with_golden(model: Model, images: npt.NDArray[Any]) -> Model:
    return replace(model, golden=golden_samples(model.network, model.metadata.input, images))


def golden_of(model: Model) -> GoldenSamples:
    assert model.golden is not None
    return model.golden


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.npz"


@pytest.fixture
def arrays(path: Path, model: Model) -> Arrays:
    """Return what a good file with golden samples holds, to make a bad one of."""
    save_model(path, with_golden(model, random_images(np.uint8)))
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def refusal(path: Path, arrays: Arrays) -> str:
    """Return the cause for which a file of these arrays is refused, without the path before it."""
    np.savez(path, **arrays)  # type: ignore[arg-type]  # no array is called allow_pickle
    with pytest.raises(WeightsFileError) as refused:
        load_model(path)
    return str(refused.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_samples_load_bit_for_bit_as_they_were_saved(path: Path, model: Model, dtype: type) -> None:
    saved = with_golden(model, random_images(dtype))
    save_model(path, saved)
    loaded = golden_of(load_model(path))
    for field in ("images", "probabilities"):
        one, other = getattr(loaded, field), getattr(saved.golden, field)
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


def test_order_in_memory_changes_no_sample(path: Path, model: Model) -> None:
    images = random_images(np.uint8)
    save_model(path, with_golden(model, np.asfortranarray(images)))
    loaded = golden_of(load_model(path)).images
    np.testing.assert_array_equal(loaded, images)
    assert loaded.flags.c_contiguous


def test_file_of_an_earlier_release_has_no_samples_and_passes(path: Path, model: Model) -> None:
    save_model(path, model)
    loaded = load_model(path)
    assert loaded.golden is None
    check_golden(loaded)


def test_numpy_alone_can_check_itself(arrays: Arrays) -> None:
    hidden = np.tanh(arrays["golden_images"].reshape(COUNT, -1) / 255 @ arrays["W1"] + arrays["b1"])
    exponentials = np.exp(hidden @ arrays["W2"] + arrays["b2"])
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(arrays["golden_probabilities"], probabilities, atol=1e-6)


@given(images=array_of(np.uint8, st.tuples(st.integers(1, 20), st.just(2), st.just(3))))
def test_whatever_the_images_the_network_that_answered_passes(
    model: Model, images: npt.NDArray[np.uint8]
) -> None:
    check_golden(with_golden(model, images), tolerance=0)


@pytest.mark.parametrize("change", [0.01, np.nan], ids=["other", "NaN"])
@pytest.mark.parametrize("index", range(4))
def test_network_with_another_weight_does_not_pass(model: Model, index: int, change: float) -> None:
    parameters = [array.copy() for array in model.network.parameters]
    parameters[index][..., 1] += change
    other = replace(
        with_golden(model, random_images(np.uint8)),
        network=model.network.with_parameters(parameters),
    )
    with pytest.raises(
        WeightsFileError, match="golden samples of tiny:1: expected probabilities within"
    ):
        check_golden(other)


def test_samples_pass_up_to_the_tolerance(model: Model) -> None:
    golden = golden_of(with_golden(model, random_images(np.uint8)))
    moved = golden.probabilities.copy()
    moved[3, 1] += 0.25 if moved[3, 1] < 0.5 else -0.25
    model = replace(model, golden=replace(golden, probabilities=moved))
    check_golden(model, tolerance=0.2501)
    with pytest.raises(WeightsFileError, match=r"within 0\.249 of those in the file, but one is"):
        check_golden(model, tolerance=0.249)


@pytest.mark.parametrize("name", ["golden_images", "golden_probabilities"])
def test_one_entry_without_the_other_is_refused(path: Path, arrays: Arrays, name: str) -> None:
    kept = {key: array for key, array in arrays.items() if key == name or "golden" not in key}
    assert refusal(path, kept) == NEITHER + name


@pytest.mark.parametrize(
    ("name", "array", "cause"),
    [
        (
            "golden_images",
            np.zeros((COUNT, 2, 3)),
            "golden_images: expected uint8 or float32, got float64",
        ),
        (
            "golden_images",
            np.zeros((COUNT, 2, 3), ">f4"),
            "golden_images: expected uint8 or float32, got >f4",
        ),
        (
            "golden_images",
            np.zeros((COUNT, 3, 2), np.uint8),
            "golden_images: expected images of (2, 3), got (3, 2)",
        ),
        (
            "golden_images",
            np.zeros((COUNT, 6), np.uint8),
            "golden_images: expected images of (2, 3), got (6,)",
        ),
        (
            "golden_images",
            np.zeros((0, 2, 3), np.uint8),
            "golden_images: expected at least one sample, got (0, 2, 3)",
        ),
        (
            "golden_images",
            np.zeros((), np.uint8),
            "golden_images: expected at least one sample, got ()",
        ),
        (
            "golden_images",
            np.full((COUNT, 2, 3), 255, np.float32),
            "golden_images: expected float32 values from 0 to 1, got 255 to 255; "
            "values up to 255 are sent as uint8, or divided by 255",
        ),
        (
            "golden_images",
            np.full((COUNT, 2, 3), np.nan, np.float32),
            "golden_images: expected float32 values from 0 to 1, got NaN",
        ),
        (
            "golden_probabilities",
            np.zeros((COUNT, 3)),
            "golden_probabilities: expected float32, got float64",
        ),
        (
            "golden_probabilities",
            np.zeros((COUNT - 1, 3), np.float32),
            "golden_probabilities: expected 5 rows, one an image, got (4, 3)",
        ),
        (
            "golden_probabilities",
            np.zeros(COUNT, np.float32),
            "golden_probabilities: expected 5 rows, one an image, got (5,)",
        ),
        (
            "golden_probabilities",
            np.zeros((COUNT, 4), np.float32),
            "golden_probabilities: expected 3 columns, one a class, got 4",
        ),
        (
            "golden_probabilities",
            np.full((COUNT, 3), -np.inf, np.float32),
            "golden_probabilities: expected values from 0 to 1, got -inf to -inf",
        ),
    ],
)
def test_wrong_entry_is_named(
    path: Path, arrays: Arrays, name: str, array: npt.NDArray[Any], cause: str
) -> None:
    assert refusal(path, {**arrays, name: array}) == cause


def test_samples_of_another_network_are_refused_when_the_model_is_made(model: Model) -> None:
    images = np.zeros((COUNT, 3, 2), np.uint8)
    other = GoldenSamples(images, np.zeros((COUNT, 3), np.float32))
    with pytest.raises(WeightsFileError, match=r"golden_images: expected images of \(2, 3\)"):
        replace(model, golden=other)
