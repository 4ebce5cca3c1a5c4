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

from mlpserve.datasets import Dataset, DatasetError
from mlpserve.datasets.npz import MAX_CLASSES, read_npz_dataset, read_npz_test_split

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
    np.savez(path, allow_pickle=True, **arrays)
    return path


def read(path: Path, **changed: Array) -> Dataset:
    return read_npz_dataset(write(path, {**ARRAYS, **changed}))


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
    np.savez_compressed(path, allow_pickle=False, **ARRAYS)
    np.testing.assert_array_equal(read_npz_dataset(path).train.images, IMAGES, strict=True)


def test_the_test_split_needs_nothing_else(path: Path) -> None:
    split = read_npz_test_split(write(path, {name: ARRAYS[name] for name in ("x_test", "y_test")}))
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
        ("x_train", IMAGES.astype(np.int16) - 1, "integers from 0 to 255, got -1 to 22"),
        ("x_train", IMAGES.astype(np.int64) * 100, "integers from 0 to 255, got 0 to 2300"),
        ("x_train", IMAGES.astype(np.float64), "float values from 0 to 1, got 0 to 23"),
        ("x_train", np.full((4, 2), 1e300), "float values from 0 to 1, got inf to inf"),
        ("x_train", np.full((4, 2), np.nan), "float values from 0 to 1, got nan to nan"),
        ("x_train", IMAGES.astype(str), "integers or floats, got <U"),
        ("x_train", IMAGES > 3, "integers or floats, got bool"),
        ("x_train", IMAGES.astype(np.complex64), "integers or floats, got complex64"),
        ("x_train", IMAGES[:0], r"at least one, as \(count, \.\.\.\), got shape \(0, 2, 3\)"),
        ("x_train", np.uint8(3) * np.ones((), np.uint8), r"at least one, .* got shape \(1,\)"),
        ("x_train", IMAGES[:3], "one for each of the 3 images"),
        ("x_train", np.zeros((4, 5), np.uint8), r"training images are \(5,\), the test images"),
        ("x_train", np.zeros((4, 2, 3)), "training images are float32, the test images uint8"),
        ("y_train", LABELS.astype(np.float32), "integer classes, got float32"),
        ("y_train", LABELS.astype(str), "integer classes, got <U"),
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
        read_npz_dataset(path)
    assert str(caught.value) == (
        f"{path}: expected x_train, y_train, x_test, y_test, missing y_train, x_test"
    )


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("it was unpickled",)


def test_objects_are_never_unpickled(path: Path) -> None:
    header = "{'descr': '|O', 'fortran_order': False, 'shape': (4, 2)}"
    write_entry(path, npy_bytes(header, pickle.dumps(Bomb())))
    with pytest.raises(DatasetError, match=r"x_train\.npy: holds Python objects"):
        read_npz_dataset(path)


def test_a_bare_pickle_is_not_unpickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DatasetError, match=f"{path}: expected an .npz file, which is a zip"):
        read_npz_dataset(path)


@pytest.mark.parametrize(
    "shape", ["(1000000, 1000000)", "(4, 2, 4)", "(-4, -6)", "(4, 2)"], ids=str
)
def test_a_declared_shape_other_than_the_content_costs_nothing(path: Path, shape: str) -> None:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}"
    write_entry(path, npy_bytes(header, bytes(24)))
    with pytest.raises(
        DatasetError, match=r"x_train\.npy: the header declares .* but 24 are there"
    ):
        read_npz_dataset(path)


def test_sizes_over_the_limit_are_refused_before_unpacking(path: Path) -> None:
    write_entry(path, npy_bytes("{'descr': '|u1', 'fortran_order': False, 'shape': (4, 6)}"))
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")  # the last one in the directory: x_train
    content[entry + 24 : entry + 28] = struct.pack("<I", 2**32 - 2)  # its size unpacked
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match=f"{path}: unpacks to .* the most that is read is "):
            read_npz_dataset(path)
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
        read_npz_dataset(write_entry(path, content))


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(DatasetError, match=f"{path}: cannot be read: No such file"):
        read_npz_dataset(path)


def test_a_lone_array_is_no_npz_file(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, IMAGES)
    with pytest.raises(DatasetError, match=f"{path}: expected an .npz file, which is a zip"):
        read_npz_dataset(path)


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
        read_npz_dataset(path)
    except DatasetError as error:
        assert str(error).startswith(f"{path}: ")
