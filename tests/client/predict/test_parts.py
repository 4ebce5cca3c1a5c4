"""Folders of parts: each row once, whatever was killed, was damaged, or has changed meanwhile."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mlpserve.client.predict.batches import Wanted
from mlpserve.client.predict.files import ImageFile
from mlpserve.client.predict.folders import LocalFolder
from mlpserve.client.predict.jobs import Job, predict_shard
from mlpserve.client.predict.local import LocalModel, read_weights
from mlpserve.client.predict.outputs import Form
from mlpserve.client.predict.parts import MANIFEST_NAME, Parts
from mlpserve.client.predict.shards import cut
from warm_parent import WarmParent

Done = subprocess.CompletedProcess[str]
Predict = Callable[..., Done]
IMAGES = np.random.default_rng(7).integers(0, 256, (2500, 2, 3), np.uint8)


@pytest.fixture
def predict(
    warm_client: WarmParent, tmp_path: Path, publish: Callable[..., None], models: Path
) -> Predict:
    """Return a function that runs the command with the tiny model, a thousand rows a part."""
    publish("tiny", versions=1)

    def run(*arguments: object) -> Done:
        command = [sys.executable, "-m", "mlpserve.client", "--models", str(models)]
        rows = ["--rows-per-part", "1024"]
        return warm_client.run(
            [*command, *rows, *map(str, arguments)], timeout_s=60, folder=tmp_path
        )

    return run


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    """Return an array in three parts, pictures, and a table."""
    np.save(tmp_path / "a.npy", IMAGES)
    (tmp_path / "pictures").mkdir()
    for number, image in enumerate(IMAGES[:20]):
        Image.fromarray(image).save(tmp_path / "pictures" / f"{number}.png")
    header = ",".join(["label", *(f"pixel{number}" for number in range(6))])
    rows = "\n".join(
        ",".join(map(str, [number % 3, *image.reshape(-1)]))
        for number, image in enumerate(IMAGES[:9])
    )
    (tmp_path / "t.csv").write_text(f"{header}\n{rows}\n")
    return ["a.npy", "pictures", "t.csv"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for path in parts(folder) for row in pq.read_table(path).to_pylist()]


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / MANIFEST_NAME).read_bytes())
    return found


def check_refused(done: Done, message: str) -> None:
    assert done.returncode == 1
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.exhaustive
def test_a_folder_has_the_rows_of_a_file(
    predict: Predict, tmp_path: Path, inputs: list[str]
) -> None:
    done = predict(*inputs, "--output", "out/")
    assert done.returncode == 0, done.stderr
    assert predict(*inputs, "--output", "one.parquet").returncode == 0
    found = rows(tmp_path / "out")
    assert found == pq.read_table(tmp_path / "one.parquet").to_pylist()
    assert len(parts(tmp_path / "out")) == 6  # three of the array, two of pictures, the table
    said = manifest(tmp_path / "out")
    assert (said["rows"], said["labelled"], said["failures"]) == (2529, 9, [])
    assert [part["part"] for part in said["parts"]] == [
        path.name for path in parts(tmp_path / "out")
    ]
    assert sum(part["rows"] for part in said["parts"]) == len(found)
    assert "2,529 rows by tiny version 1" in done.stderr


def test_what_a_kill_leaves_is_resumed_and_no_finished_part_is_done_again(
    predict: Predict, tmp_path: Path, inputs: list[str]
) -> None:
    folder = tmp_path / "out"
    assert predict(*inputs, "--output", "out/").returncode == 0
    whole = contents(folder)
    (folder / MANIFEST_NAME).unlink()
    lost, torn, *kept = parts(folder)
    lost.unlink()
    torn.write_bytes(torn.read_bytes()[:100])
    (folder / ".unfinished-1234").write_bytes(b"half a par")
    before = [path.stat().st_ino for path in kept]
    check_refused(predict(*inputs, "--output", "out/"), "did not end; --resume goes on with it")
    assert predict(*inputs, "--output", "out/", "--resume").returncode == 0
    assert contents(folder) == whole
    assert [path.stat().st_ino for path in kept] == before
    done = predict(*inputs, "--output", "out/", "--resume")  # where nothing is left
    assert (done.returncode, contents(folder)) == (0, whole)


@pytest.mark.exhaustive
def test_a_shard_that_is_corrupt_is_named_and_done_once_it_is_mended(
    predict: Predict, tmp_path: Path, inputs: list[str]
) -> None:
    assert predict(*inputs, "--output", "whole/").returncode == 0
    array, picture = tmp_path / "a.npy", tmp_path / "pictures" / "3.png"
    good = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (array, picture)}
    for path in good:
        path.write_bytes(path.read_bytes()[:50])
    done = predict(*inputs, "--output", "out/")
    assert done.returncode == 3
    assert "a.npy: expected an .npy file" in done.stderr
    assert "pictures/3.png: expected a PNG or JPEG" in done.stderr
    assert "2 of 22 inputs could not be read" in done.stderr
    said = manifest(tmp_path / "out")
    assert said["rows"] == len(rows(tmp_path / "out")) == 28
    assert [name for name, _ in said["failures"]] == ["a.npy", "pictures/3.png"]
    check_refused(
        predict(*inputs, "--output", "strict/", "--strict"), "a.npy: expected an .npy file"
    )
    for path, (content, changed_ns) in good.items():
        path.write_bytes(content)
        os.utime(path, ns=(changed_ns, changed_ns))
    assert predict(*inputs, "--output", "out/", "--resume").returncode == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.exhaustive
def test_a_folder_that_is_there_is_replaced_only_when_that_is_said(
    predict: Predict, tmp_path: Path, inputs: list[str]
) -> None:
    folder = tmp_path / "out"
    assert predict("a.npy", "--output", "out/").returncode == 0
    before = contents(folder)
    check_refused(predict("a.npy", "--output", "out"), "is there already; --overwrite replaces it")
    assert contents(folder) == before
    assert predict("t.csv", "--output", "out", "--overwrite").returncode == 0
    assert len(rows(folder)) == 9
    (folder / "notes.txt").write_text("precious")
    before = contents(folder)
    check_refused(predict("a.npy", "--output", "out", "--overwrite"), "but 'notes.txt' is in it")
    check_refused(predict("a.npy", "--output", "none/out/"), "none/out: cannot be written: No such")
    assert contents(folder) == before


@pytest.mark.exhaustive
def test_parts_of_another_job_are_neither_lost_nor_mixed_in(
    predict: Predict, tmp_path: Path, inputs: list[str], publish: Callable[..., None]
) -> None:
    folder = tmp_path / "out"
    assert predict(*inputs, "--output", "out/").returncode == 0
    before = contents(folder)
    publish("tiny", versions=1)
    check_refused(
        predict(*inputs, "--output", "out/", "--resume"), "a run with another version, 1, not 2"
    )
    same = (*inputs, "--output", "out/", "--resume", "--version", 1)
    check_refused(predict(*same, "--invert"), "a run with another look")
    check_refused(
        predict("t.csv", *same[3:]), "6 parts are of other inputs, or of inputs that have"
    )
    os.utime(tmp_path / "a.npy", ns=(1, 1))
    check_refused(predict(*same), "3 parts are of other inputs, or of inputs that have changed")
    assert contents(folder) == before


@pytest.mark.exhaustive
def test_a_version_whose_weights_have_changed_is_another(
    predict: Predict, tmp_path: Path, inputs: list[str]
) -> None:
    assert predict(*inputs, "--output", "out/").returncode == 0
    run = tmp_path / "out" / "_run.json"
    run.write_text(re.sub('"weights": "[0-9a-f]+"', '"weights": "0123"', run.read_text()))
    check_refused(
        predict(*inputs, "--output", "out/", "--resume"), "another weights, 0123, not [0-9a-f]{64};"
    )


@pytest.fixture
def local_model(models: Path, predict: Predict) -> LocalModel:
    """Return the published model, as a worker has it."""
    del predict  # it publishes
    options = type("Options", (), {"model": "", "version": 0, "label": ""})()
    return LocalModel(read_weights(models, options), ood_scores=False)


@pytest.fixture
def job(local_model: LocalModel, tmp_path: Path) -> Job:
    """Return a job that writes into the folder ``out``."""
    (tmp_path / "out").mkdir()
    form = Form(local_model.class_labels)
    return Job(
        Wanted(local_model.input_shape, local_model.class_labels),
        Parts(LocalFolder(tmp_path / "out"), form),
    )


def test_an_input_that_changes_during_a_job_fails_and_is_not_mixed(
    tmp_path: Path, inputs: list[str], local_model: LocalModel, job: Job
) -> None:
    path = tmp_path / inputs[0]
    first, second, _ = cut([ImageFile(path, "a.npy", "a.npy")], 1024)
    assert predict_shard(first, local_model, job).rows == 1024
    np.save(path, IMAGES[::-1])
    tally = predict_shard(second, local_model, job)
    assert (tally.rows, len(rows(tmp_path / "out"))) == (0, 1024)
    assert tally.failures == [
        ("a.npy", "a.npy: has changed since the job began; --resume reads it anew")
    ]
    path.unlink()
    tally = predict_shard(second, local_model, job)
    assert tally.failures == [("a.npy", "a.npy: cannot be read: No such file or directory")]


def test_an_input_that_changes_and_changes_back_while_it_is_read_holds_nobody_up(
    tmp_path: Path,
    inputs: list[str],
    local_model: LocalModel,
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / inputs[1]
    (shard,) = cut([ImageFile(folder / f"{number}.png", f"{number}.png", "") for number in (0, 1)])
    changing, predict = folder / "0.png", local_model.predict
    now = changing.stat().st_mtime_ns
    times = cycle((now + 1, now))

    def predict_and_change(images: Any) -> Any:
        time = next(times)
        os.utime(changing, ns=(time, time))
        return predict(images)

    monkeypatch.setattr(local_model, "predict", predict_and_change)
    tally = predict_shard(shard, local_model, job)
    assert tally.rows == 1
    assert [name for name, _ in tally.failures] == ["0.png"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--output", "out/", "--format", "csv"], "a folder has parts in parquet"),
        (["--output", "out.csv", "--engine", "ray"], "--engine ray writes a folder of parts"),
        (
            ["--engine", "ray"],
            "--engine ray writes a folder of parts: --output FOLDER/, not 'table'",
        ),
        (["--output", "out/", "--rows-per-part", "3"], "expected at least 1024, got 3"),
        (
            ["--output", "out/", "--engine", "ray", "--ray-workers", "0"],
            "expected at least 1, got 0",
        ),
        (["--output", "out/", "--engine", "ray", "--ray-cpus", "nan"], "above 0, got nan"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(
    predict: Predict, flags: list[str], message: str
) -> None:
    done = predict("a.npy", *flags)
    assert done.returncode == 2
    assert message in done.stderr
