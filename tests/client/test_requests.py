from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mlpserve.client import InvalidRequestError
from mlpserve.client.arrays import as_wire_array
from mlpserve.client.requests import ModelSelector, encode_request, split
from mlpserve.v1 import prediction_pb2


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((0, 6), np.uint8), r"images: expected \(count, ...\).* got shape \(0, 6\)"),
        (np.zeros((3, 0), np.uint8), r"images: .*at least one image, got shape \(3, 0\)"),
        (np.zeros(6, np.uint8), r"got shape \(6,\); a single image needs a leading axis: image\["),
        (np.uint8(1), r"got shape \(\)"),
        ([], r"got shape \(0,\)"),
        (None, r"images: expected"),
        (np.zeros((1, 6), np.complex64), r"got complex64; numpy.abs\(images\) has"),
        (np.array([[1, "a"]], object), "images: expected numbers, got objects: int, str"),
        (np.array([[1, None]], object), "got objects: NoneType, int"),
        (np.array([[2**70, 1]], object), "far too large"),
        (
            np.array([[2**24 + 1, 0]]),
            "images: expected integers from -16777216 to 16777216, .* got 0 ",
        ),
        ([["a", "b"]], "got <U1"),
        (np.zeros((1, 6), "S3"), r"got \|S3"),
        (np.zeros((1, 6), "M8[s]"), r"got datetime64"),
        (np.zeros((1, 6), [("a", "u1")]), "got "),
        ([[0.5, 0.5], [0.5]], "images: expected"),
    ],
    ids=repr,
)
def test_what_is_no_batch_of_images_is_refused_before_anything_is_sent(
    images: npt.ArrayLike, message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        as_wire_array(images)


@given(
    arrays.arrays(
        dtype=st.one_of(
            st.just(np.dtype("u1")), arrays.floating_dtypes(endianness="?", sizes=(16, 32, 64))
        ),
        shape=arrays.array_shapes(min_dims=2, max_dims=4, max_side=4),
    )
)
def test_any_array_of_images_becomes_rows_of_the_same_values(
    images: npt.NDArray[np.float64],
) -> None:
    rows = as_wire_array(images)
    assert rows.dtype in (np.dtype("u1"), np.dtype("<f4"))
    assert (rows.dtype == np.uint8) == (images.dtype == np.uint8)
    with np.errstate(over="ignore"):
        expected = images.astype(rows.dtype).reshape(len(images), -1)
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-6)


def test_what_needs_no_change_is_not_copied() -> None:
    for dtype in ("u1", "<f4"):
        images = np.zeros((4, 2, 3), dtype)
        assert np.shares_memory(as_wire_array(images), images)


@given(
    count=st.integers(1, 3000),
    width=st.sampled_from([1, 784, 3073, 40_000, 4_000_000]),
    dtype=st.sampled_from(["u1", "<f4"]),
)
def test_a_split_is_in_order_complete_and_small_enough_for_every_request(
    count: int, width: int, dtype: str
) -> None:
    # One row that is repeated without taking memory, so that only the numbers of rows are real.
    images = np.broadcast_to(np.zeros(1, dtype), (count, width))
    parts = list(split(images))
    assert sum(map(len, parts)) == count
    for part in parts:
        assert 1 <= len(part) <= 1024
        assert part.nbytes <= 3 * 1024 * 1024 or len(part) == 1
    # No more requests than needed: all but the last are as full as the first.
    assert all(len(part) == len(parts[0]) for part in parts[:-1])
    assert (
        len(parts) == 1
        or len(parts[0]) == 1024
        or len(parts[0]) == max(1, 3 * 1024 * 1024 // (width * images.itemsize))
    )


def test_the_parts_of_a_split_are_views_in_order() -> None:
    images = np.arange(2500, dtype=np.float32).reshape(2500, 1)
    parts = list(split(images))
    np.testing.assert_array_equal(np.concatenate(parts), images)
    assert all(np.shares_memory(part, images) for part in parts)


def test_a_message_holds_the_values_row_by_row_and_little_endian() -> None:
    images = as_wire_array(np.array([[1.0, 0.5], [0.0, 0.25]], ">f8").T)
    message = prediction_pb2.PredictRequest.FromString(encode_request(images, ModelSelector()))
    assert message.images == prediction_pb2.ImageBatch(
        count=2,
        data_type=prediction_pb2.DATA_TYPE_FLOAT32,
        data=bytes.fromhex("0000803f 00000000 0000003f 0000803e"),
    )


@given(
    images=arrays.arrays(
        dtype=st.one_of(st.just(np.dtype("u1")), st.just(np.dtype("<f4"))),
        shape=st.tuples(st.integers(1, 300), st.integers(1, 300)),
        fill=st.just(1),
    ),
    selector=st.builds(
        ModelSelector, st.text(max_size=200), st.integers(0, 2**63 - 1), st.text(max_size=200)
    ),
)
def test_a_request_written_by_hand_is_what_protobuf_writes(
    images: npt.NDArray[Any], selector: ModelSelector
) -> None:
    expected: dict[str, Any] = {
        "model_name": selector.model,
        "model_version": selector.version,
        "model_label": selector.label,
        "images": prediction_pb2.ImageBatch(
            count=len(images),
            data_type="DATA_TYPE_UINT8" if images.dtype == np.uint8 else "DATA_TYPE_FLOAT32",
            data=images.tobytes(),
        ),
    }
    written = encode_request(images, selector)
    for kind in (prediction_pb2.PredictRequest, prediction_pb2.PredictStreamRequest):
        assert kind.FromString(written) == kind(**expected)
