import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlpserve.datasets import (
    Dataset,
    DatasetError,
    cache,
    disk_images,
    load_dataset,
    load_test_split,
)
from mlpserve.datasets.raw import ReadOptions
from mlpserve.datasets.tables import Table

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (60, 9))
LABELS = np.arange(60) % 3
PIXELS = [f"pixel{index}" for index in range(9)]


def write(path: Path, images: npt.NDArray[Any], labels: Sequence[object] | None = None) -> Path:
    columns: dict[str, Any] = {} if labels is None else {"label": list(labels)}
    columns |= {name: images[:, index] for index, name in enumerate(PIXELS)}
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    else:
        rows = zip(*columns.values(), strict=True)
        lines = [list(columns), *rows]
        path.write_text("\n".join(",".join(str(cell) for cell in line) for line in lines))
    return path


def load(path: Path, **options: Any) -> Dataset:
    return load_dataset(str(path), data_dir=None, options=ReadOptions(**options))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_competition_is_read_from_its_training_table(tmp_path: Path, ending: str) -> None:
    folder = tmp_path / "digit-recognizer"
    folder.mkdir()
    path = write(folder / f"train.{ending}", IMAGES, LABELS.tolist())
    write(folder / f"test.{ending}", IMAGES[:7])  # without labels
    dataset = load(path)
    assert dataset.name == "digit-recognizer"
    assert dataset.class_labels == ("0", "1", "2")
    assert dataset.input_shape == (3, 3)
    assert dataset.train.images.dtype == np.uint8
    assert (len(dataset.train), len(dataset.test)) == (54, 6)
    assert dataset.test_origin == "10 % of each class, held out (seed 0)"
    assert load(folder).digest() == dataset.digest()


def test_test_table_with_labels_beside_the_training_table_is_tested_by(tmp_path: Path) -> None:
    path = write(tmp_path / "shapes_train.csv", IMAGES[:50], ["b", "a"] * 25)
    write(tmp_path / "shapes_test.csv", IMAGES[50:], ["a"] * 10)
    dataset = load(path)
    assert (dataset.name, dataset.class_labels) == ("shapes", ("a", "b"))
    np.testing.assert_array_equal(dataset.test.images.reshape(10, 9), IMAGES[50:])
    assert (dataset.test.labels.tolist(), dataset.test_origin) == ([0] * 10, "")
    split = load_test_split(str(path), data_dir=None, class_labels=("b", "c", "a"))
    assert split.labels.tolist() == [2] * 10


def test_test_data_may_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", IMAGES[:50], LABELS[:50].tolist())
    other = write(tmp_path / "theirs.csv", IMAGES[50:], [2] * 10)
    dataset = load(path, test_data=str(other))
    assert (len(dataset.train), dataset.test_origin) == (50, "all of theirs")
    assert dataset.test.labels.tolist() == [2] * 10
    split = load_test_split(
        str(path), data_dir=None, options=ReadOptions(test_data=str(other)), class_labels="012"
    )
    np.testing.assert_array_equal(split.images, dataset.test.images)


def test_what_is_held_out_is_the_same_each_time(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", IMAGES, ["x", "y", "z"] * 20)
    dataset = load(path)
    split = load_test_split(str(path), data_dir=None, class_labels=dataset.class_labels)
    np.testing.assert_array_equal(split.images, dataset.test.images)
    np.testing.assert_array_equal(split.labels, dataset.test.labels)


def test_label_that_the_network_does_not_know_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", IMAGES, ["x", "y", "z"] * 20)
    with pytest.raises(DatasetError, match=r"expected one of x, y \(2 classes\), got z"):
        load_test_split(str(path), data_dir=None, class_labels=("x", "y"))


def test_numbers_stand_for_named_classes_in_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "test.csv", IMAGES, LABELS.tolist())
    split = load_test_split(str(path), data_dir=None, class_labels=("x", "y", "z"))
    assert sorted(set(split.labels.tolist())) == [0, 1, 2]
    assert "numbers stand for the classes in order: 0 is x" in caplog.text


def test_shape_and_transposition_may_be_given(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", IMAGES, LABELS.tolist())
    assert load(path, shape=(1, 9)).input_shape == (1, 9)
    assert load(path, shape=(9,)).input_shape == (9,)
    turned, straight = load(path, transpose=True), load(path)
    np.testing.assert_array_equal(turned.train.images, straight.train.images.swapaxes(1, 2))
    with pytest.raises(
        DatasetError, match="10 values an image, for the shape 2x5, got 9 of shape 9"
    ):
        load(path, shape=(2, 5))
    with pytest.raises(DatasetError, match="--transpose: expected images of rows and columns"):
        load(path, shape=(9,), transpose=True)


def test_pixels_that_are_no_square_ask_for_the_shape(tmp_path: Path) -> None:
    rows = ["label,a1,a2,a3,a4,a5,a6", *("0,1,2,3,4,5,6" for _ in range(4))]
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(rows))
    with pytest.raises(DatasetError) as caught:
        load(path)
    assert str(caught.value) == (
        f"{path}: expected a square number of pixels, as 64 of 8x8, got 6 columns of numbers; say "
        "the shape with --shape HEIGHTxWIDTH, or --shape 6 for values without one, or "
        "--label-column if the label is among them"
    )
    assert load(path, shape=(2, 3)).input_shape == (2, 3)


def test_values_keep_their_range_and_integers_become_one_dtype(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", IMAGES * 16 - 8, LABELS.tolist())
    write(tmp_path / "test.csv", IMAGES, LABELS.tolist())
    dataset = load(path)
    assert dataset.train.images.dtype == dataset.test.images.dtype == np.int32
    np.testing.assert_array_equal(dataset.train.images.reshape(60, 9), IMAGES * 16 - 8)
    path = write(tmp_path / "floats.csv", IMAGES / 255, LABELS.tolist())
    assert load(path).train.images.dtype == np.float32


def test_empty_label_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.parquet", IMAGES, ["a", " "] * 30)
    with pytest.raises(DatasetError, match="labels: expected a text for each image, got an empty"):
        load(path)


def test_ignored_columns_of_text_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    columns = {name: IMAGES[:, index] for index, name in enumerate(PIXELS)}
    path = tmp_path / "mine.parquet"
    table = pa.table({"y": LABELS, "source": ["web"] * 60, "image_id": range(60), **columns})
    pq.write_table(table, path)
    assert load(path).input_shape == (3, 3)
    assert "columns of text are ignored: source" in caplog.text


@pytest.mark.parametrize("layout", ["shards", "data folder", "folders", "saved to disk"])
def test_splits_of_huggingface_are_found(tmp_path: Path, layout: str) -> None:
    features = {"label": {"names": ["cat", "dog", "eel"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    folder = tmp_path / "animals"
    for split, rows in (("train", slice(0, 30)), ("train", slice(30, 50)), ("test", slice(50, 60))):
        table = pa.table({"image": IMAGES[rows].reshape(-1, 3, 3).tolist(), "label": LABELS[rows]})
        table = table.replace_schema_metadata(metadata)
        number = f"{int(rows.start > 0):05}-of-00002"
        if layout == "saved to disk":
            place = folder / split / f"data-{number}.arrow"
            place.parent.mkdir(parents=True, exist_ok=True)
            (folder / split / "dataset_info.json").write_text("{}")
            with pa.ipc.new_stream(str(place), table.schema) as writer:
                writer.write_table(table)
            continue
        name = f"{number}.parquet" if layout == "folders" else f"{split}-{number}.parquet"
        below = {"shards": "", "data folder": "data", "folders": split}[layout]
        (folder / below).mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / below / name)
    dataset = load(folder)
    assert (dataset.name, dataset.class_labels) == ("animals", ("cat", "dog", "eel"))
    assert dataset.test_origin == ""
    for found, rows in ((dataset.train, slice(0, 50)), (dataset.test, slice(50, 60))):
        np.testing.assert_array_equal(found.images.reshape(-1, 9), IMAGES[rows])
        np.testing.assert_array_equal(found.labels, LABELS[rows])


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_large_table_is_kept_as_an_array_and_gives_the_same_data(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / f"train.{ending}", IMAGES, [f"class {label}" for label in LABELS])
    in_memory = load(path)
    monkeypatch.setattr(cache, "SMALL_BYTES", 100)
    monkeypatch.setattr(disk_images, "SMALL_BYTES", 100)
    for _ in range(2):
        dataset = load(path)
        assert isinstance(dataset.train.images, disk_images.DiskImages)
        assert dataset.class_labels == ("class 0", "class 1", "class 2")
        assert dataset.digest() == in_memory.digest()
        assert sorted(tmp_path.iterdir()) == [path, path.with_name(f"{path.name}.cache")]
        monkeypatch.setattr(Table, "chunks", lambda _: pytest.fail("the table is read again"))
    monkeypatch.undo()
    monkeypatch.setattr(cache, "SMALL_BYTES", 100)
    monkeypatch.setattr(disk_images, "SMALL_BYTES", 100)
    turned = load(path, transpose=True)
    np.testing.assert_array_equal(
        np.asarray(turned.train.images), in_memory.train.images.swapaxes(1, 2)
    )
    elsewhere = tmp_path / "elsewhere"
    assert load(path, cache_dir=elsewhere).digest() == in_memory.digest()
    assert len(list(elsewhere.iterdir())) == 1
