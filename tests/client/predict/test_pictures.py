"""Pictures as people have them: damaged notes, 16 bits, other shapes of models, paper."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from mlpserve.client.predict.doubts import doubt
from mlpserve.client.predict.pictures import Look, read_picture
from mlpserve.datasets import DatasetError

SHAPE = (4, 6)
GREY = np.arange(24, dtype=np.uint8).reshape(SHAPE) * 4
ROTATED = 6  # of EXIF: a quarter turn to the right shows it upright


def saved(path: Path, picture: Image.Image, kind: str = "PNG", **options: Any) -> Path:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    path.write_bytes(content.getvalue())
    return path


def with_chunk(path: Path, kind: bytes, data: bytes) -> Path:
    """Put a chunk before the pixels of a PNG, which not every release of Pillow would write."""
    content = path.read_bytes()
    place = content.index(b"IDAT") - 4  # where the length of that chunk is
    chunk = struct.pack(">I", len(data)) + kind + data
    chunk += struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(content[:place] + chunk + content[place:])
    return path


def read(path: Path, shape: tuple[int, ...] = SHAPE, look: Look = Look()) -> npt.NDArray[np.uint8]:  # noqa: B008 - frozen
    return read_picture(path, shape, look)[0]


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("exif", [b"Exif\0\0broken", b"Exif\0\0II*\0\xff\xff\xff\xff", b"\0" * 9])
def test_a_damaged_note_of_the_camera_leaves_the_picture_as_it_is(
    tmp_path: Path, kind: str, exif: bytes
) -> None:
    options: dict[str, Any] = {"exif": exif} if kind == "PNG" else {"exif": exif, "quality": 100}
    found = read(saved(tmp_path / "a", Image.fromarray(GREY), kind, **options))
    np.testing.assert_allclose(found.astype(int), GREY.astype(int), atol=3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_is_turned_as_its_camera_says(tmp_path: Path, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = ROTATED
    lying = Image.fromarray(np.rot90(GREY).copy())
    options: dict[str, Any] = {"exif": exif} if kind == "PNG" else {"exif": exif, "quality": 100}
    found = read(saved(tmp_path / "a", lying, kind, **options))
    np.testing.assert_allclose(found.astype(int), GREY.astype(int), atol=3)


@pytest.mark.parametrize(("invert", "expected"), [(False, 0), (True, 0)])
def test_the_transparent_grey_of_16_bits_is_as_the_page(
    tmp_path: Path, *, invert: bool, expected: int
) -> None:
    wide = GREY.astype(np.uint16) * 257
    wide[1, 2] = 0x1234  # whose first byte alone is a grey that others may have
    path = with_chunk(saved(tmp_path / "a.png", Image.fromarray(wide)), b"tRNS", b"\x12\x34")
    found = read(path, look=Look(invert=invert))
    assert found[1, 2] == expected  # black: no ink, inverted or not
    rest = np.ones(SHAPE, bool)
    rest[1, 2] = False
    np.testing.assert_array_equal(found[rest], (255 - GREY if invert else GREY)[rest])


@pytest.mark.parametrize("shape", [(4, 6, 1), (1, 4, 6), (4, 6)])
def test_axes_of_length_1_do_not_matter(tmp_path: Path, shape: tuple[int, ...]) -> None:
    found = read(saved(tmp_path / "a.png", Image.fromarray(GREY)), shape)
    np.testing.assert_array_equal(found, GREY.reshape(shape))


def test_a_model_of_flat_squares_takes_pictures(tmp_path: Path) -> None:
    square = GREY[:, :4]
    found = read(saved(tmp_path / "a.png", Image.fromarray(square.copy())), (16,))
    np.testing.assert_array_equal(found, square.reshape(16))


@pytest.mark.parametrize("invert", [False, True])
def test_12_bits_in_16_are_the_values_of_a_model_of_12_bits(
    tmp_path: Path, *, invert: bool
) -> None:
    values = GREY.astype(np.uint16) * 44  # up to 4048
    values = 4095 - values if invert else values
    path = saved(tmp_path / "a.png", Image.fromarray(values))
    found, warning = read_picture(path, SHAPE, Look(invert=invert), (0, 4095))
    np.testing.assert_array_equal(found, 4095 - values if invert else values)
    assert warning == ""


def test_bytes_are_scaled_to_a_models_range(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(GREY))
    found, _ = read_picture(path, SHAPE, Look(), (-1, 1))
    np.testing.assert_allclose(found, GREY / 127.5 - 1, atol=1e-6)


def test_a_model_of_oblongs_does_not_preprocess(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(GREY))
    with pytest.raises(DatasetError, match="expected a model of square pictures"):
        read(path, look=Look(preprocess=True))


def page(paper: int, ink: int) -> npt.NDArray[np.uint8]:
    picture = np.full((28, 28), paper, np.uint8)
    picture[6:22, 12:16] = ink
    return picture


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (page(0, 255), ""),
        (page(30, 255), ""),
        (page(255, 0), "looks dark on light"),
        (page(120, 10), "its border is grey, 47 % of white"),
        (page(120, 250), "its border is grey"),
        (page(7, 7), "is of one grey"),
        (np.random.default_rng(2).integers(0, 200, (28, 28)).astype(np.uint8), ""),
    ],
    ids=["digit", "dim", "ink", "grey-ink", "grey-chalk", "blank", "noise"],
)
def test_a_picture_that_is_unlike_what_models_learn_is_doubted(
    picture: npt.NDArray[np.uint8], expected: str
) -> None:
    found = doubt(picture)
    assert found.startswith(expected)
    assert bool(found) == bool(expected)
