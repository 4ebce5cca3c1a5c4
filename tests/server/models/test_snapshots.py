import hashlib
import io
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.server.models.loader import SnapshotFile
from mlpserve.server.models.quarantine import LoadError
from mlpserve.server.models.snapshots import Snapshot, take_snapshot

MAX_BYTES = 1 << 22


def taken(path: Path) -> Snapshot:
    snapshot = take_snapshot(path, max_bytes=MAX_BYTES)
    assert isinstance(snapshot, Snapshot)
    return snapshot


def content(snapshot: Snapshot) -> bytes:
    return io.BufferedReader(SnapshotFile(snapshot.descriptor)).read()


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3_000_000])
def test_a_snapshot_is_the_file_as_it_was(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    before = os.urandom(size)
    path.write_bytes(before)
    snapshot = taken(path)
    path.write_bytes(b"something else")
    os.truncate(path, 0)
    path.unlink()
    assert content(snapshot) == before
    assert snapshot.digest == hashlib.sha256(before).hexdigest()
    assert snapshot.size_bytes == size


def test_a_snapshot_is_made_where_the_system_has_no_files_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = tmp_path / "file"
    path.write_bytes(b"content")
    snapshot = taken(path)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert content(snapshot) == b"content"


def test_many_read_one_snapshot_at_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(1_000_000))
    snapshot = taken(path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(content, [snapshot] * 32))
    assert set(found) == {path.read_bytes()}


def test_a_snapshot_is_given_back_when_nobody_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    descriptor = taken(path).descriptor
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(10 << 30)  # sparse: it takes no disk, but would take 10 GiB of memory
    error = take_snapshot(path, max_bytes=MAX_BYTES)
    assert isinstance(error, LoadError)
    assert f"at most {MAX_BYTES} bytes, got {10 << 30}" in error.reason
    assert not error.is_transient


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(link)
    link_error = "link cannot be read: Too many levels of symbolic links"
    special = LoadError("expected a file, got a folder, a pipe or a device")
    for path, error in (
        (pipe, special),
        (tmp_path, special),
        (Path("/dev/zero"), special),
        (tmp_path / "none", LoadError("none is missing")),
        (link, LoadError(link_error, is_transient=True)),
    ):
        assert take_snapshot(path, max_bytes=MAX_BYTES) == error


@given(st.binary(max_size=40), st.lists(st.tuples(st.integers(0, 2), st.integers(0, 50))))
def test_a_snapshot_is_read_as_any_file_is(data: bytes, moves: list[tuple[int, int]]) -> None:
    descriptor = os.memfd_create("test")
    try:
        os.write(descriptor, data)
        ours, known = SnapshotFile(descriptor), io.BytesIO(data)
        for whence, offset in moves:
            assert ours.seek(offset, whence) == known.seek(offset, whence)
            assert ours.read(7) == known.read(7)
            assert ours.tell() == known.tell()
    finally:
        os.close(descriptor)


def test_no_position_is_before_the_beginning(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    snapshot = taken(path)
    with pytest.raises(OSError, match="Invalid argument"):
        SnapshotFile(snapshot.descriptor).seek(-8, os.SEEK_END)
