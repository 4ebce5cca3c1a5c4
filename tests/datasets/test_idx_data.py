import gzip
import logging
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.datasets import Dataset, DatasetError, load_dataset, load_test_split
from mlpserve.datasets.idx import idx_header

IMAGES = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)
LABELS = np.array([1, 3, 2, 1, 2, 3], np.uint8)  # as EMNIST's letters, from 1


def write(path: Path, array: npt.NDArray[np.uint8]) -> None:
    content = idx_header(array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_family(folder: Path, prefix: str, test: str = "test", end: str = "ubyte.gz") -> Path:
    folder.mkdir(exist_ok=True)
    for split, count in (("train", 6), (test, 3)):
        write(folder / f"{prefix}{split}-images-idx3-{end}", IMAGES[:count])
        write(folder / f"{prefix}{split}-labels-idx1-{end}", LABELS[:count])
    return folder


def load(path: Path) -> Dataset:
    return load_dataset(str(path), data_dir=None)


def test_emnist_is_found_by_its_file_names(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "gzip", "emnist-letters-")
    dataset = load(folder)
    assert dataset.name == "emnist-letters"
    assert dataset.class_labels == ("1", "2", "3")
    assert dataset.train.labels.tolist() == [0, 2, 1, 0, 1, 2]
    np.testing.assert_array_equal(dataset.test.images, IMAGES[:3])


def test_one_of_several_data_sets_is_named_by_how_its_files_begin(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "gzip", "emnist-letters-")
    write_family(folder, "emnist-digits-")
    with pytest.raises(DatasetError) as caught:
        load(folder)
    assert str(caught.value) == (
        f"{folder}: holds several data sets; expected one of {folder}/emnist-digits, "
        f"{folder}/emnist-letters"
    )
    assert load(folder / "emnist-letters").name == "emnist-letters"
    images = folder / "emnist-digits-train-images-idx3-ubyte.gz"
    assert load(images).name == "emnist-digits"


def test_emnist_mapping_names_the_letters(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "gzip", "emnist-letters-")
    (folder / "emnist-letters-mapping.txt").write_text("1 65 97\n2 66 98\n3 67 99\n")
    assert load(folder).class_labels == ("A", "B", "C")
    (folder / "emnist-letters-mapping.txt").write_text("1 A\n")
    with pytest.raises(DatasetError, match="mapping.txt: expected a label and a code in each line"):
        load(folder)


def test_emnist_is_told_that_its_images_lie(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load(write_family(tmp_path / "emnist", ""))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "--transpose turns them" in record.getMessage()
    caplog.clear()
    load(write_family(tmp_path / "medmnist", ""))
    assert caplog.records == []


@pytest.mark.parametrize("end", ["ubyte", "ubyte.gz"])
@pytest.mark.parametrize("prefix", ["", "qmnist-"])
def test_spellings_of_the_names(prefix: str, end: str, tmp_path: Path) -> None:
    folder = write_family(tmp_path / "data", prefix, "test" if prefix else "t10k", end)
    assert load(folder).name == (prefix.rstrip("-") or "data")


def test_labels_of_qmnist_are_the_first_column_of_integers(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "data", "qmnist-")
    for split, count in (("train", 6), ("test", 3)):
        (folder / f"qmnist-{split}-labels-idx1-ubyte.gz").unlink()
        table = np.zeros((count, 8), ">i4")
        table[:, 0], table[:, 1] = LABELS[:count], 70_000
        header = bytes([0, 0, 0x0C]) + idx_header(table.shape)[3:]
        (folder / f"qmnist-{split}-labels-idx2-int").write_bytes(header + table.tobytes())
    assert load(folder).test.labels.tolist() == [0, 2, 1]


def test_where_there_is_no_test_split_some_is_held_out(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "data", "")
    for path in folder.glob("test-*"):
        path.unlink()
    dataset = load(folder)
    assert sorted(dataset.test.labels.tolist()) == [0, 1, 2]
    assert dataset.test_origin.startswith("10 % of each class, held out")
    split = load_test_split(str(folder), data_dir=None, class_labels=dataset.class_labels)
    np.testing.assert_array_equal(split.labels, dataset.test.labels)


def test_labels_without_images_are_missed(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "data", "")
    (folder / "test-images-idx3-ubyte.gz").unlink()
    with pytest.raises(DatasetError, match="missing t10k-images-idx3-ubyte"):
        load(folder)


def test_counts_that_differ_name_both_files(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "data", "")
    labels = folder / "train-labels-idx1-ubyte.gz"
    write(labels, LABELS[:2])
    with pytest.raises(DatasetError, match=f"holds 6 images, but {labels} holds 2 labels"):
        load(folder)


def test_swapped_files_are_refused(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "data", "")
    images, labels = (folder / f"train-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1"))
    shutil.copy(labels, images)
    with pytest.raises(DatasetError, match=f"{images}: expected 2 dimensions or more, got 1"):
        load(folder)


def test_the_real_test_split_is_read(mnist_folder: Path) -> None:
    split = load_test_split(str(mnist_folder), data_dir=None)
    assert split.images.shape == (10_000, 28, 28)
    # The counts of each digit as MNIST's tables have them.
    expected = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(split.labels).tolist() == expected
