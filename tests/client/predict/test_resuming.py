"""Result files: whole or not there, and resumed with every row exactly once."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from mlpserve.client import Predictions
from mlpserve.client.predict.batches import Batch, Failure, Position, Wanted, read_batches
from mlpserve.client.predict.files import ImageFile
from mlpserve.client.predict.outputs import Form
from mlpserve.client.predict.results import FILE_FORMS, FileResults
from mlpserve.client.predict.tally import ResultsError

CLASS_LABELS = ("cat", "dög")
FORM = Form(CLASS_LABELS)
RUN = {"input": "these", "model": "pets"}
NEVER_S = 1e9
every_form = pytest.mark.parametrize("kind", FILE_FORMS)


@dataclass(frozen=True)
class Inputs:
    """Two arrays with a file that is none between them."""

    folder: Path

    def batches(self, start: Position) -> Iterator[Batch | Failure]:
        sources = [self._file(name) for name in ("a.npy", "no.npy", "b.npy")]
        return read_batches(sources, Wanted((4,), CLASS_LABELS), start=start, max_rows=7)

    def _file(self, name: str) -> ImageFile:
        return ImageFile(self.folder / name, name, name)


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    rng = np.random.default_rng(1)
    for name, count in (("a.npy", 50), ("b.npy", 30)):
        np.save(tmp_path / name, rng.integers(0, 256, (count, 4), np.uint8))
    (tmp_path / "no.npy").write_bytes(b"\x93NUMPY, it says")
    return Inputs(tmp_path)


def predictions(images: npt.NDArray[Any]) -> Predictions:
    first = images[:, 0].astype(np.float32) / 255
    probabilities = np.stack([first, 1 - first], axis=1).astype(np.float32)
    return Predictions(probabilities.argmax(axis=1).astype(np.int32), probabilities, "pets", 1)


def go_on(results: FileResults, inputs: Inputs, *, batches: int = 10**9) -> bool:
    """Write some batches; return whether these were all."""
    for item in inputs.batches(results.tally.position):
        if batches == 0:
            return False
        batches -= 1
        if isinstance(item, Failure):
            results.fail(item)
        else:
            results.write(item, predictions(item.images))
    return True


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    header, *lines = path.read_text().splitlines()
    return [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]


@pytest.fixture(params=FILE_FORMS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"answers.{request.param}"


def results_of(path: Path, **options: Any) -> FileResults:
    return FileResults(path, path.suffix[1:], FORM, RUN, **options)


@pytest.fixture
def uninterrupted(path: Path, inputs: Inputs) -> list[dict[str, Any]]:
    """Return the rows of a run that nothing stops."""
    other = path.with_stem("whole")
    with results_of(other) as results:
        assert go_on(results, inputs)
        results.finish()
    return read(other)


def test_a_run_has_a_row_for_each_image_in_order(uninterrupted: list[dict[str, Any]]) -> None:
    found = [(row["source"], int(row["index"])) for row in uninterrupted]
    assert found == [("a.npy", n) for n in range(50)] + [("b.npy", n) for n in range(30)]


@pytest.mark.parametrize("every_s", [0, NEVER_S], ids=["saved-each-time", "never-saved"])
@pytest.mark.parametrize("batches", [0, 1, 7, 8, 9, 12])
def test_what_a_kill_leaves_is_resumed_with_every_row_exactly_once(
    path: Path,
    inputs: Inputs,
    uninterrupted: list[dict[str, Any]],
    batches: int,
    every_s: float,
) -> None:
    folder = path.with_name(f"{path.name}.partial")
    with results_of(path, every_s=every_s) as results:
        go_on(results, inputs, batches=batches)
        shutil.copytree(folder, folder.with_name("left"))  # as a kill leaves it
    shutil.rmtree(folder)
    folder.with_name("left").rename(folder)
    for rows in folder.glob("rows.*"):
        with rows.open("ab") as file:
            file.write(b"half a ro")  # and what was on its way to the disk
    with results_of(path, resume=True) as results:
        if every_s == 0 and batches > 9:
            assert [name for name, _ in results.tally.failures] == ["no.npy"]
        assert go_on(results, inputs)
        assert not path.exists()
        results.finish()
        assert results.tally.rows == 80
        assert [name for name, _ in results.tally.failures] == ["no.npy"]
    assert read(path) == uninterrupted
    assert not folder.exists()


def test_a_run_that_fails_is_kept_up_to_its_last_row(
    path: Path, inputs: Inputs, uninterrupted: list[dict[str, Any]]
) -> None:
    def interrupted() -> None:
        with results_of(path, every_s=NEVER_S) as results:
            go_on(results, inputs, batches=5)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not path.exists()
    with results_of(path, resume=True) as results:
        assert results.tally.rows == 35
        go_on(results, inputs)
        results.finish()
    assert read(path) == uninterrupted


def refusal(make: Callable[[], object]) -> str:
    with pytest.raises(ResultsError) as caught:
        make()
    return str(caught.value)


def test_a_file_that_is_there_is_replaced_only_when_that_is_said(
    path: Path, inputs: Inputs, uninterrupted: list[dict[str, Any]]
) -> None:
    path.write_text("precious")
    assert refusal(lambda: results_of(path)) == f"{path}: is there already; --overwrite replaces it"
    assert path.read_text() == "precious"
    with results_of(path, overwrite=True) as results:
        go_on(results, inputs)
        assert path.read_text() == "precious"  # until the new one is whole
        results.finish()
    assert read(path) == uninterrupted


def test_what_another_run_has_left_is_neither_lost_nor_mixed_in(path: Path, inputs: Inputs) -> None:
    with results_of(path) as results:
        go_on(results, inputs, batches=3)
        assert "another process is writing it" in refusal(lambda: results_of(path, resume=True))
    assert "--resume goes on with it, --overwrite begins anew" in refusal(lambda: results_of(path))
    other = {**RUN, "model": "plants"}
    assert "is left of a run with another model, pets, not plants" in refusal(
        lambda: FileResults(path, path.suffix[1:], FORM, other, resume=True)
    )
    with results_of(path, resume=True) as results:
        assert results.tally.rows == 21
    with results_of(path, overwrite=True) as results:
        assert results.tally.rows == 0


@every_form
def test_a_run_without_rows_has_a_file_without_rows(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"none.{kind}"
    with results_of(path) as results:
        results.finish()
    assert read(path) == []


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none" / "answers.csv"
    assert (
        refusal(lambda: results_of(path)) == f"{path}: cannot be written: No such file or directory"
    )


def test_a_full_disk_is_said_and_what_was_saved_is_resumed(
    path: Path,
    inputs: Inputs,
    uninterrupted: list[dict[str, Any]],
    file_size_limit: Callable[[int], Any],
) -> None:
    def limited() -> None:
        limit_bytes = 2000 if path.suffix == ".parquet" else 700
        with file_size_limit(limit_bytes), results_of(path, every_s=0) as results:
            go_on(results, inputs)
            results.finish()

    with pytest.raises(ResultsError, match="cannot be written: .*File too large"):
        limited()
    with results_of(path, resume=True) as results:
        go_on(results, inputs)
        results.finish()
    assert read(path) == uninterrupted


@pytest.mark.exhaustive
def test_a_command_that_is_killed_halfway_is_resumed_in_constant_memory(tmp_path: Path) -> None:
    program = Path(__file__).parents[3] / "benchmarks" / "predicting_ten_million.py"
    command = [sys.executable, str(program), "--rows", "600000", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("every row exactly once\n")
    peaks_mb = re.findall(r" s \| (\d+) MB \|", done.stdout)
    assert len(peaks_mb) == 3
    assert max(map(int, peaks_mb)) < 200  # the images are 470 MB
