"""Inputs and folders of parts in object stores: as local ones, but a store may be away."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from mlpserve.client.predict.batches import Batch, Failure, Wanted, read_batches
from mlpserve.client.predict.folders import StoreFolder, result_folder
from mlpserve.client.predict.inputs import Inputs
from mlpserve.client.predict.pictures import Look
from mlpserve.datasets import DatasetError
from mlpserve.model.errors import SyncError
from s3_server import S3Server, own_s3

__all__ = ["own_s3"]  # a fixture

IMAGES = np.random.default_rng(7).integers(0, 256, (2500, 2, 3), np.uint8)
WANTED = Wanted((2, 3), ("cat", "dog", "bird"))


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """Return a store in this process, with an array and three pictures."""
    store = fsspec.filesystem("memory")
    store.pipe_file("/bucket/scans/notes.txt", b"none of our business")
    with store.open("/bucket/a.npy", "wb") as file:
        np.save(file, IMAGES[:50])
    for number in (2, 10, 1):
        with store.open(f"/bucket/scans/{number}.png", "wb") as file:
            Image.fromarray(IMAGES[number]).save(file, "PNG")
    yield store
    store.rm("/bucket", recursive=True)


def read(*arguments: str) -> list[tuple[str, int, list[list[int]]] | str]:
    found: list[tuple[str, int, list[list[int]]] | str] = []
    with Inputs(Look()) as inputs:
        for item in read_batches(inputs.sources(arguments), WANTED):
            if isinstance(item, Failure):
                found.append(item.message)
                continue
            assert isinstance(item, Batch)
            names = [source.name for source in item.sources]
            found += list(zip(names, item.indices, item.images.tolist(), strict=True))
    return found


@pytest.mark.usefixtures("memory")
def test_files_folders_and_patterns_of_a_store_are_read_as_local_ones_are() -> None:
    array = [("memory://bucket/a.npy", row, IMAGES[row].tolist()) for row in range(50)]
    pictures = [
        (f"memory:///bucket/scans/{number}.png", 0, IMAGES[number].tolist())
        for number in (1, 2, 10)
    ]
    assert read("memory://bucket/a.npy") == array
    assert read("memory://bucket/scans") == pictures
    assert read("memory://bucket/scans/1*.png", "memory://bucket/a.npy") == [
        pictures[0],
        pictures[2],
        *array,
    ]
    assert read("memory://bucket/none.npy") == [
        "memory://bucket/none.npy: is not there, or has changed meanwhile"
    ]
    for url in ("memory://bucket/*.csv", "memory://none/*"):
        with pytest.raises(DatasetError, match=r"no file fits this pattern"):
            read(url)


def test_a_file_that_changes_after_it_was_listed_fails(memory: fsspec.AbstractFileSystem) -> None:
    with Inputs(Look()) as inputs:
        sources = inputs.sources(["memory://bucket/a.npy"])
        memory.pipe_file("/bucket/a.npy", b"another")
        (failure,) = read_batches(sources, WANTED)
    assert isinstance(failure, Failure)
    assert failure.message == "memory://bucket/a.npy: is not there, or has changed meanwhile"


@pytest.mark.usefixtures("memory")
def test_a_folder_in_a_store_is_a_folder() -> None:
    folder = result_folder("memory://bucket/answers/")
    assert isinstance(folder, StoreFolder)
    folder.make()
    assert folder.names() == set()
    folder.write("a", b"one")
    folder.write("b", b"two")
    folder.write("a", b"three")
    assert folder.names() == {"a", "b"}
    with folder.open("a") as file:
        assert file.read() == b"three"
    folder.delete(["a"])
    assert folder.names() == {"b"}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nowhere://bucket/a.npy", "expected a URL that fsspec knows, got nowhere://"),
        ("s3://key:secret@bucket/a.npy", "got credentials before it"),
    ],
)
def test_a_url_that_cannot_work_is_refused(url: str, message: str) -> None:
    for refused in (lambda: read(url), lambda: result_folder(url)):
        with pytest.raises(SyncError, match=message) as caught:
            refused()
        assert "secret" not in str(caught.value)


@pytest.mark.exhaustive
def test_a_store_that_goes_away_ends_the_job_and_nothing_is_lost(
    own_s3: S3Server, tmp_path: Path, publish: Callable[..., None], models: Path
) -> None:
    publish("tiny", versions=1)
    store = fsspec.filesystem("s3")
    names = [f"{number}.npy" for number in range(4)]
    for name in names:
        np.save(tmp_path / name, IMAGES)
        store.put_file(str(tmp_path / name), f"bucket/in/{name}")
    program = [sys.executable, "-m", "mlpserve.client", "--models", str(models)]

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*program, *arguments], capture_output=True, text=True, timeout=240, check=False
        )

    job = ["s3://bucket/in/*.npy", "--output"]
    local = run(*job, f"{tmp_path}/out/")
    stored = run(*job, "s3://bucket/out/")
    assert (local.returncode, stored.returncode) == (0, 0), local.stderr + stored.stderr
    assert "s3://bucket/out/: 10,000 rows by tiny version 1" in stored.stderr
    expected = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    found = {name.rpartition("/")[2]: store.cat(name) for name in store.find("bucket/out")}
    assert found == expected
    own_s3.stop()
    away = run(*job, f"{tmp_path}/out/", "--resume")
    assert away.returncode == 1
    assert re.search(r"s3://bucket/in/\*\.npy: cannot be listed: ", away.stderr), away.stderr
    assert "Traceback" not in away.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == expected
