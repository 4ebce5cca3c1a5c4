import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.datasets import Dataset, DatasetError, Split, disk_images
from mlpserve.datasets.dataset import Images
from mlpserve.datasets.disk_images import DiskImages, chunks

HEADER = b"0123456"  # of an odd length, so that nothing is aligned


def on_disk(path: Path, stored: npt.NDArray[Any]) -> DiskImages:
    path.write_bytes(HEADER + stored.tobytes())
    return DiskImages(path, offset=len(HEADER), shape=stored.shape, dtype=stored.dtype)


@pytest.fixture(scope="module")
def greys() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (200, 5, 3), np.uint8)


@pytest.fixture
def images(
    tmp_path: Path, greys: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> DiskImages:
    monkeypatch.setattr(disk_images, "READ_BYTES", 15 * 7)  # 7 images
    return on_disk(tmp_path / "images", greys)


@pytest.mark.parametrize(
    "key",
    [
        0,
        -1,
        slice(None),
        slice(3, 150),
        slice(-4, None),
        slice(7, 7),
        slice(9, 3),
        slice(190, 1000),
        slice(0, 200, 3),
        slice(None, None, -1),
        np.array([4, 4, 199, 0, 57]),
        np.array([], np.int64),
        np.arange(200) % 5 == 0,
        [1, 0],
    ],
    ids=str,
)
def test_rows_are_those_of_an_array(
    images: DiskImages,
    greys: npt.NDArray[np.uint8],
    key: Any,
) -> None:
    np.testing.assert_array_equal(images[key], greys[key], strict=True)


@given(
    rows=st.sets(st.integers(0, 199)).map(sorted),
    picked=st.lists(st.integers(0, 199), max_size=9),
    start=st.integers(0, 199),
)
def test_selected_rows_are_too(
    rows: list[int],
    picked: list[int],
    start: int,
    greys: npt.NDArray[np.uint8],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    images = on_disk(tmp_path_factory.mktemp("selected") / "images", greys)
    selected, expected = images.select(np.array(rows, np.int64)), greys[rows]
    assert selected.shape == expected.shape
    np.testing.assert_array_equal(selected[start:], expected[start:], strict=True)
    kept = np.array([index for index in picked if index < len(rows)], np.int64)
    np.testing.assert_array_equal(selected[kept], expected[kept], strict=True)
    again = selected.select(np.arange(0, len(rows), 2))
    np.testing.assert_array_equal(again[:], expected[::2], strict=True)


@pytest.mark.parametrize(
    ("stored", "dtype"), [("<i8", np.uint8), (">u2", np.uint8), ("<f8", np.float32), (">f4", "f4")]
)
def test_values_are_converted_as_they_are_read(
    stored: str, dtype: npt.DTypeLike, tmp_path: Path, greys: npt.NDArray[np.uint8]
) -> None:
    values = (greys / (1 if stored[1] in "iu" else 255)).astype(stored)
    images = on_disk(tmp_path / "images", values).astype(dtype)
    expected = values.astype(dtype)
    np.testing.assert_array_equal(images[20:30], expected[20:30], strict=True)
    np.testing.assert_array_equal(images[np.array([3, 1])], expected[[3, 1]], strict=True)
    assert (images.dtype, images.nbytes) == (expected.dtype, expected.nbytes)


def test_they_become_an_array_where_one_is_asked_for(
    images: DiskImages, greys: npt.NDArray[np.uint8]
) -> None:
    np.testing.assert_array_equal(np.asarray(images), greys, strict=True)
    np.testing.assert_array_equal(np.asarray(images, np.float32), greys.astype(np.float32))
    assert (images.ndim, images.size, len(images)) == (3, greys.size, 200)
    with pytest.raises(IndexError):
        images[200]


def test_they_have_other_shapes_and_limits_as_an_array_has(
    images: DiskImages, greys: npt.NDArray[np.uint8]
) -> None:
    flat = images.select(np.arange(0, 200, 2)).reshape(100, 15)
    np.testing.assert_array_equal(flat[7:9], greys[::2].reshape(100, 15)[7:9], strict=True)
    assert (images.min(), images.max()) == (greys.min(), greys.max())
    with pytest.raises(ValueError, match=r"cannot reshape images of shape \(200, 5, 3\) into"):
        images.reshape(100, 30)


def test_a_value_that_is_no_number_is_seen_in_the_limits(tmp_path: Path) -> None:
    values = np.zeros((1000, 3), np.float32)
    values[500, 1] = np.nan
    images = on_disk(tmp_path / "images", values)
    assert np.isnan(images.min())
    assert np.isnan(images.max())
    with pytest.raises(DatasetError, match=r"images: expected finite values, got nan to nan"):
        Split(cast("Images", images), np.zeros(1000, np.int64))


def test_chunks_are_all_in_order_whatever_they_are_of(
    images: DiskImages, greys: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_images, "_CHUNK_BYTES", 15 * 64)
    for source in (images, greys):
        parts = list(chunks(cast("Images", source)))
        assert [len(part) for part in parts] == [64, 64, 64, 8]
        np.testing.assert_array_equal(np.concatenate(parts), greys, strict=True)


def test_a_file_may_be_renamed_or_removed_while_it_is_read(
    images: DiskImages, greys: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    (tmp_path / "images").unlink()
    np.testing.assert_array_equal(images[5], greys[5])


def test_a_file_that_is_cut_off_while_it_is_read_is_a_sentence(
    images: DiskImages, tmp_path: Path
) -> None:
    with (tmp_path / "images").open("r+b") as file:
        file.truncate(len(HEADER) + 15 * 100 + 3)
    assert len(images[:100]) == 100
    message = r"images: expected 12 more bytes at byte 1510, but the file ends there; leave it as"
    with pytest.raises(DatasetError, match=message):
        images[100]


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"absent: cannot be read: No such file or directory"):
        DiskImages(tmp_path / "absent", offset=0, shape=(1, 1), dtype=np.uint8)


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors as Linux shows them")
def test_a_file_is_closed_when_nobody_has_it_any_more(
    tmp_path: Path, greys: npt.NDArray[np.uint8]
) -> None:
    def open_files() -> list[str]:
        links = (link for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
        return [str(link.readlink()) for link in links]

    selected = on_disk(tmp_path / "images", greys).select(np.array([1]))
    assert str(tmp_path / "images") in open_files()
    del selected
    assert str(tmp_path / "images") not in open_files()


def test_a_data_set_on_disk_has_the_digest_of_the_same_in_memory(
    images: DiskImages, greys: npt.NDArray[np.uint8]
) -> None:
    labels = np.arange(200) % 3
    digests = {
        Dataset(
            "x", ("a", "b", "c"), Split(cast("Images", train), labels), Split(greys, labels)
        ).digest()
        for train in (greys, images)
    }
    assert len(digests) == 1


def test_few_selected_images_are_loaded_and_many_stay_on_disk(
    images: DiskImages, greys: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_images, "SMALL_BYTES", 15 * 20)
    split = Split(cast("Images", images), np.arange(200))
    few, many = split.select(np.arange(20)), split.select(np.arange(100, 121))
    assert isinstance(few.images, np.ndarray)
    assert isinstance(many.images, DiskImages)
    np.testing.assert_array_equal(few.images, greys[:20])
    np.testing.assert_array_equal(many.images, greys[100:121])
    assert many.labels.tolist() == list(range(100, 121))
