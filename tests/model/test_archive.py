import contextlib
import io
import struct
import sys
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlpserve.model.archive import read_arrays, write_arrays
from mlpserve.model.errors import WeightsFileError

GIBIBYTE = 2**30
CENTRAL_SIGNATURE = b"PK\x01\x02"
# Where, after the signature of a directory entry, the zip format has these fields.
CENTRAL_FLAGS, CENTRAL_COMPRESSED_SIZE, CENTRAL_SIZE = 8, 20, 24


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "arrays.npz"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("archive") / "scratch.npz"


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Fail a test whose body allocates a megabyte or more at any moment."""
    tracemalloc.start()
    try:
        yield
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1_000_000


def npy(header: str, data: bytes = b"", *, version: tuple[int, int] = (1, 0)) -> bytes:
    """Return an .npy file with a header of our making."""
    encoded = header.encode("latin1")
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(encoded)) + encoded + data


def header(descr: str = "'<f4'", shape: str = "(2,)", fortran_order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {fortran_order}, 'shape': {shape}}}"


def write_entries(path: Path, entries: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def patch(path: Path, field: int, value: bytes) -> None:
    """Overwrite a field of the first entry in the zip's directory."""
    content = bytearray(path.read_bytes())
    start = content.index(CENTRAL_SIGNATURE) + field
    content[start : start + len(value)] = value
    path.write_bytes(content)


def refusal(path: Path) -> str:
    with pytest.raises(WeightsFileError) as refused:
        read_arrays(path)
    return str(refused.value)


@given(
    arrays=st.dictionaries(
        st.text("abcW12", min_size=1),
        hnp.arrays(
            st.sampled_from([np.dtype(code) for code in ("<f4", "<f8", "u1", ">i4", "<U3")]),
            hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        ),
        max_size=4,
    )
)
def test_arrays_read_back_bit_for_bit(scratch: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
    with scratch.open("wb") as file:
        write_arrays(file, arrays)
    read = read_arrays(scratch)
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        assert read[name].shape == array.shape
        assert read[name].tobytes() == array.tobytes()


def test_order_in_memory_changes_no_value(path: Path) -> None:
    array = np.arange(24.0).reshape(2, 3, 4)
    with path.open("wb") as file:
        write_arrays(file, {"C": array, "F": np.asfortranarray(array), "T": array.T})
    read = read_arrays(path)
    np.testing.assert_array_equal(read["C"], array)
    np.testing.assert_array_equal(read["F"], array)
    np.testing.assert_array_equal(read["T"], array.T)


def test_what_numpy_writes_is_read_and_the_other_way_round(path: Path) -> None:
    array = np.arange(6.0).reshape(2, 3)
    np.savez(path, array=array)
    np.testing.assert_array_equal(read_arrays(path)["array"], array)
    with path.open("wb") as file:
        write_arrays(file, {"array": array})
    with np.load(path, allow_pickle=False) as loaded:
        np.testing.assert_array_equal(loaded["array"], array)


def test_objects_are_not_written() -> None:
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        write_arrays(io.BytesIO(), {"objects": np.array([{}], object)})


def test_missing_file_and_folder_are_os_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "missing.npz")
    with pytest.raises(IsADirectoryError):
        read_arrays(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(header(shape="(3,)"), bytes(8)), "'x': expected 12 bytes for float32 (3,), got 8"),
        (npy(header(), bytes(9)), "'x': expected 8 bytes for float32 (2,), got 9"),
        (npy(header(shape="(-1, -2)"), bytes(8)), "for float32 (-1, -2), got 8"),
        (npy(header("'|O'"), bytes(16)), "'x': expected numbers, got pickled objects"),
        (npy(header("[('a', '|O')]"), bytes(16)), "'x': expected numbers, got pickled objects"),
        (npy(header(), bytes(8), version=(2, 0)), "'x': expected .npy 1.0, got (2, 0)"),
        (npy("{'descr': ("), "damaged"),
        (npy("'''"), "damaged"),
        (npy("{[]: 1}"), "damaged"),
        (npy(header("()")), "damaged"),
        (npy(header("'<f3'")), "damaged"),
        (npy("(" * 9000), "damaged"),
        (npy(header(shape=f"({'9' * 5000},)")), "damaged"),
        (npy(header(shape=f"({2**70}, 0)")), "damaged"),
        (npy(header("'<U0'", shape="()")), "damaged"),
        (npy(header())[:20], "damaged"),
        (b"\x93NUMPY", "damaged"),
        (b"", "damaged"),
        (b"not an .npy", "damaged"),
    ],
    ids=[
        "too few bytes",
        "too many bytes",
        "negative shape",
        "objects",
        "objects in records",
        "other .npy version",
        "open bracket",
        "open string",
        "unhashable key",
        "empty dtype",
        "unknown dtype",
        "deep header",
        "shape of 5000 digits",
        "shape over 64 bits",
        "text of no width",
        "cut header",
        "no header",
        "empty",
        "text",
    ],
)
def test_bad_entry_is_refused(path: Path, content: bytes, message: str) -> None:
    write_entries(path, {"x.npy": content})
    assert message in refusal(path)


@pytest.mark.filterwarnings("ignore")  # NumPy warns of headers as Python 2 or old releases wrote
@given(
    text=st.text(st.characters(max_codepoint=255)) | st.text("{}[]()'\",:0123456789L<f4adescrs#\n")
)
@example(text="{'descr': '<f4', 'fortran_order': False, 'shape': (2L,)}")
def test_any_npy_header_is_read_or_refused(scratch: Path, text: str) -> None:
    write_entries(scratch, {"x.npy": npy(text, bytes(8))})
    with contextlib.suppress(WeightsFileError):  # any other exception fails the test
        read_arrays(scratch)


@pytest.mark.filterwarnings("ignore")
@given(data=st.data())
def test_npy_header_with_a_part_replaced_is_read_or_refused(
    scratch: Path, data: st.DataObject
) -> None:
    good = header()
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(good))] * 2)))
    text = good[:start] + data.draw(st.text("()[]{}'<f4,:-19TrueNone", max_size=6)) + good[end:]
    write_entries(scratch, {"x.npy": npy(text, bytes(8))})
    with contextlib.suppress(WeightsFileError):
        read_arrays(scratch)


def test_name_that_stands_twice_is_refused(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy(header(), bytes(8)))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("x.npy", npy(header(), bytes(8)))
    assert refusal(path) == "expected each entry once, but a name stands twice"


def test_entry_that_is_no_array_is_refused(path: Path) -> None:
    write_entries(path, {"readme.txt": b"hello"})
    assert refusal(path) == "entry 'readme.txt': expected only arrays, named *.npy"


def test_encrypted_entry_is_refused(path: Path) -> None:
    write_entries(path, {"x.npy": npy(header(), bytes(8))})
    patch(path, CENTRAL_FLAGS, struct.pack("<H", 1))
    assert "encrypted" in refusal(path)


def test_flipped_bit_of_the_data_is_found_by_the_checksum(path: Path) -> None:
    write_entries(path, {"x.npy": npy(header(), b"ABCDEFGH")})
    path.write_bytes(path.read_bytes().replace(b"ABCDEFGH", b"ABCDEFGI"))
    assert "CRC-32" in refusal(path)


@pytest.fixture
def compressed_bomb(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy(header(shape="(5000000,)"), bytes(20_000_000)))
    return path


@pytest.fixture
def long_directory(path: Path) -> Path:
    write_entries(path, {"x.npy": npy(header(), bytes(8))})
    entries, _, end = path.read_bytes().partition(CENTRAL_SIGNATURE)
    end = end[end.index(b"PK\x05\x06") :]
    many = (CENTRAL_SIGNATURE + bytes(42)) * 200_000
    size = struct.pack("<I", len(many))
    path.write_bytes(entries + many + end[:12] + size + end[16:])
    return path


@pytest.mark.usefixtures("little_memory")
def test_a_directory_that_is_far_too_long_is_refused_unread(long_directory: Path) -> None:
    tracemalloc.reset_peak()
    assert refusal(long_directory).endswith("damaged: its directory has more than 262144 bytes")


@pytest.mark.usefixtures("little_memory")
def test_compressed_bomb_is_refused_unread(compressed_bomb: Path) -> None:
    tracemalloc.reset_peak()
    assert refusal(compressed_bomb) == (
        "entry 'x.npy': expected it uncompressed; "
        "write it with numpy.savez, not numpy.savez_compressed"
    )


@pytest.mark.usefixtures("little_memory")
def test_size_that_the_file_does_not_have_is_refused_unread(path: Path) -> None:
    write_entries(path, {"x.npy": npy(header(), bytes(8))})
    size = struct.pack("<I", GIBIBYTE)
    patch(path, CENTRAL_SIZE, size)
    patch(path, CENTRAL_COMPRESSED_SIZE, size)
    assert refusal(path) == (
        f"the entries declare {GIBIBYTE} bytes, more than the {path.stat().st_size} of the file"
    )


@pytest.mark.usefixtures("little_memory")
def test_entries_that_share_their_bytes_are_refused_unread(path: Path) -> None:
    # Ten names in the directory for the bytes of one entry: a bomb that needs no compression.
    content = npy(header("'|u1'", shape="(400000,)"), bytes(400_000))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", content)
        (shared,) = archive.filelist
        for number in range(9):
            twin = zipfile.ZipInfo(f"{number}.npy")
            twin.CRC, twin.file_size, twin.header_offset = shared.CRC, shared.file_size, 0
            twin.compress_size = shared.compress_size
            archive.filelist.append(twin)
    tracemalloc.reset_peak()
    assert refusal(path).startswith(f"the entries declare {10 * len(content)} bytes")


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    ("descr", "shape", "declared_bytes"),
    [
        ("'<f4'", f"({2**40},)", 2**42),
        ("'<f4'", f"({2**40}, {2**40})", 2**82),
        ("'<U500000000'", "()", 2_000_000_000),
        ("('<f4', (20000, 20000))", "()", 1_600_000_000),
    ],
    ids=["long", "over 64 bits", "long text", "nested"],
)
def test_shape_that_the_entry_does_not_have_is_refused_unread(
    path: Path, descr: str, shape: str, declared_bytes: int
) -> None:
    write_entries(path, {"x.npy": npy(header(descr, shape), bytes(8))})
    assert f"expected {declared_bytes} bytes" in refusal(path)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_arrays_are_the_mapped_file_and_outlive_its_replacement(path: Path) -> None:
    first = np.arange(100_000, dtype=np.float32)
    with path.open("wb") as file:
        write_arrays(file, {"W1": first})
    found = read_arrays(path)["W1"]
    address = found.ctypes.data
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    ours = [line[0].split("-") for line in maps if line[-1] == str(path)]
    assert any(int(start, 16) <= address < int(end, 16) for start, end in ours)
    path.unlink()
    with path.open("wb") as file:
        write_arrays(file, {"W1": -first})
    np.testing.assert_array_equal(found, first)


def test_an_array_that_stands_at_an_odd_place_is_read_as_well(path: Path) -> None:
    numbers = np.arange(7, dtype=np.float32)
    with path.open("wb") as file:
        write_arrays(file, {"a": numbers, "an odd": numbers, "name": numbers})
    for found in read_arrays(path).values():
        np.testing.assert_array_equal(found, numbers)
        assert found.flags.aligned
