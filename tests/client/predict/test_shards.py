"""Shards: each image is in one of them, and their names tell what they are of."""

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.client.predict.batches import Batch, Wanted, read_batches
from mlpserve.client.predict.files import ImageFile
from mlpserve.client.predict.shards import Shard, cut
from mlpserve.datasets.table_files import open_table_file

WANTED = Wanted((4,), ("cat", "dog"))


def file(path: Path) -> ImageFile:
    return ImageFile(path, path.name, path.name)


def save_parquet(path: Path, images: Sequence[Sequence[int]], *, group_rows: int) -> None:
    table = pa.table({"image": pa.array(images, pa.list_(pa.uint8()))})
    pq.write_table(table, path, row_group_size=group_rows)


@pytest.fixture
def images() -> list[list[int]]:
    found: list[list[int]] = np.random.default_rng(1).integers(0, 256, (50, 4), np.uint8).tolist()
    return found


@pytest.fixture(params=["npy", "parquet", "csv"])
def path(request: pytest.FixtureRequest, tmp_path: Path, images: list[list[int]]) -> Path:
    path = tmp_path / f"images.{request.param}"
    if request.param == "npy":
        np.save(path, np.array(images, np.uint8))
    elif request.param == "parquet":
        save_parquet(path, images, group_rows=7)
    else:
        path.write_text("a,b,c,d\n" + "".join(",".join(map(str, row)) + "\n" for row in images))
    return path


def read(shards: Sequence[Shard]) -> list[tuple[str, int, list[int]]]:
    found = []
    for shard in shards:
        for batch in read_batches(shard.sources, WANTED, max_rows=5):
            assert isinstance(batch, Batch)
            names = [source.name for source in batch.sources]
            found += list(zip(names, batch.indices, batch.images.tolist(), strict=True))
    return found


@pytest.mark.parametrize("max_rows", [1, 7, 20, 1000])
def test_each_row_is_in_one_shard_in_the_order_of_the_file(
    path: Path, images: list[list[int]], max_rows: int
) -> None:
    shards = cut([file(path)], max_rows)
    assert read(shards) == [(path.name, row, image) for row, image in enumerate(images)]
    assert sum(shard.sources[0].count() or 50 for shard in shards) == 50
    expected = {
        "npy": -(-50 // max_rows),
        "parquet": {1: 8, 7: 8, 20: 4}.get(max_rows, 1),
        "csv": 1,
    }
    assert len(shards) == expected[path.suffix[1:]]


@given(groups=st.lists(st.integers(1, 9), min_size=1, max_size=8), max_rows=st.integers(1, 30))
def test_row_groups_of_parquet_stay_whole(
    tmp_path_factory: pytest.TempPathFactory, groups: list[int], max_rows: int
) -> None:
    path = tmp_path_factory.mktemp("groups") / "t.parquet"
    table = pa.table({"image": pa.array([[0]] * max(groups), pa.list_(pa.uint8()))})
    with pq.ParquetWriter(path, table.schema) as writer:
        for count in groups:
            writer.write_table(table.slice(0, count))
    ranges = open_table_file(path).parts(max_rows)
    ends = np.cumsum(groups).tolist()
    assert [row for part in ranges for row in part] == list(range(ends[-1]))
    assert all(part.stop in ends for part in ranges)
    assert all(len(part) <= max_rows or len(part) in groups for part in ranges)
    assert all(len(a) + len(b) > max_rows for a, b in pairwise(ranges))


def test_pictures_share_shards_but_not_with_files(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 4), np.uint8))
    names = [*(f"{number}.png" for number in range(5)), "a.npy", "z.png"]
    shards = cut([file(tmp_path / name) for name in names], max_rows=128)
    found = [(shard.number, [source.name for source in shard.sources]) for shard in shards]
    assert found == [
        (0, ["0.png", "1.png"]),
        (2, ["2.png", "3.png"]),
        (4, ["4.png"]),
        (5, ["a.npy"]),
        (6, ["z.png"]),
    ]


def test_names_sort_as_the_inputs_are_ordered(tmp_path: Path) -> None:
    for name in ("b.npy", "a.npy"):
        np.save(tmp_path / name, np.zeros((12, 4), np.uint8))
    names = [shard.name for shard in cut([file(tmp_path / n) for n in ("b.npy", "a.npy")], 1)]
    assert len(set(names)) == 24
    assert names == sorted(names)


def test_a_name_is_of_the_source_its_rows_and_its_state(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((12, 4), np.uint8))
    before = [shard.name for shard in cut([file(path)], 6)]
    assert [shard.name for shard in cut([file(path)], 6)] == before
    assert not {shard.name for shard in cut([file(path)], 4)} & set(before)
    shard = cut([file(path)], 6)[0]
    os.utime(path, ns=(1, 1))
    assert not {shard.name for shard in cut([file(path)], 6)} & set(before)
    assert [source.name for source in shard.changed()] == ["a.npy"]


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY, it says", b"PAR1"])
def test_what_cannot_be_read_is_a_shard_that_fails(tmp_path: Path, content: bytes) -> None:
    for name in ("a.npy", "a.parquet"):
        (tmp_path / name).write_bytes(content)
        assert len(cut([file(tmp_path / name)])) == 1
    assert len(cut([file(tmp_path / "missing.npy")])) == 1
