import fcntl
import os
import resource
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.datasets import DatasetError, cache
from mlpserve.datasets.cache import Contents, TableCache
from mlpserve.datasets.disk_images import DiskImages

Array = npt.NDArray[Any]
ROWS = 100
LABELS = np.arange(ROWS) % 7


class Table:
    """A table of bytes in a file, which counts how often it is read."""

    def __init__(self, path: Path, chunks: list[Array] | None = None) -> None:
        self.path = path
        self.times_read = 0
        greys = np.random.default_rng(1).integers(0, 256, (ROWS, 12), np.uint8)
        self.chunks = chunks or np.split(greys, 10)
        path.write_bytes(b"a table")

    def contents(
        self, options: Mapping[str, Any] | None = None, folder: Path | None = None
    ) -> Contents:
        store = TableCache([self.path], options or {}, folder=folder)
        return store.contents(self._images, self._rest, lambda: 0.5)

    def _images(self) -> Iterator[Array]:
        self.times_read += 1
        yield from self.chunks

    @staticmethod
    def _rest() -> Mapping[str, Array]:
        return {"codes": LABELS, "names": np.array(["zero", "one"])}


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SMALL_BYTES", 500)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    (tmp_path / "data").mkdir()
    return Table(tmp_path / "data" / "train.csv")


def assert_whole(found: Contents, table: Table) -> None:
    np.testing.assert_array_equal(found.images[:], np.concatenate(table.chunks), strict=True)
    np.testing.assert_array_equal(found.rest["codes"], LABELS)
    assert found.rest["names"].tolist() == ["zero", "one"]
    assert set(found.rest) == {"codes", "names"}


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_large_table_is_read_once_and_then_taken_from_the_cache_beside_it(table: Table) -> None:
    for _ in range(3):
        found = table.contents()
        assert isinstance(found.images, DiskImages)
        assert_whole(found, table)
    assert table.times_read == 1
    assert files(table.path.parent) == ["train.csv", "train.csv.cache"]


def test_the_cache_is_an_npy_file_that_numpy_reads(table: Table) -> None:
    table.contents()
    images = np.load(table.path.with_name("train.csv.cache"), mmap_mode="r")
    np.testing.assert_array_equal(images, np.concatenate(table.chunks))


def test_a_table_that_fits_into_memory_leaves_no_file(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "SMALL_BYTES", ROWS * 12)
    found = table.contents()
    assert type(found.images) is np.ndarray
    assert_whole(found, table)
    assert files(table.path.parent) == ["train.csv"]


def test_another_time_size_or_option_makes_the_cache_anew(table: Table) -> None:
    table.contents({"shape": [3, 4]})
    table.contents({"shape": [3, 4]})
    assert table.times_read == 1
    table.contents({"shape": [4, 3]})
    assert table.times_read == 2
    table.path.write_bytes(b"a longer table")
    table.contents({"shape": [4, 3]})
    assert table.times_read == 3
    os.utime(table.path, ns=(0, 1))
    assert_whole(table.contents({"shape": [4, 3]}), table)
    assert table.times_read == 4
    assert files(table.path.parent) == ["train.csv", "train.csv.cache"]


def test_a_cache_that_is_in_use_stays_readable_while_another_takes_its_place(table: Table) -> None:
    before = table.contents()
    os.utime(table.path, ns=(0, 1))
    old, table.chunks = table.chunks, [np.zeros((ROWS, 12), np.uint8)]
    table.contents()
    np.testing.assert_array_equal(before.images[:], np.concatenate(old))


@pytest.mark.parametrize("damage", ["cut", "emptied", "other", "folder"])
def test_a_damaged_cache_is_made_anew(table: Table, damage: str) -> None:
    table.contents()
    place = table.path.with_name("train.csv.cache")
    whole = place.read_bytes()
    if damage == "folder":
        place.unlink()
        place.mkdir()
        with pytest.raises(DatasetError, match=r"cannot be written there: Is a directory; name a"):
            table.contents()
        return
    place.write_bytes(
        {"cut": whole[: len(whole) // 2], "emptied": b"", "other": b"x" * 999}[damage]
    )
    assert_whole(table.contents(), table)
    assert_whole(table.contents(), table)
    assert table.times_read == 2


def test_values_that_come_to_need_more_room_widen_those_before(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_WIDENED_VALUES", 12 * 7)
    rng = np.random.default_rng(2)
    kinds = [np.uint8] * 6 + [np.int32] * 2 + [np.float32] * 2
    table.chunks = [rng.integers(0, 256, (10, 12)).astype(kind) for kind in kinds]
    expected = np.concatenate(table.chunks).astype(np.float32)
    found = table.contents()
    np.testing.assert_array_equal(found.images[:], expected, strict=True)
    monkeypatch.setattr(cache, "SMALL_BYTES", 10**6)
    os.utime(table.path, ns=(0, 1))
    np.testing.assert_array_equal(table.contents().images, expected, strict=True)


def test_the_cache_may_be_in_a_folder_of_its_own_for_files_of_one_name(
    table: Table, tmp_path: Path
) -> None:
    folder = tmp_path / "caches" / "ours"
    (tmp_path / "other").mkdir()
    other = Table(tmp_path / "other" / "train.csv", [np.ones((ROWS, 12), np.uint8)])
    for _ in range(2):
        assert_whole(table.contents(folder=folder), table)
        assert_whole(other.contents(folder=folder), other)
    assert (table.times_read, other.times_read) == (1, 1)
    assert len(files(folder)) == 2
    assert files(table.path.parent) == ["train.csv"]


def test_a_full_disk_is_a_sentence_and_leaves_nothing(table: Table) -> None:
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (800, hard))
    try:
        with pytest.raises(DatasetError) as caught:
            table.contents()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert str(caught.value) == (
        f"{table.path}.cache: the images of train.csv, which are too large for memory, cannot be "
        "written there: File too large; name a folder with room for them with --cache-dir"
    )
    assert files(table.path.parent) == ["train.csv"]


def test_a_folder_that_cannot_be_written_is_a_sentence(table: Table) -> None:
    with pytest.raises(DatasetError, match=r"there: Not a directory; .* with --cache-dir$"):
        table.contents(folder=table.path / "caches")


def test_a_table_that_turns_out_damaged_leaves_no_cache(table: Table) -> None:
    def images() -> Iterator[Array]:
        yield from table.chunks[:9]
        raise DatasetError("train.csv: row 91: expected a number")

    with pytest.raises(DatasetError, match="row 91"):
        TableCache([table.path], {}).contents(images, dict, lambda: 0.5)
    assert files(table.path.parent) == ["train.csv"]


def test_what_a_killed_run_left_is_removed_and_what_another_writes_is_not(table: Table) -> None:
    left, written = (table.path.with_name(f".train.csv.cache-{x}.unfinished") for x in "ab")
    left.write_bytes(b"left")
    with written.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        table.contents()
        assert files(table.path.parent) == [written.name, "train.csv", "train.csv.cache"]


def test_a_table_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"absent\.csv: cannot be read: No such file"):
        TableCache([tmp_path / "absent.csv"], {})
