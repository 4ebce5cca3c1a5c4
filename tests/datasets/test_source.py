import argparse
import gzip
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.datasets import DatasetError, drawn, load_dataset, load_test_split, mnist
from mlpserve.datasets.download import DownloadError
from mlpserve.datasets.flags import add_read_options, read_options
from mlpserve.datasets.idx import IDX_NAMES, idx_header
from mlpserve.datasets.idx_data import read_idx_data
from mlpserve.datasets.raw import ReadOptions
from mlpserve.datasets.source import DATA_HELP, DATASETS, FORMATS, Source

ARRAYS = {
    "train-images-idx3-ubyte": np.arange(24, dtype=np.uint8).reshape(4, 3, 2),
    "train-labels-idx1-ubyte": np.array([0, 1, 0, 2], np.uint8),
    "t10k-images-idx3-ubyte": np.arange(12, dtype=np.uint8).reshape(2, 3, 2),
    "t10k-labels-idx1-ubyte": np.array([0, 3], np.uint8),
}
NPZ_NAMES = ("x_train", "y_train", "x_test", "y_test")


@pytest.fixture(autouse=True)
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no mirror and no cache; and little to draw, since drawing all takes seconds."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / "cache"))
    monkeypatch.setattr(mnist, "MIRRORS", ("http://127.0.0.1:1/",))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(drawn, "TRAIN_COUNT", 30)
    monkeypatch.setattr(drawn, "TEST_COUNT", 20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny-shapes"
    folder.mkdir()
    for name, array in ARRAYS.items():
        write_idx(folder / f"{name}.gz", array)
    return folder


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    path = tmp_path / "few-shapes.npz"
    arrays = dict(zip(NPZ_NAMES, ARRAYS.values(), strict=True))
    np.savez(path, **arrays)  # type: ignore[arg-type]  # no array is called allow_pickle
    return path


def write_idx(path: Path, array: npt.NDArray[np.uint8]) -> None:
    path.write_bytes(gzip.compress(idx_header(array.shape) + array.tobytes()))


def test_a_folder_is_read_as_idx_files(folder: Path) -> None:
    dataset = load_dataset(str(folder), data_dir=None)
    assert dataset.name == "tiny-shapes"
    assert dataset.input_shape == (3, 2)
    np.testing.assert_array_equal(dataset.train.images, ARRAYS["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(dataset.train.labels, ARRAYS["train-labels-idx1-ubyte"])
    np.testing.assert_array_equal(dataset.test.images, ARRAYS["t10k-images-idx3-ubyte"])
    np.testing.assert_array_equal(dataset.test.labels, ARRAYS["t10k-labels-idx1-ubyte"])


def test_the_classes_of_a_folder_are_those_of_both_splits(folder: Path) -> None:
    assert load_dataset(str(folder), data_dir=None).class_labels == ("0", "1", "2", "3")


def test_the_current_folder_has_a_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert load_dataset(".", data_dir=None).name == "tiny-shapes"


def test_a_file_is_read_as_npz(npz: Path) -> None:
    dataset = load_dataset(str(npz), data_dir=None)
    assert dataset.name == "few-shapes"
    assert dataset.input_shape == (3, 2)
    assert dataset.class_labels == ("0", "1", "2", "3")


@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_the_test_split_of_a_path_is_that_of_the_whole(
    kind: str, request: pytest.FixtureRequest
) -> None:
    source = str(request.getfixturevalue(kind))
    split, whole = load_test_split(source, data_dir=None), load_dataset(source, data_dir=None)
    np.testing.assert_array_equal(split.images, whole.test.images, strict=True)
    np.testing.assert_array_equal(split.labels, whole.test.labels, strict=True)


def test_the_test_split_of_a_folder_needs_its_two_files_alone(folder: Path) -> None:
    for path in folder.glob("train-*"):
        path.unlink()
    assert len(load_test_split(str(folder), data_dir=None)) == 2
    with pytest.raises(DatasetError, match="missing train-images-idx3-ubyte, train-labels-idx1"):
        load_dataset(str(folder), data_dir=None)


def test_splits_of_different_images_name_the_folder(folder: Path) -> None:
    write_idx(folder / "t10k-images-idx3-ubyte.gz", np.zeros((2, 5, 5), np.uint8))
    message = rf"{folder}: .* training images are \(3, 2\), the test images \(5, 5\)"
    with pytest.raises(DatasetError, match=message):
        load_dataset(str(folder), data_dir=None)


def test_mnist_is_read_from_the_data_dir(mnist_folder: Path) -> None:
    assert load_dataset("mnist", data_dir=mnist_folder).name == "mnist"
    assert len(load_test_split("mnist", data_dir=mnist_folder)) == 10_000


def test_auto_is_mnist_where_it_is_at_hand(
    mnist_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert load_dataset("auto", data_dir=mnist_folder).name == "mnist"
    assert len(load_test_split("auto", data_dir=mnist_folder)) == 10_000
    assert caplog.records == []


def test_auto_is_drawn_where_mnist_is_not_to_be_had(caplog: pytest.LogCaptureFixture) -> None:
    assert load_dataset("auto", data_dir=None).name == "drawn"
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("mlpserve.datasets.source", logging.WARNING)
    assert record.getMessage().startswith(
        "MNIST is neither at hand nor to be downloaded, so digits"
    )


def test_a_folder_that_is_called_like_a_data_set_of_ours_is_told_apart(folder: Path) -> None:
    for name in ("mnist", "drawn"):
        called_so = folder.rename(folder.parent / name)
        assert load_dataset(f"{called_so}", data_dir=None).name == f"own-{name}"
        called_so.rename(folder)


def test_a_name_that_is_no_text_becomes_text(folder: Path) -> None:
    odd = folder.rename(folder.parent / os.fsdecode(b"caf\xe9"))
    assert load_dataset(str(odd), data_dir=None).name == "caf\ufffd"


def test_auto_draws_the_test_split_too(caplog: pytest.LogCaptureFixture) -> None:
    split = load_test_split("auto", data_dir=None)
    np.testing.assert_array_equal(split.images, drawn.load_drawn_test().images, strict=True)
    assert len(caplog.records) == 1


def test_a_network_s_shape_is_for_data_of_ones_own_alone(npz: Path) -> None:
    shape = load_test_split(str(npz), data_dir=None).images.shape[1:]
    turned = shape[::-1]
    assert load_test_split(str(npz), data_dir=None, input_shape=turned).images.shape[1:] == turned
    said = ReadOptions(shape=shape)
    split = load_test_split(str(npz), data_dir=None, options=said, input_shape=turned)
    assert split.images.shape[1:] == shape
    for name in ("auto", "drawn"):
        split = load_test_split(name, data_dir=None, input_shape=(3, 4))
        assert split.images.shape[1:] == drawn.load_drawn_test().images.shape[1:]


def test_drawn_asks_for_no_network(caplog: pytest.LogCaptureFixture) -> None:
    dataset = load_dataset("drawn", data_dir=None)
    assert (dataset.name, len(dataset.train)) == ("drawn", 30)
    split = load_test_split("drawn", data_dir=None)
    np.testing.assert_array_equal(split.images, dataset.test.images, strict=True)
    assert caplog.records == []


def test_mnist_that_is_not_to_be_had_is_an_error() -> None:
    with pytest.raises(DownloadError, match="cannot be downloaded"):
        load_dataset("mnist", data_dir=None)
    with pytest.raises(DownloadError, match="cannot be downloaded"):
        load_test_split("mnist", data_dir=None)


@pytest.mark.parametrize("load", [load_dataset, load_test_split])
def test_auto_does_not_hide_other_data_in_the_data_dir(
    folder: Path, load: Callable[..., object]
) -> None:
    with pytest.raises(DatasetError, match="is not the official MNIST file"):
        load("auto", data_dir=folder)


@pytest.mark.parametrize("load", [load_dataset, load_test_split])
def test_auto_does_not_hide_a_part_of_mnist(folder: Path, load: Callable[..., object]) -> None:
    (folder / f"{IDX_NAMES[0]}.gz").unlink()
    with pytest.raises(DatasetError, match=f"missing {IDX_NAMES[0]}"):
        load("auto", data_dir=folder)


@pytest.mark.parametrize("load", [load_dataset, load_test_split])
@pytest.mark.parametrize("source", ["mnst", "MNIST", "", "absent/folder"])
def test_an_unknown_source_lists_what_is_accepted(
    source: str, load: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError) as caught:
        load(source, data_dir=None)
    assert str(caught.value) == (
        "data: expected auto, mnist, drawn, a folder with IDX files, a folder with a folder of "
        "pictures for each class, a CSV, Parquet or Arrow file, or a folder of them, a folder with "
        ".npy files of images and labels, or an .npz file with images and labels; got "
        f"{source!r}, and there is no such file or folder"
    )


def test_a_source_that_cannot_be_a_path_is_an_error() -> None:
    with pytest.raises(DatasetError, match="cannot be read: File name too long"):
        load_dataset("x" * 5000, data_dir=None)


def test_a_line_of_the_table_is_a_data_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = Source("shapes", lambda _: load_dataset(str(folder), data_dir=None), lambda _: split)
    split = load_test_split(str(folder), data_dir=None)
    monkeypatch.setitem(cast("dict[str, object]", DATASETS), "shapes", shapes)
    assert load_dataset("shapes", data_dir=None).name == "tiny-shapes"
    assert load_test_split("shapes", data_dir=None) is split


def test_help_and_messages_name_each_data_set() -> None:
    for name, source in DATASETS.items():
        assert f"{name} ({source.description})" in DATA_HELP
        with pytest.raises(DatasetError, match=name):
            load_dataset("absent", data_dir=None)


def test_auto_says_whom_it_asks_before_it_waits(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    load_dataset("auto", data_dir=None)
    assert [record.getMessage().split(",")[0] for record in caplog.records] == [
        "MNIST is not at hand; asking 127.0.0.1 for it",
        "MNIST is neither at hand nor to be downloaded",
    ]


@pytest.mark.parametrize("home", ["", None])
def test_without_a_home_folder_auto_is_drawn_and_mnist_says_why(
    home: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    if home is None:  # a container's user whom no file of the system knows
        monkeypatch.delenv("HOME")
        monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    else:
        monkeypatch.setenv("HOME", home)
    assert load_dataset("auto", data_dir=None).name == "drawn"
    with pytest.raises(DownloadError) as caught:
        load_dataset("mnist", data_dir=None)
    assert str(caught.value) == (
        "there is no home folder to keep downloaded files in; name a folder that holds the four "
        "MNIST files with --data-dir, or one for the cache with $XDG_CACHE_HOME"
    )


@pytest.mark.parametrize("load", [load_dataset, load_test_split])
def test_flags_about_data_of_ones_own_are_refused_for_ours(load: Callable[..., object]) -> None:
    message = "--shape: is said about data of your own, but --data is drawn"
    with pytest.raises(DatasetError, match=message):
        load("drawn", data_dir=None, options=ReadOptions(shape=(14, 56)))


def test_one_data_set_may_be_tested_by_another(folder: Path, npz: Path) -> None:
    dataset = load_dataset(str(folder), data_dir=None, options=ReadOptions(test_data=str(npz)))
    assert (dataset.name, dataset.test_origin) == ("tiny-shapes", "test images of few-shapes")
    np.testing.assert_array_equal(dataset.test.images, ARRAYS["t10k-images-idx3-ubyte"])
    options = ReadOptions(test_data=str(folder))
    with pytest.raises(DatasetError, match=r"training images are \(28, 28\), the test images"):
        load_dataset("drawn", data_dir=None, options=options)


def test_format_is_a_line_of_the_table(folder: Path) -> None:
    for form in FORMATS:
        assert form.description in DATA_HELP
    assert next(form for form in FORMATS if form.fits(folder)).read is read_idx_data


@pytest.mark.parametrize("text", ["28x28", "28X28", "28,28"])
def test_shape_is_read_from_its_flag(text: str) -> None:
    parser = argparse.ArgumentParser()
    add_read_options(parser)
    assert read_options(parser.parse_args(["--shape", text])).shape == (28, 28)


@pytest.mark.parametrize("text", ["", "28x", "x", "0x4", "-2x4", "wide"])
def test_shape_that_is_none_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_read_options(parser)
    with pytest.raises(SystemExit):
        parser.parse_args([f"--shape={text}"])
    assert "expected sizes with x between them, as in 28x28" in capsys.readouterr().err
