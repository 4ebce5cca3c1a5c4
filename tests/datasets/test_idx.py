import gzip
import os
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlpserve.datasets import DatasetError
from mlpserve.datasets.idx import (
    IDX_NAMES,
    MAX_IDX_BYTES,
    find_idx_files,
    idx_header,
    present_idx_files,
    read_idx,
)

Pack = Callable[[bytes], bytes]

IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
LABELS = np.array([1, 0], np.uint8)
TYPES = {9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}

# Each example overwrites the same file, so it does not matter that they share the folder.
shared_folder = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
plain_or_gzipped = pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])


def idx_bytes(array: npt.NDArray[np.uint8]) -> bytes:
    return idx_header(array.shape) + array.tobytes()


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "values-idx3-ubyte"


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Take away the right to read, and root's right to read all the same."""
    user, mode = os.geteuid(), path.stat().st_mode
    path.chmod(0)
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        path.chmod(mode)


def test_reads_the_bytes_of_the_format_description(path: Path) -> None:
    content = bytes.fromhex("0000 0802 00000002 00000003 00 01 02 fd fe ff")
    array = read_idx(write(path, content))
    assert array.dtype == np.uint8
    assert array.tolist() == [[0, 1, 2], [253, 254, 255]]


@plain_or_gzipped
@pytest.mark.parametrize("name", ["values", "values.gz"])
def test_content_decides_whether_a_file_is_gzipped(tmp_path: Path, name: str, pack: Pack) -> None:
    array = read_idx(write(tmp_path / name, pack(idx_bytes(IMAGES))), dimensions=3)
    np.testing.assert_array_equal(array, IMAGES)


@pytest.mark.parametrize("kind", TYPES)
def test_values_of_other_types_are_read(path: Path, kind: int) -> None:
    values = (IMAGES.astype(np.int64) - 7).astype(TYPES[kind])
    header = bytes([0, 0, kind]) + idx_header(IMAGES.shape)[3:]
    read = read_idx(write(path, header + values.tobytes()))
    np.testing.assert_array_equal(read, IMAGES.astype(np.int64) - 7)
    assert read.dtype.isnative
    write(path, header + values.tobytes()[:-1])
    with pytest.raises(DatasetError, match="declares 24 values .* but only 23 are there"):
        read_idx(path)


@shared_folder
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    seed=st.integers(0, 2**32 - 1),
    gzipped=st.booleans(),
)
def test_any_array_comes_back_as_it_was(
    path: Path, shape: list[int], seed: int, *, gzipped: bool
) -> None:
    array = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    content = idx_bytes(array)
    write(path, gzip.compress(content, 1) if gzipped else content)
    np.testing.assert_array_equal(read_idx(path, dimensions=len(shape)), array, strict=True)


@shared_folder
@given(data=st.data(), gzipped=st.booleans())
def test_a_file_cut_short_is_refused(path: Path, data: st.DataObject, *, gzipped: bool) -> None:
    content = gzip.compress(idx_bytes(IMAGES)) if gzipped else idx_bytes(IMAGES)
    length = data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(DatasetError, match=path.name):
        read_idx(write(path, content[:length]))


@shared_folder
@given(
    changes=st.dictionaries(st.integers(0, 15), st.integers(1, 255), min_size=1, max_size=4),
    gzipped=st.booleans(),
)
def test_a_changed_header_is_refused_or_obeyed(
    path: Path, changes: dict[int, int], *, gzipped: bool
) -> None:
    content = bytearray(idx_bytes(IMAGES))
    for position, change in changes.items():
        content[position] ^= change
    write(path, gzip.compress(content) if gzipped else bytes(content))
    try:
        array = read_idx(path)
    except DatasetError as error:
        assert path.name in str(error)
    else:
        values = array.astype(array.dtype.newbyteorder(">")).tobytes()
        assert content[3:] == idx_header(array.shape)[3:] + values


@shared_folder
@given(position=st.integers(0, 10_000), change=st.integers(1, 255))
def test_a_damaged_gzip_file_is_refused_or_unharmed(path: Path, position: int, change: int) -> None:
    content = bytearray(gzip.compress(idx_bytes(IMAGES)))
    content[position % len(content)] ^= change
    try:
        array = read_idx(write(path, bytes(content)))
    except DatasetError as error:
        assert path.name in str(error)
    else:
        np.testing.assert_array_equal(array, IMAGES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got an empty file"),
        (b"\0\0", "starts with 00 00, the type .* got 00 00$"),
        (b"\x89PNG\r\n", "starts with 00 00, the type .* got 89 50 4e 47"),
        (b"\0\0\x0a\x01" + bytes(8), "type 08, 09, 0B, 0C, 0D, 0E, got 0A"),
        (b"\0\0\x08\x00\x05", "expected 1 to 32 dimensions, got 0"),
        (idx_header((1,) * 33) + b"\0", "expected 1 to 32 dimensions, got 33"),
        (b"\0\0\x08\x03\0\0\0\x02", "ends within the header, after 8 bytes"),
        (idx_header((0, 3)), r"sizes of at least 1, got shape \(0, 3\)"),
        (idx_bytes(IMAGES)[:-1], r"declares 24 values in shape \(2, 3, 4\), but only 23 are there"),
        (idx_bytes(IMAGES) + b"\0", r"declares 24 values in shape \(2, 3, 4\), but more follow"),
    ],
    ids=[
        "empty",
        "short magic",
        "foreign",
        "unknown type",
        "no dimension",
        "too many dimensions",
        "short header",
        "empty dimension",
        "too few values",
        "too many values",
    ],
)
@plain_or_gzipped
def test_what_is_wrong_with_the_content_is_said(
    path: Path, pack: Pack, content: bytes, message: str
) -> None:
    with pytest.raises(DatasetError, match=f"{path}: .*{message}"):
        read_idx(write(path, pack(content)))


def test_an_array_of_other_dimensions_is_refused(path: Path) -> None:
    with pytest.raises(DatasetError, match=f"{path}: expected 3 dimensions, got 1"):
        read_idx(write(path, idx_bytes(LABELS)), dimensions=3)


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(idx_bytes(IMAGES))[:-12],
        gzip.compress(idx_bytes(IMAGES))[:10] + b"\xff" * 20,
        gzip.compress(idx_bytes(IMAGES)) + b"left over",
    ],
    ids=["ends early", "not deflated", "something behind"],
)
def test_a_damaged_gzip_file_is_called_so(path: Path, content: bytes) -> None:
    with pytest.raises(DatasetError, match=f"{path}: the gzip file is damaged: "):
        read_idx(write(path, content))


@plain_or_gzipped
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2**32 - 1,) * 3, "the most that is read is 2147483648"),
        ((MAX_IDX_BYTES + 1,), "the most that is read is 2147483648"),
        ((MAX_IDX_BYTES,), "only 100 are there"),
    ],
    ids=["exabytes", "over the limit", "at the limit"],
)
def test_a_header_that_promises_much_costs_nothing(
    path: Path, pack: Pack, shape: tuple[int, ...], message: str
) -> None:
    write(path, pack(idx_header(shape) + bytes(100)))
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match=message):
            read_idx(path)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4 * 1024**2


def test_a_gzip_bomb_is_not_unpacked(path: Path) -> None:
    write(path, gzip.compress(idx_bytes(IMAGES) + bytes(64 * 1024**2), 1))
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match="but more follow"):
            read_idx(path)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1024**2


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(DatasetError, match=f"{path}: cannot be read: No such file"):
        read_idx(path)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=f"{tmp_path}: cannot be read: Is a directory"):
        read_idx(tmp_path)


def test_a_file_without_permission_is_named(path: Path) -> None:
    write(path, idx_bytes(IMAGES))
    message = f"{path}: cannot be read: Permission denied"
    with unreadable(path), pytest.raises(DatasetError, match=message):
        read_idx(path)


@pytest.mark.parametrize("spelling", ["{}", "{}.gz", "dotted", "dotted.gz"])
def test_every_official_spelling_is_found(tmp_path: Path, spelling: str) -> None:
    expected = {}
    for name in IDX_NAMES:
        spelled = spelling.replace("dotted", name.replace("-idx", ".idx")).format(name)
        expected[name] = write(tmp_path / spelled, b"")
    assert find_idx_files(tmp_path) == expected


def test_missing_files_are_named(tmp_path: Path) -> None:
    write(tmp_path / "train-images-idx3-ubyte.gz", b"")
    write(tmp_path / "t10k-labels.idx1-ubyte", b"")
    with pytest.raises(DatasetError) as caught:
        find_idx_files(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: expected the IDX files (.gz or not), "
        "missing train-labels-idx1-ubyte, t10k-images-idx3-ubyte"
    )


def test_a_folder_of_an_official_name_is_no_file(tmp_path: Path) -> None:
    (tmp_path / IDX_NAMES[0]).mkdir()  # as one popular archive of MNIST unpacks
    assert present_idx_files(tmp_path) == {}


def test_a_folder_that_does_not_exist_has_no_files(tmp_path: Path) -> None:
    assert present_idx_files(tmp_path / "absent") == {}


def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    message = f"{tmp_path}: cannot be read: Permission denied"
    with unreadable(tmp_path), pytest.raises(DatasetError, match=message):
        find_idx_files(tmp_path)
