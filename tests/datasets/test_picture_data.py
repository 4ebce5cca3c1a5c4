import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from mlpserve.datasets import Dataset, DatasetError, load_dataset, load_test_split
from mlpserve.datasets.raw import ReadOptions


def save(path: Path, pixels: npt.NDArray[Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def grey(value: int, height: int = 6, width: int = 4) -> npt.NDArray[np.uint8]:
    return np.full((height, width), value, np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with twenty pictures of each of three classes, a grey for each."""
    folder = tmp_path / "animals"
    for label, value in (("cat10", 10), ("cat2", 20), ("eel", 30)):
        for number in range(20):
            save(folder / label / f"{number}.png", grey(value))
    return folder


def load(path: Path, **options: Any) -> Dataset:
    return load_dataset(str(path), data_dir=None, options=ReadOptions(**options))


def test_folder_of_each_class_names_it_in_natural_order(folder: Path) -> None:
    (folder / ".cache").mkdir()
    (folder / "eel" / ".DS_Store").write_bytes(b"")
    (folder / "eel" / "notes.txt").write_text("none")
    dataset = load(folder)
    assert (dataset.name, dataset.class_labels) == ("animals", ("cat2", "cat10", "eel"))
    assert (dataset.input_shape, len(dataset.train), len(dataset.test)) == ((6, 4), 54, 6)
    assert dataset.test_origin == "10 % of each class, held out (seed 0)"
    for split in (dataset.train, dataset.test):
        values = np.array([20, 10, 30])[split.labels]
        np.testing.assert_array_equal(split.images, values[:, None, None] * np.ones((6, 4), int))


def test_table_beside_the_pictures_is_not_what_is_learned_from(folder: Path) -> None:
    (folder / "labels.csv").write_text("file,label\n0.png,eel\n")
    assert load(folder).class_labels == ("cat2", "cat10", "eel")


def test_test_folder_beside_the_training_folder_is_used(folder: Path, tmp_path: Path) -> None:
    folder.rename(tmp_path / "train")
    root = tmp_path / "zoo"
    root.mkdir()
    (tmp_path / "train").rename(root / "train")
    save(root / "test" / "eel" / "1.png", grey(30))
    save(root / "val" / "cat2" / "1.png", grey(20))
    dataset = load(root)
    assert (len(dataset.train), len(dataset.test)) == (61, 1)
    assert (dataset.test.labels.tolist(), dataset.test_origin) == ([2], "")
    split = load_test_split(str(root), data_dir=None, class_labels=("eel", "cat2"))
    assert split.labels.tolist() == [0]


def test_pictures_of_any_size_and_mode_are_brought_to_the_shape(folder: Path) -> None:
    save(folder / "eel" / "large.jpg", np.full((50, 40, 3), 30, np.uint8), quality=95)
    with pytest.raises(DatasetError, match="got 6x4 .* and 50x40 .*; say with --shape to what"):
        load(folder)
    assert load(folder, shape=(8, 8)).input_shape == (8, 8)
    assert load(folder, shape=(8, 8, 1)).input_shape == (8, 8, 1)
    assert load(folder, shape=(8, 8, 3)).input_shape == (8, 8, 3)
    with pytest.raises(DatasetError, match="--shape: expected a height and a width .* got 64"):
        load(folder, shape=(64,))


def test_photographs_in_full_size_ask_for_a_shape(tmp_path: Path) -> None:
    for label in "ab":
        save(tmp_path / "photos" / label / "1.jpg", np.zeros((400, 300), np.uint8))
    with pytest.raises(DatasetError, match="of at most 256x256, got 400x300 .*--shape 32x32"):
        load(tmp_path / "photos")


def test_grey_pictures_of_16_bits_among_colours_are_brought_to_8(tmp_path: Path) -> None:
    values = np.arange(16, dtype=np.uint16).reshape(4, 4) * 257 * 17
    for number in range(4):
        save(tmp_path / "wide" / "a" / f"{number}.png", values)
        save(tmp_path / "wide" / "b" / f"{number}.png", np.zeros((4, 4, 3), np.uint8))
    dataset = load(tmp_path / "wide", shape=(4, 4, 3))
    found = dataset.train.images[dataset.train.labels == 0][0]
    np.testing.assert_array_equal(found, np.repeat((values // 257)[:, :, None], 3, axis=2))


def test_pictures_of_16_bits_keep_them(tmp_path: Path) -> None:
    values = np.arange(16, dtype=np.uint16).reshape(4, 4) * 255
    for label in "ab":
        for number in range(2):
            save(tmp_path / "scans" / label / f"{number}.png", values)
    images = load(tmp_path / "scans").train.images
    assert images.dtype == np.int32
    np.testing.assert_array_equal(images[0], values)


def test_all_pictures_that_cannot_be_read_are_named_at_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    whole = (folder / "eel" / "0.png").read_bytes()
    (folder / "eel" / "0.png").write_bytes(whole[:-25])
    (folder / "cat2" / "3.png").write_bytes(b"not a picture")
    with pytest.raises(DatasetError) as caught:
        load(folder)
    message = str(caught.value)
    assert message.startswith("2 of the pictures cannot be read (")
    assert f"{folder}/eel/0.png: expected a picture, but " in message
    assert f"{folder}/cat2/3.png: expected a picture, but " in message
    assert message.endswith("mend or remove them, or leave them out with --skip-unreadable")
    dataset = load(folder, skip_unreadable=True)
    assert len(dataset.train) + len(dataset.test) == 58
    assert "2 pictures cannot be read, and are left out: " in caplog.text


def test_folder_of_nothing_but_damaged_pictures_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(b"")
    with pytest.raises(DatasetError, match="expected pictures that can be read, got none"):
        load(tmp_path, skip_unreadable=True)


def test_transparent_parts_are_black_and_turned_photographs_upright(tmp_path: Path) -> None:
    clear = np.zeros((2, 3, 4), np.uint8)
    clear[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    for label in "ab":
        for number in range(2):
            save(tmp_path / "clear" / label / f"{number}.png", clear)
            save(tmp_path / "turned" / label / f"{number}.png", clear[..., 0].T, exif=exif)
    assert load(tmp_path / "clear").train.images[0].tolist() == [[255, 0, 0], [0, 0, 0]]
    assert load(tmp_path / "turned").train.images[0].tolist() == [[0, 0, 255], [0, 0, 0]]


def test_folder_of_nothing_that_is_known_lists_what_is(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="empty: expected a folder with IDX files, .* none of"):
        load(tmp_path / "empty")
