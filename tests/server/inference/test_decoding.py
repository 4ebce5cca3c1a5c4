import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.model.compiled import CompiledModel, Workspace
from mlpserve.model.inputs import InputSpec
from mlpserve.model.weights import Model
from mlpserve.server.errors import RequestError
from mlpserve.server.inference.decoding import FLOAT32, UINT8, ImageDType, decode_images

SPEC = InputSpec((2, 3))  # 6 values an image


def decoded(data: bytes, count: int, dtype: ImageDType) -> object:
    return decode_images(data, count=count, dtype=dtype, spec=SPEC, max_batch_images=4)


def refusal(data: bytes, count: int, dtype: ImageDType) -> str:
    with pytest.raises(RequestError) as caught:
        decoded(data, count, dtype)
    return str(caught.value)


def floats(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


def test_images_are_read_without_a_copy() -> None:
    data = bytes(range(12))
    images = decode_images(data, count=2, dtype=UINT8, spec=SPEC, max_batch_images=4)
    assert images.tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    assert not images.flags.owndata


@pytest.mark.parametrize(
    ("count", "data", "dtype", "message"),
    [
        (0, b"", UINT8, "images.count: expected from 1 to 4 images a request, got 0"),
        (5, bytes(30), UINT8, "images.count: expected from 1 to 4 images a request, got 5"),
        (
            2,
            bytes(11),
            UINT8,
            "images.data: expected 12 bytes (2 images of 2 x 3 values, uint8), got 11",
        ),
        (
            2,
            bytes(6),
            UINT8,
            "images.data: expected 12 bytes (2 images of 2 x 3 values, uint8), got 6, "
            "which is one image: is images.count right?",
        ),
        (
            1,
            bytes(24),
            UINT8,
            "images.data: expected 6 bytes (1 images of 2 x 3 values, uint8), got 24, "
            "which is right for float32: is images.data_type right?",
        ),
        (
            2,
            bytes(8),
            UINT8,
            "images.data: expected 12 bytes (2 images of 2 x 3 values, uint8), got 8, "
            "which is 4 values an image",
        ),
        (1, b"", FLOAT32, "images.data: expected 24 bytes"),
    ],
)
def test_a_wrong_count_or_length_is_refused_with_what_was_expected_and_what_came(
    count: int, data: bytes, dtype: ImageDType, message: str
) -> None:
    assert message in refusal(data, count, dtype)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -0.001, 1.001])
@pytest.mark.parametrize("position", [0, 3, 5])
def test_a_float_out_of_range_is_refused_wherever_it_stands(value: float, position: int) -> None:
    values = [0.5] * 6
    values[position] = value
    assert "expected float32 values from 0 to 1, got " in refusal(floats(*values), 1, FLOAT32)


def test_pixels_sent_as_floats_are_refused_with_the_hint_to_divide() -> None:
    message = refusal(floats(0, 17, 255, 3, 0, 0), 1, FLOAT32)
    assert message == (
        "images.data: expected float32 values from 0 to 1, got 0 to 255; "
        "values up to 255 are sent as uint8, or divided by 255"
    )


def floats_of(count: int) -> st.SearchStrategy[bytes]:
    """Return what makes some images in float32, good ones more often than random bytes would."""
    values = st.floats(0, 1, width=32) | st.floats(width=32)
    return st.lists(values, min_size=6 * count, max_size=6 * count).map(lambda each: floats(*each))


@given(data=st.data(), count=st.integers(0, 6), dtype=st.sampled_from([UINT8, FLOAT32]))
def test_bytes_are_images_where_their_count_and_values_are_right_and_else_refused(
    data: st.DataObject, count: int, dtype: ImageDType
) -> None:
    whole = (
        floats_of(count)
        if dtype == FLOAT32
        else st.binary(min_size=6 * count).map(lambda drawn: drawn[: 6 * count])
    )
    sent = data.draw(whole | st.binary(max_size=64))
    is_right = 1 <= count <= 4 and len(sent) == 6 * count * (4 if dtype == FLOAT32 else 1)
    if is_right and dtype == FLOAT32:
        values = np.frombuffer(sent, "<f4")
        is_right = bool(((values >= 0) & (values <= 1)).all())
    if not is_right:
        refusal(sent, count, dtype)
        return
    images = decode_images(sent, count=count, dtype=dtype, spec=SPEC, max_batch_images=4)
    assert images.shape == (count, 6)
    assert images.tobytes() == sent


def test_each_batch_gets_what_the_network_says_of_it(model: Model) -> None:
    rng = np.random.default_rng(1)
    batches = [rng.integers(0, 256, (count, 6), np.uint8) for count in (5, 1, 3)]
    found = CompiledModel(model).answers(batches, Workspace())
    assert len(found) == 3
    for answer, images in zip(found, batches, strict=True):
        expected = model.network.probabilities(images.astype(np.float32) / np.float32(255))
        probabilities = np.frombuffer(answer.probabilities, "<f4").reshape(len(images), 3)
        np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(
            np.frombuffer(answer.labels, "<i4"), probabilities.argmax(axis=1)
        )
