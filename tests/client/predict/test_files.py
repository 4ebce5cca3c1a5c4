"""Images from files of every kind, whole and damaged."""

import gzip
import io
import logging
import os
import pickle
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mlpserve.client.predict.batches import Rows, Wanted
from mlpserve.client.predict.files import ImageFile
from mlpserve.client.predict.pictures import Look
from mlpserve.datasets import DatasetError
from mlpserve.datasets.idx import idx_header

SHAPE = (4, 6)
GREY = np.arange(24, dtype=np.uint8).reshape(SHAPE) * 4
IMAGES = np.stack([GREY, GREY[::-1], GREY[:, ::-1]])

# Each example overwrites the same file, so it does not matter that they share the folder.
shared_folder = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)


def npy_bytes(array: npt.NDArray[Any], *, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def npz_bytes(**entries: npt.NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **entries)  # type: ignore[arg-type]
    return file.getvalue()


def idx_bytes(array: npt.NDArray[np.uint8]) -> bytes:
    return idx_header(array.shape) + array.tobytes()


def picture_bytes(picture: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def grey_picture(mode: str = "L") -> Image.Image:
    return Image.fromarray(GREY).convert(mode)


def rows(
    path: Path, *, shape: tuple[int, ...] = SHAPE, invert: bool = False, preprocess: bool = False
) -> list[Rows]:
    file = ImageFile(path, str(path), str(path), Look(invert=invert, preprocess=preprocess))
    return list(file.read(Wanted(shape, ("cat", "dog", "bird"))))


def read(path: Path, content: bytes, *, invert: bool = False) -> npt.NDArray[Any]:
    path.write_bytes(content)
    return np.concatenate([part.images for part in rows(path, invert=invert)])


def warning_of(path: Path, content: bytes, *, invert: bool = False) -> str:
    path.write_bytes(content)
    ((warning,),) = (part.warnings for part in rows(path, invert=invert))
    return warning


def refusal(path: Path, content: bytes) -> str:
    with pytest.raises(DatasetError) as caught:
        read(path, content)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message


ARRAY_FILES = {
    "npy": npy_bytes(IMAGES),
    "npz": npz_bytes(images=IMAGES),
    "npz-of-keras": npz_bytes(x_test=IMAGES, y_test=np.zeros(3, np.int64)),
    "idx": idx_bytes(IMAGES),
    "idx-gzipped": gzip.compress(idx_bytes(IMAGES)),
}
PICTURE_FILES = {
    "grey": picture_bytes(grey_picture()),
    "rgb": picture_bytes(grey_picture("RGB")),
    "rgba": picture_bytes(grey_picture("RGBA")),
    "grey-alpha": picture_bytes(grey_picture("LA")),
    "palette": picture_bytes(grey_picture("P")),
    "16-bit": picture_bytes(Image.fromarray(GREY.astype(np.uint16) * 257)),
}
EVERY_FILE = ARRAY_FILES | PICTURE_FILES | {"jpeg": picture_bytes(grey_picture("RGB"), "JPEG")}


@pytest.mark.parametrize("name", ["file", "file.png", "file.npy", "file.gz"])
@pytest.mark.parametrize("content", ARRAY_FILES.values(), ids=ARRAY_FILES)
def test_arrays_are_read_whatever_the_file_is_called(
    tmp_path: Path, content: bytes, name: str
) -> None:
    images = read(tmp_path / name, content, invert=True)  # which is about pictures only
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, IMAGES)


@pytest.mark.parametrize("name", ["file", "file.jpg", "file.npy"])
@pytest.mark.parametrize("content", PICTURE_FILES.values(), ids=PICTURE_FILES)
def test_a_png_of_any_kind_is_one_grey_image(tmp_path: Path, content: bytes, name: str) -> None:
    images = read(tmp_path / name, content)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, GREY[np.newaxis])


@pytest.mark.parametrize(("ink", "invert"), [(0, True), (255, False)], ids=["dark", "light"])
def test_ink_on_a_transparent_ground_is_read_as_light_on_dark(
    tmp_path: Path, ink: int, *, invert: bool
) -> None:
    drawing = Image.fromarray(np.stack([np.full_like(GREY, ink), GREY], axis=2), "LA")
    images = read(tmp_path / "ink.png", picture_bytes(drawing), invert=invert)
    np.testing.assert_array_equal(images[0], GREY)


def test_a_picture_in_which_nothing_is_to_be_seen_gets_a_warning(
    tmp_path: Path,
) -> None:
    dark = picture_bytes(Image.fromarray(np.stack([np.zeros_like(GREY), GREY], axis=2), "LA"))
    assert read(tmp_path / "ink.png", dark).max() == 0
    assert warning_of(tmp_path / "ink.png", dark) == (
        "is of one grey; if its ink is dark on transparent: --invert"
    )


def test_a_jpeg_is_one_grey_image_but_for_what_its_compression_loses(tmp_path: Path) -> None:
    images = read(tmp_path / "file", picture_bytes(grey_picture(), "JPEG"))
    assert images.shape == (1, *SHAPE)
    np.testing.assert_allclose(images[0].astype(int), GREY.astype(int), atol=10)


def test_colours_become_grey_by_their_brightness(tmp_path: Path) -> None:
    green = read(tmp_path / "green", picture_bytes(Image.new("RGB", (6, 4), (0, 255, 0))))
    blue = read(tmp_path / "blue", picture_bytes(Image.new("RGB", (6, 4), (0, 0, 255))))
    assert green.min() > 100 > blue.max() > 0


def test_a_picture_of_another_size_is_brought_to_the_models(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Left half dark, right half bright, 10 times as large; and not square, so that a height taken
    # for a width shows.
    large = np.zeros((40, 60), np.uint8)
    large[:, 30:] = 200
    with caplog.at_level(logging.DEBUG):
        images = read(tmp_path / "large.png", picture_bytes(Image.fromarray(large)))
    assert images.shape == (1, *SHAPE)
    assert images[0, :, :2].max() < 20
    assert images[0, :, 4:].min() > 180
    assert "large.png: brought from 60 x 40 to 6 x 4" in caplog.text


def test_a_picture_can_be_inverted(tmp_path: Path) -> None:
    images = read(tmp_path / "file", picture_bytes(grey_picture()), invert=True)
    np.testing.assert_array_equal(images[0], 255 - GREY)


@pytest.mark.parametrize(("invert", "warned"), [(False, True), (True, False)])
def test_a_picture_that_is_dark_on_light_is_warned_about(
    tmp_path: Path, *, invert: bool, warned: bool
) -> None:
    light = picture_bytes(Image.fromarray(255 - GREY))
    warning = warning_of(tmp_path / "paper.png", light, invert=invert)
    assert ("looks dark on light" in warning) == warned
    assert warning_of(tmp_path / "chalk.png", picture_bytes(grey_picture())) == ""


@pytest.mark.parametrize(
    "content", [npy_bytes(GREY), npz_bytes(images=GREY), idx_bytes(GREY)], ids=["npy", "npz", "idx"]
)
def test_an_array_of_one_images_shape_is_one_image(tmp_path: Path, content: bytes) -> None:
    np.testing.assert_array_equal(read(tmp_path / "one", content), GREY[np.newaxis])


def test_flat_and_float_images_are_left_to_the_server_to_judge(tmp_path: Path) -> None:
    flat = IMAGES.reshape(3, 24) / 255
    images = read(tmp_path / "flat", npy_bytes(flat))
    assert images.dtype == np.float64
    np.testing.assert_array_equal(images, flat)


def test_a_picture_is_refused_where_the_model_takes_none(tmp_path: Path) -> None:
    path = tmp_path / "file.png"
    path.write_bytes(picture_bytes(grey_picture()))
    with pytest.raises(DatasetError, match=r"expected an array, because the model takes \(24,\)"):
        rows(path, shape=(24,))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected CSV, Parquet, Arrow, .npy, .npz, IDX, PNG or JPEG, but it begins with b''"),
        (
            b"GIF89a" + bytes(40),
            "expected CSV, Parquet, Arrow, .npy, .npz, IDX, PNG or JPEG, but it begins with b'GIF",
        ),
        (picture_bytes(grey_picture(), "BMP"), "but it begins with b'BM"),
        (pickle.dumps(IMAGES), "but it begins with"),
        (npy_bytes(np.array([[{}]]), allow_pickle=True), "expected an .npy file, but "),
        (npz_bytes(labels=IMAGES), "expected an entry images or x_test"),
        (npy_bytes(IMAGES)[:-1], "expected an .npy file, but "),
        (npz_bytes(images=IMAGES)[:-1], "zip"),
        (idx_bytes(IMAGES)[:-1], "but only 71 are there"),
        (gzip.compress(idx_bytes(IMAGES))[:-1], "gzip"),
        (gzip.compress(b"text"), "expected an IDX file"),
        (picture_bytes(grey_picture())[:40], "expected a PNG or JPEG picture, but "),
        (picture_bytes(grey_picture(), "JPEG")[:-300], "expected a PNG or JPEG picture, but "),
        (b"\x89PNG, it says", "expected a PNG or JPEG picture, but "),
    ],
    ids=[
        *("empty", "gif", "bmp", "pickle", "npy-pickled", "npz-without-images", "npy-cut"),
        *("npz-cut", "idx-cut", "gzip-cut", "gzip-of-text", "png-cut", "jpeg-cut", "png-not"),
    ],
)
def test_what_holds_no_images_is_refused_by_the_name_of_the_file(
    tmp_path: Path, content: bytes, message: str
) -> None:
    assert message in refusal(tmp_path / "file.png", content)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Bomb:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return os.mkdir, (str(canary),)

    content = npy_bytes(np.array([[Bomb()]]), allow_pickle=True)
    refusal(tmp_path / "bomb.npy", content)
    packed = io.BytesIO()
    np.savez(packed, images=np.array([[Bomb()]]))
    refusal(tmp_path / "bomb.npz", packed.getvalue())
    assert not canary.exists()
    np.load(io.BytesIO(content), allow_pickle=True)  # the bomb is a real one
    assert canary.exists()


def test_a_header_that_declares_more_than_the_file_holds_is_refused_before_it_is_allocated(
    tmp_path: Path,
) -> None:
    file = io.BytesIO()
    declared = {"descr": "|u1", "fortran_order": False, "shape": (200_000_000, 4)}
    np.lib.format.write_array_header_1_0(file, declared)
    tracemalloc.start()
    refusal(tmp_path / "file", file.getvalue() + IMAGES.tobytes())
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1_000_000


@pytest.mark.parametrize("over", [1.5, 3.0], ids=["warned-of-by-pillow", "refused-by-pillow"])
def test_a_picture_that_unpacks_to_far_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over: float
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(GREY.size / over))
    assert "too large: " in refusal(tmp_path / "bomb.png", picture_bytes(grey_picture()))


def test_a_picture_whose_text_unpacks_to_far_too_much_is_refused(tmp_path: Path) -> None:
    good = picture_bytes(grey_picture())
    text = b"zTXt" + b"Comment\0\0" + zlib.compress(bytes(10_000_000))
    chunk = (len(text) - 4).to_bytes(4, "big") + text + zlib.crc32(text).to_bytes(4, "big")
    # The header chunk ends after 33 bytes.
    assert "expected a PNG or JPEG picture, but " in refusal(
        tmp_path / "file", good[:33] + chunk + good[33:]
    )


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    for path, reason in [(tmp_path / "none", "No such file"), (tmp_path, "Is a directory")]:
        with pytest.raises(DatasetError, match=f"{path}: cannot be read: {reason}"):
            rows(path)


def check_only_dataset_errors(path: Path, content: bytes) -> None:
    try:
        images = read(path, content)
    except DatasetError as error:
        assert str(error).startswith(f"{path}: ")
    else:
        images.tobytes()  # all of it is really there


@shared_folder
@given(data=st.data())
@pytest.mark.parametrize("content", EVERY_FILE.values(), ids=EVERY_FILE)
def test_a_damaged_file_is_read_or_refused_but_nothing_else(
    tmp_path: Path, content: bytes, data: st.DataObject
) -> None:
    damaged = bytearray(content)
    places = st.integers(0, len(damaged) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=4)):
        damaged[place] = value
    end = data.draw(st.just(len(damaged)) | places)
    check_only_dataset_errors(tmp_path / "file", bytes(damaged[:end]))


@shared_folder
@given(
    start=st.sampled_from([b"\x93NUMPY\1\0", b"PK\3\4", b"\x1f\x8b", b"\0\0\x08", b"\x89PNG", b""]),
    rest=st.binary(max_size=200),
)
def test_any_bytes_are_read_or_refused_but_nothing_else(
    tmp_path: Path, start: bytes, rest: bytes
) -> None:
    check_only_dataset_errors(tmp_path / "file", start + rest)


@shared_folder
@given(header=st.text(st.characters(codec="latin-1"), max_size=80))
def test_any_npy_header_is_read_or_refused_but_nothing_else(tmp_path: Path, header: str) -> None:
    text = header.encode("latin-1")
    content = b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + bytes(24)
    check_only_dataset_errors(tmp_path / "file", content)


@pytest.mark.parametrize("header", ["{'a': (", "[\n", "{'descr': '|u1',\n  (", "(" * 5000])
def test_a_header_that_is_no_python_is_refused(tmp_path: Path, header: str) -> None:
    content = b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode() + bytes(24)
    assert "expected an .npy file, but " in refusal(tmp_path / "file", content)
