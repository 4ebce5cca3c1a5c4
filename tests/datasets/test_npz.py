import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlpserve.datasets import Dataset, DatasetError, load_dataset, load_test_split
from mlpserve.datasets.class_labels import MAX_CLASSES

Array = npt.NDArray[Any]

IMAGES = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
LABELS = np.array([0, 2, 1, 0])
ARRAYS: dict[str, Array] = {
    "x_train": IMAGES,
    "y_train": LABELS,
    "x_test": IMAGES[:2],
    "y_test": LABELS[:2],
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shapes.npz"


def write(path: Path, arrays: dict[str, Array]) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]  # no array is called allow_pickle
    return path


def load(path: Path) -> Dataset:
    return load_dataset(str(path), data_dir=None)


def read(path: Path, **changed: Array) -> Dataset:
    return load(write(path, {**ARRAYS, **changed}))


def both(images: Array) -> dict[str, Array]:
    return {"x_train": images, "x_test": images[:2]}


def npy_bytes(header: str, values: bytes = b"") -> bytes:
    text = header.encode().ljust(118)
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + values


def write_entry(path: Path, content: bytes) -> Path:
    """Write a file whose x_train is not as NumPy would write it."""
    write(path, {name: array for name, array in ARRAYS.items() if name != "x_train"})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x_train.npy", content)
    return path


def test_both_splits_are_read(path: Path) -> None:
    dataset = read(path)
    assert dataset.name == "shapes"
    assert dataset.class_labels == ("0", "1", "2")
    np.testing.assert_array_equal(dataset.train.images, IMAGES, strict=True)
    np.testing.assert_array_equal(dataset.train.labels, LABELS, strict=True)
    np.testing.assert_array_equal(dataset.test.images, IMAGES[:2], strict=True)
    np.testing.assert_array_equal(dataset.test.labels, LABELS[:2], strict=True)


def test_a_compressed_file_is_read(path: Path) -> None:
    np.savez_compressed(path, **ARRAYS)  # type: ignore[arg-type]  # none is allow_pickle
    np.testing.assert_array_equal(load(path).train.images, IMAGES, strict=True)


def test_the_test_split_needs_nothing_else(path: Path) -> None:
    split = load_test_split(
        str(write(path, {name: ARRAYS[name] for name in ("x_test", "y_test")})), data_dir=None
    )
    np.testing.assert_array_equal(split.images, IMAGES[:2], strict=True)


def test_classes_that_only_the_test_split_has_count(path: Path) -> None:
    assert read(path, y_test=np.array([0, 4])).class_labels == ("0", "1", "2", "3", "4")


def test_class_labels_are_taken_from_the_file(path: Path) -> None:
    names = ("circle", "square", "étoile")
    assert read(path, class_labels=np.array(names)).class_labels == names


@pytest.mark.parametrize("dtype", ["f2", "<f4", ">f4", "f8"])
def test_float_images_become_float32(path: Path, dtype: str) -> None:
    images = (IMAGES / 32).astype(dtype)  # exact in each of them
    read_images = read(path, **both(images)).train.images
    np.testing.assert_array_equal(read_images, (IMAGES / 32).astype(np.float32), strict=True)


@pytest.mark.parametrize("dtype", ["i1", "<i4", ">u2", "i8"])
def test_integer_images_in_range_become_uint8(path: Path, dtype: str) -> None:
    images = read(path, **both(IMAGES.astype(dtype))).train.images
    np.testing.assert_array_equal(images, IMAGES, strict=True)


@pytest.mark.parametrize(
    "values",
    [
        IMAGES.astype(np.int16) - 12,
        IMAGES.astype(np.int64) * 100,
        IMAGES.astype(np.uint16) * 2000,
        IMAGES.astype(np.float64) / 8 - 1,
        IMAGES.astype(np.float32) * 10,
    ],
    ids=["signed", "int64", "16 bits", "around 0", "beyond 255"],
)
def test_values_of_any_range_are_kept(path: Path, values: Array) -> None:
    images = read(path, **both(values)).train.images
    np.testing.assert_array_equal(images, values)
    assert images.dtype == (np.float32 if values.dtype.kind == "f" else np.int32)


def test_bools_are_0_and_1(path: Path) -> None:
    images = read(path, **both(IMAGES > 3)).train.images
    np.testing.assert_array_equal(images, (IMAGES > 3).astype(np.uint8), strict=True)


def test_integers_of_two_widths_become_the_wider(path: Path) -> None:
    dataset = read(path, x_train=IMAGES.astype(np.int16) * 100, x_test=IMAGES[:2])
    assert {split.images.dtype for split in (dataset.train, dataset.test)} == {np.dtype("i4")}


def test_labels_that_are_text_name_the_classes(path: Path) -> None:
    dataset = read(path, y_train=np.array(["b", "a10", "a2", "b"]), y_test=np.array(["a2", "c"]))
    assert dataset.class_labels == ("a2", "a10", "b", "c")
    assert dataset.train.labels.tolist() == [2, 1, 0, 2]
    assert dataset.test.labels.tolist() == [0, 3]


@pytest.mark.parametrize(
    "names",
    [
        ("X_train", "Y_train", "X_test", "Y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("train-data", "train-targets", "test-data", "test-targets"),
        ("images_train", "label_train", "images_test", "label_test"),
        ("arr_0", "arr_1", "arr_2", "arr_3"),
    ],
)
def test_other_spellings_of_the_entries(path: Path, names: tuple[str, ...]) -> None:
    write(path, dict(zip(names, ARRAYS.values(), strict=True)))
    dataset = load(path)
    np.testing.assert_array_equal(dataset.train.images, IMAGES, strict=True)
    np.testing.assert_array_equal(dataset.test.labels, LABELS[:2], strict=True)
    assert dataset.test_origin == ""


def test_names_of_labels_are_not_the_labels(path: Path) -> None:
    names = np.array(["a", "b", "c"])
    write(path, {"label_names": names, "images": IMAGES.repeat(3, 0), "labels": LABELS.repeat(3)})
    assert load(path).class_labels == ("0", "1", "2")


def test_files_of_one_array_each_are_found_by_their_names(tmp_path: Path) -> None:
    for name, array in zip(("imgs", "labels"), (IMAGES, LABELS), strict=True):
        for split in ("train", "test"):
            path = tmp_path / f"kmnist-{split}-{name}.npz"
            np.savez_compressed(path, array[: 2 if split == "test" else 4])
    for place in (tmp_path, tmp_path / "kmnist-train-imgs.npz"):
        dataset = load(place)
        np.testing.assert_array_equal(dataset.train.images, IMAGES, strict=True)
        np.testing.assert_array_equal(dataset.test.labels, LABELS[:2], strict=True)


def test_positional_arrays_may_come_as_images_and_then_labels(path: Path) -> None:
    write(path, {"arr_0": IMAGES, "arr_1": IMAGES[:2], "arr_2": LABELS, "arr_3": LABELS[:2]})
    np.testing.assert_array_equal(load(path).test.images, IMAGES[:2], strict=True)


@pytest.mark.parametrize("names", [("images", "labels"), ("x", "y"), ("arr_0", "arr_1")])
def test_where_there_is_no_test_split_some_of_each_class_is_held_out(
    path: Path, names: tuple[str, str]
) -> None:
    labels = np.repeat([0, 1, 2], [50, 20, 4])
    images = np.arange(2 * 74).reshape(74, 2)
    write(path, {names[0]: images, names[1]: labels})
    dataset = load(path)
    assert np.bincount(dataset.test.labels).tolist() == [5, 2, 1]
    assert dataset.test_origin == "10 % of each class, held out (seed 0)"
    rows = np.concatenate([dataset.train.images, dataset.test.images])
    np.testing.assert_array_equal(np.sort(rows, axis=0), images)
    split = load_test_split(str(path), data_dir=None)
    np.testing.assert_array_equal(split.images, dataset.test.images)


def test_validation_images_of_medmnist_are_learned_from(path: Path) -> None:
    arrays = {
        "train_images": IMAGES,
        "train_labels": LABELS[:, None],
        "val_images": IMAGES[:1],
        "val_labels": LABELS[:1, None],
        "test_images": IMAGES[:2],
        "test_labels": LABELS[:2, None],
    }
    dataset = load(write(path, arrays))
    assert (len(dataset.train), len(dataset.test)) == (5, 2)
    for name in ("test_images", "test_labels"):
        del arrays[name]
    dataset = load(write(path, arrays))
    assert (len(dataset.train), len(dataset.test)) == (4, 1)


@pytest.mark.parametrize(
    ("shape", "found"),
    [((4, 4, 1), (4, 4)), ((1, 4, 4), (4, 4)), ((16,), (4, 4)), ((15,), (15,)), ((2, 2, 3), None)],
)
def test_images_of_one_plane_have_a_height_and_a_width(
    path: Path, shape: tuple[int, ...], found: tuple[int, ...] | None
) -> None:
    images = np.zeros((4, *shape), np.uint8)
    assert read(path, **both(images)).input_shape == (found or shape)


@pytest.mark.parametrize("names", [["a", "b", "a"], ["a", "", "b"], ["a", " ", "b"]])
def test_class_labels_that_tell_nothing_apart_are_refused(path: Path, names: list[str]) -> None:
    with pytest.raises(DatasetError, match="class_labels: expected (different texts|a text for)"):
        read(path, class_labels=np.array(names))


def test_images_in_column_order_are_the_same_images(path: Path) -> None:
    images = read(path, **both(np.asfortranarray(IMAGES))).train.images
    np.testing.assert_array_equal(images, IMAGES, strict=True)
    assert images.flags.c_contiguous


@pytest.mark.parametrize("dtype", ["u1", "i2", ">i4", "u8"])
@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_labels_become_int64_in_one_dimension(
    path: Path, dtype: str, shape: tuple[int, ...]
) -> None:
    labels = read(path, y_train=LABELS.astype(dtype).reshape(shape)).train.labels
    np.testing.assert_array_equal(labels, LABELS, strict=True)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("x_train", np.full((4, 2), 1e300), "finite values, got inf to inf"),
        ("x_train", np.full((4, 2), np.nan), "finite values, got nan to nan"),
        ("x_train", IMAGES.astype(str), "integers or floats, got <U"),
        ("x_train", IMAGES.astype(np.complex64), "integers or floats, got complex64"),
        ("x_train", IMAGES[:0], r"at least one, as \(count, \.\.\.\), got shape \(0, 2, 3\)"),
        ("x_train", np.uint8(3) * np.ones((), np.uint8), r"at least one, .* got shape \(\)"),
        ("x_train", IMAGES[:3], "one for each of the 3 images"),
        ("x_train", np.zeros((4, 5), np.uint8), r"training images are \(5,\), the test images"),
        ("x_train", np.zeros((4, 2, 3)), "training images are float32, the test images uint8"),
        ("y_train", LABELS.astype(np.float32), "integer classes, got float32"),
        ("y_train", np.eye(4, dtype=int), r"shape \(N,\) or \(N, 1\), got \(4, 4\)"),
        ("y_train", np.array(3), r"shape \(N,\) or \(N, 1\), got \(\)"),
        ("y_train", LABELS - 1, "classes from 0, got -1"),
        ("y_train", LABELS + 2**40, f"classes below {MAX_CLASSES}, got 1099511627778"),
        ("y_train", LABELS.astype(np.uint64) + 2**63, f"classes below {MAX_CLASSES}, got 9223"),
        ("class_labels", np.array(["a", "b"]), "2 classes have a name, but a label is 2"),
        ("class_labels", np.array([["a", "b", "c"]]), r"\(K,\) unicode, .* got <U1 \(1, 3\)"),
        ("class_labels", np.array([b"a", b"b", b"c"]), r"\(K,\) unicode, .* got \|S1 \(3,\)"),
        ("class_labels", np.array([], str), r"\(K,\) unicode, .* got <U1 \(0,\)"),
        ("class_labels", np.array(["a", "b", "\ud800"]), "valid Unicode"),
        (
            "class_labels",
            np.array([0x61, 0x62, 0x110000], np.uint32).view("U1"),
            "valid Unicode",
        ),
    ],
)
def test_an_entry_that_cannot_be_used_is_explained(
    path: Path, name: str, array: Array, message: str
) -> None:
    with pytest.raises(DatasetError, match=f"^{path}: (.*{name}.*: )?.*{message}"):
        read(path, **{name: array})


def test_an_error_says_its_file_once(path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        read(path, x_train=np.array([{}]))
    assert str(caught.value) == (
        f"{path}: x_train.npy: holds Python objects, which are never unpickled"
    )


def test_missing_entries_are_named(path: Path) -> None:
    write(path, {"x_train": IMAGES, "y_test": LABELS, "other": LABELS})
    with pytest.raises(DatasetError) as caught:
        load(path)
    assert str(caught.value) == (
        f"{path}: expected x_train, y_train, x_test, y_test (or train_images, train_labels and so "
        "on, or images and labels alone), missing y_train, x_test; it holds x_train, y_test, other"
    )


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("it was unpickled",)


def test_objects_are_never_unpickled(path: Path) -> None:
    header = "{'descr': '|O', 'fortran_order': False, 'shape': (4, 2)}"
    write_entry(path, npy_bytes(header, pickle.dumps(Bomb())))
    with pytest.raises(DatasetError, match=r"x_train\.npy: holds Python objects"):
        load(path)


def test_a_bare_pickle_is_not_unpickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DatasetError, match=f"{path}: expected an .npz file, which is a zip"):
        load(path)


@pytest.mark.parametrize(
    "shape", ["(1000000, 1000000)", "(4, 2, 4)", "(-4, -6)", "(4, 2)"], ids=str
)
def test_a_declared_shape_other_than_the_content_costs_nothing(path: Path, shape: str) -> None:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}"
    write_entry(path, npy_bytes(header, bytes(24)))
    with pytest.raises(
        DatasetError, match=r"x_train\.npy: the header declares .* but 24 are there"
    ):
        load(path)


def test_sizes_over_the_limit_are_refused_before_unpacking(path: Path) -> None:
    write_entry(path, npy_bytes("{'descr': '|u1', 'fortran_order': False, 'shape': (4, 6)}"))
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")  # the last one in the directory: x_train
    content[entry + 24 : entry + 28] = struct.pack("<I", 2**32 - 2)  # its size unpacked
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match=f"{path}: unpacks to .* the most that is read is "):
            load(path)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1024**2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY\x03\x00" + bytes(128),
        b"\x93NUMPY\x01\x00" + bytes(128),
        b"not an array",
        npy_bytes("((((((((("),
        npy_bytes("{[]: 1}"),
        npy_bytes("{'descr': '|q9', 'fortran_order': False, 'shape': (4, 2)}"),
        npy_bytes("{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000000,)}"),
    ],
    ids=[
        "empty",
        "version 3",
        "no header",
        "foreign",
        "unbalanced",
        "unhashable",
        "dtype",
        "no size",
    ],
)
def test_an_entry_that_is_no_array_is_refused(path: Path, content: bytes) -> None:
    with pytest.raises(DatasetError, match=rf"^{path}: x_train\.npy: "):
        load(write_entry(path, content))


def test_a_lone_array_is_no_npz_file(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, IMAGES)
    with pytest.raises(DatasetError, match=f"{path}: expected an .npz file, which is a zip"):
        load(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    changes=st.dictionaries(st.integers(0, 100_000), st.integers(1, 255), max_size=4),
    cut=st.just(0) | st.integers(1, 100),
    save=st.sampled_from([np.savez, np.savez_compressed]),
)
def test_a_damaged_file_is_refused_or_read(
    path: Path, changes: dict[int, int], cut: int, save: Callable[..., None]
) -> None:
    save(path, **ARRAYS)
    content = bytearray(path.read_bytes())
    for position, change in changes.items():
        content[position % len(content)] ^= change
    path.write_bytes(content[: len(content) - cut])
    try:
        load(path)
    except DatasetError as error:
        assert str(error).startswith(f"{path}: ")


def test_classes_are_counted_from_0_though_none_is_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "from-one.npz"
    images = np.zeros((4, 2, 2), np.uint8)
    labels = np.array([1, 2, 2, 1])
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    dataset = load_dataset(str(path), data_dir=None)
    assert dataset.class_labels == ("0", "1", "2")
    np.testing.assert_array_equal(dataset.train.labels, labels)
