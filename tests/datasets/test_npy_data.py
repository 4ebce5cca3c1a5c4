from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.datasets import DatasetError, disk_images, load_dataset, load_test_split, npy
from mlpserve.datasets.disk_images import DiskImages
from mlpserve.datasets.raw import ReadOptions

Array = npt.NDArray[Any]
IMAGES = np.random.default_rng(1).integers(0, 256, (60, 4, 3), np.uint8)
LABELS = np.arange(60) % 4
ALL: Mapping[str, Array] = {
    "x_train": IMAGES[:40],
    "y_train": LABELS[:40].astype(np.uint8),
    "x_test": IMAGES[40:],
    "y_test": LABELS[40:, None],
    "class_labels": np.array(["a", "b", "c", "d"]),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "shapes"
    folder.mkdir()
    return folder


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no memory, so that all images stay on disk, but for those that are held out."""
    monkeypatch.setattr(npy, "SMALL_BYTES", 100)
    monkeypatch.setattr(disk_images, "SMALL_BYTES", 100)


def write(folder: Path, arrays: Mapping[str, Array]) -> str:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return str(folder)


def test_a_folder_of_arrays_is_read_as_a_file_of_the_same(folder: Path) -> None:
    dataset = load_dataset(write(folder, ALL), data_dir=None)
    np.savez(folder.with_suffix(".npz"), **ALL)  # type: ignore[arg-type]  # none is allow_pickle
    expected = load_dataset(str(folder.with_suffix(".npz")), data_dir=None)
    assert (dataset.name, dataset.class_labels) == ("shapes", ("a", "b", "c", "d"))
    assert dataset.digest() == expected.digest()
    split = load_test_split(str(folder), data_dir=None)
    np.testing.assert_array_equal(split.images, IMAGES[40:], strict=True)


def test_one_of_the_files_stands_for_the_folder(folder: Path) -> None:
    write(folder, ALL)
    assert load_dataset(str(folder / "x_train.npy"), data_dir=None).name == "shapes"


@pytest.mark.usefixtures("on_disk")
def test_large_images_stay_on_disk_and_are_the_same(folder: Path) -> None:
    dataset = load_dataset(write(folder, ALL), data_dir=None)
    assert isinstance(dataset.train.images, DiskImages)
    np.testing.assert_array_equal(dataset.train.images[:], IMAGES[:40])
    np.testing.assert_array_equal(dataset.train.labels, LABELS[:40])


@pytest.mark.usefixtures("on_disk")
@pytest.mark.parametrize("dtype", ["<i8", ">u2", ">f4", "<f8", "?"])
def test_other_types_are_converted_on_disk_as_they_are_in_memory(
    folder: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = {**ALL, "x_train": IMAGES[:40].astype(dtype), "x_test": IMAGES[40:].astype(dtype)}
    dataset = load_dataset(write(folder, arrays), data_dir=None)
    assert isinstance(dataset.train.images, DiskImages)
    monkeypatch.setattr(npy, "SMALL_BYTES", 10**6)
    assert dataset.digest() == load_dataset(str(folder), data_dir=None).digest()


@pytest.mark.usefixtures("on_disk")
def test_images_and_labels_alone_are_held_out_alike_on_disk_and_in_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load_dataset(write(folder, {"images": IMAGES, "labels": LABELS}), data_dir=None)
    assert isinstance(dataset.train.images, DiskImages)
    assert isinstance(dataset.test.images, np.ndarray)
    assert "held out" in dataset.test_origin
    monkeypatch.setattr(npy, "SMALL_BYTES", 10**6)
    assert dataset.digest() == load_dataset(str(folder), data_dir=None).digest()


@pytest.mark.usefixtures("on_disk")
def test_flat_images_have_the_shape_that_is_found_or_said(folder: Path) -> None:
    path = write(folder, {"images": IMAGES.reshape(60, 12), "labels": LABELS})
    dataset = load_dataset(path, data_dir=None, options=ReadOptions(shape=(3, 4)))
    assert dataset.input_shape == (3, 4)
    path = write(folder, {"images": np.repeat(IMAGES, 3, 2).reshape(60, 36), "labels": LABELS})
    assert load_dataset(path, data_dir=None).input_shape == (6, 6)


@pytest.mark.usefixtures("on_disk")
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x_train": np.full((40, 4, 3), np.nan)}, "images: expected finite values, got nan"),
        ({"x_train": np.full((40, 4, 3), 2**40)}, "x_train: expected integers of 32 bits, got"),
        ({"x_train": np.full((40, 4, 3), "text")}, "x_train: expected integers or floats, got <U4"),
        ({"x_train": np.asfortranarray(IMAGES[:40])}, "Fortran order; save numpy.ascontiguous"),
        ({"y_train": LABELS}, "y_train: expected one for each of the 40 images in x_train, got 60"),
    ],
)
def test_what_cannot_be_learned_from_is_a_sentence(
    folder: Path, changed: Mapping[str, Array], message: str
) -> None:
    write(folder, {**ALL, **changed})
    with pytest.raises(DatasetError, match=message) as caught:
        load_dataset(str(folder), data_dir=None)
    assert str(folder) in str(caught.value)


@pytest.mark.usefixtures("on_disk")
def test_images_on_disk_are_not_turned(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"x_train: --transpose: .* save them turned"):
        load_dataset(write(folder, ALL), data_dir=None, options=ReadOptions(transpose=True))


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "objects"])
def test_a_damaged_file_is_a_sentence(folder: Path, damage: str) -> None:
    write(folder, ALL)
    place = folder / "x_train.npy"
    whole = place.read_bytes()
    if damage == "objects":
        np.save(place, np.array([{}, None], object), allow_pickle=True)
    else:
        place.write_bytes({"cut": whole[:-1], "empty": b"", "text": b"text" * 99}[damage])
    with pytest.raises(DatasetError, match=r"x_train\.npy: (expected|holds|the header)"):
        load_dataset(str(folder), data_dir=None)


def test_a_missing_file_is_named(folder: Path) -> None:
    write(folder, {name: ALL[name] for name in ("x_train", "x_test", "y_test")})
    with pytest.raises(DatasetError, match="missing y_train; it holds x_test, x_train, y_test"):
        load_dataset(str(folder), data_dir=None)
