"""Images of many libraries as rows of a request, and pictures as a model's values."""

import sys
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from mlpserve.client import InvalidRequestError
from mlpserve.client.arrays import as_wire_array, picture_values

BYTES = np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20
ROWS = BYTES.reshape(2, 6)


class Tensor:
    """A tensor as PyTorch's are: one that learns has no array until it is detached."""

    def __init__(self, values: npt.NDArray[Any], *, learns: bool = False) -> None:
        self._values, self._learns = values, learns

    def __array__(self, *_: object, **__: object) -> npt.NDArray[Any]:
        if self._learns:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        return self._values

    def __len__(self) -> int:
        return len(self._values)

    def detach(self) -> "Tensor":
        return Tensor(self._values)


class Frame:
    """A frame as those of pandas and polars: no sequence, but with an array."""

    def __init__(self, values: npt.NDArray[Any]) -> None:
        self._values = values

    def __array__(self, *_: object, **__: object) -> npt.NDArray[Any]:
        return self._values


@pytest.mark.parametrize(
    "images",
    [
        BYTES.astype(np.int64),
        BYTES.astype(">u2"),
        BYTES.tolist(),
        Frame(ROWS.astype(np.int64)),
        Frame(ROWS.astype(object)),
        Tensor(BYTES),
        Tensor(BYTES.astype(np.int64), learns=True),
        [Tensor(each) for each in BYTES],
        tuple(Tensor(each, learns=True) for each in BYTES),
        [Image.fromarray(each) for each in BYTES],
        [Image.fromarray(each).convert("P") for each in BYTES],
        [Image.fromarray(each).convert("LA") for each in BYTES],
        list(BYTES),
    ],
    ids=[
        "int64",
        "big-endian uint16",
        "lists",
        "frame",
        "frame of objects",
        "tensor",
        "tensor that learns",
        "tensors",
        "tuple of tensors",
        "pictures",
        "palettes",
        "with alpha",
        "list of arrays",
    ],
)
def test_whole_numbers_of_a_byte_are_sent_as_bytes_whatever_holds_them(images: Any) -> None:
    rows = as_wire_array(images)
    assert rows.dtype == np.uint8
    np.testing.assert_array_equal(rows, ROWS)


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0, 4095]], np.uint16),
        np.array([[-1, 1]], np.int8),
        np.array([[0, 65535]], np.int64),
        np.array([[-(2**24), 2**24]]),
        np.array([[0.5, 3]], object),
        np.array([[-0.25, 1.5]], np.float16),
    ],
    ids=repr,
)
def test_other_numbers_are_sent_as_floats_of_the_same_values(values: npt.NDArray[Any]) -> None:
    rows = as_wire_array(values)
    assert rows.dtype == np.dtype("<f4")
    np.testing.assert_array_equal(rows.astype(np.float64), values.astype(np.float64))


def test_a_mask_is_sent_as_black_and_white() -> None:
    rows = as_wire_array(BYTES > 100)
    assert rows.dtype == np.dtype("<f4")
    np.testing.assert_array_equal(rows, ROWS > 100)
    picture: Any = Image.fromarray(BYTES[0]).convert("1", dither=Image.Dither.NONE)
    np.testing.assert_array_equal(as_wire_array(picture), [np.asarray(picture).ravel()])


def test_one_picture_is_one_image_and_colours_are_values_of_it() -> None:
    picture: Any = Image.fromarray(BYTES[1])
    np.testing.assert_array_equal(as_wire_array(picture), ROWS[1:])
    colours = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    picture = Image.fromarray(colours)
    np.testing.assert_array_equal(as_wire_array(picture), [colours.ravel()])
    palette: Any = Image.fromarray(colours).convert("P", palette=Image.Palette.ADAPTIVE)
    assert as_wire_array(palette).shape == (1, 18)


def test_pillow_need_not_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", ModuleType("PIL.Image"))
    monkeypatch.delitem(sys.modules, "PIL.Image")
    np.testing.assert_array_equal(as_wire_array(BYTES.tolist()), ROWS)


def test_what_another_library_says_of_its_values_is_handed_on() -> None:
    class OnAnotherDevice(Tensor):
        def detach(self) -> Tensor:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")

    with pytest.raises(InvalidRequestError, match=r"images: expected an array: .*Tensor.cpu\(\)"):
        as_wire_array(OnAnotherDevice(BYTES))


@pytest.mark.parametrize(
    ("value_range", "expected"),
    [
        (None, np.array([0, 102, 255], np.uint8)),
        ((0, 255), np.array([0, 102, 255], np.float32)),
        ((0, 1), np.array([0, 0.4, 1], np.float32)),
        ((0, 16), np.array([0, 6.4, 16], np.float32)),
        ((-1, 1), np.array([-1, -0.2, 1], np.float32)),
        ((0, 4095), np.array([0, 1638, 4095], np.float32)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_picture_goes_from_the_lowest_to_the_highest_value_of_a_model(
    value_range: tuple[float, float] | None, expected: npt.NDArray[Any], dtype: type
) -> None:
    pixels = np.array([0, 102, 255], np.uint16) * (1 if dtype is np.uint8 else 257)
    values = picture_values(pixels.astype(dtype), value_range)
    assert values.dtype == expected.dtype
    np.testing.assert_allclose(values, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("pixels", "value_range"),
    [
        (np.array([0, 1, 1], np.uint8), (0, 1)),
        (np.array([0, 3, 16], np.uint8), (0, 16)),
        (np.array([0, 200, 255], np.uint16), None),
        (np.array([0, 200, 4095], np.uint16), (0, 4095)),
    ],
    ids=repr,
)
def test_a_picture_that_holds_values_of_the_model_keeps_them(
    pixels: npt.NDArray[Any], value_range: tuple[float, float] | None
) -> None:
    np.testing.assert_array_equal(picture_values(pixels, value_range), pixels)


def test_a_black_picture_is_black_for_every_model() -> None:
    black = np.zeros(3, np.uint8)
    assert set(picture_values(black, (-1, 1)).tolist()) == {-1.0}
    assert set(picture_values(black, (0, 16)).tolist()) == {0.0}
