"""``mlpserve-models compare`` as its users run it, but in the process of the test."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contenders import model_of
from html_page import Page
from mlpserve.model.__main__ import main
from mlpserve.model.labels import set_label
from mlpserve.model.versions import publish
from mlpserve.model.weights import Model
from mlpserve.trainer.statistics import mcnemar_p_value, wilson_interval

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def models(tmp_path: Path, model: Model) -> Path:
    """Return a models folder with two versions of ``tiny``, and others that they are not like."""
    folder = tmp_path / "models"
    training = model.metadata.training
    for seed in (1, 2):
        publish(folder, model_of(training, shape=(4, 6), class_labels="012", seed=seed))
    for name, options in {
        "other-classes": {"shape": (4, 6), "class_labels": "abc"},
        "other-shape": {"shape": (3, 5), "class_labels": "012"},
    }.items():
        made = model_of(training, **options)  # type: ignore[arg-type] # of the one or the other
        publish(folder, Model(made.network, replace(made.metadata, name=name)))
    return folder


@pytest.fixture
def run(models: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command, and returns its exit code and what it said."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main(["--models", str(models), "compare", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def test_json_has_the_figures_of_a_computation_by_hand(run: Run, models: Path, data: Path) -> None:
    code, output, errors = run("tiny:1", "tiny:2", "--data", data, "--json")
    assert (code, errors) == (0, "")
    found = json.loads(output)
    with np.load(data) as file:
        images, truth = file["x_test"].reshape(100, 24) / 255, file["y_test"]
    said = []
    for version in (1, 2):
        with np.load(models / "tiny" / str(version) / "weights.npz") as file:
            hidden = np.tanh(images @ file["W1"] + file["b1"])
            said.append((hidden @ file["W2"] + file["b2"]).argmax(axis=1))
    right = [each == truth for each in said]
    assert [each["accuracy"] for each in found["versions"]] == [each.mean() for each in right]
    only = [int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())]
    assert [found["only_first_right"], found["only_second_right"]] == only
    assert found["both_right"] == (right[0] & right[1]).sum()
    assert found["both_wrong"] == (~right[0] & ~right[1]).sum()
    assert found["different_answers"] == (said[0] != said[1]).sum()
    assert found["mcnemar_p_value"] == mcnemar_p_value(*only)
    assert found["images"] == 100
    for version, each in enumerate(found["versions"], start=1):
        weights = models / "tiny" / str(version) / "weights.npz"
        assert (each["model"], each["version"]) == ("tiny", version)
        assert tuple(each["accuracy_interval"]) == wilson_interval(each["accuracy"], 100)
        assert each["file_bytes"] == weights.stat().st_size
        assert each["parameters"] == 24 * 5 + 5 + 5 * 3 + 3
        assert all(speed > 0 for speed in each["images_per_s"].values())
    for index, each in enumerate(found["classes"]):
        assert each["label"] == str(index)
        assert each["recalls"] == [part[truth == index].mean() for part in right]


def test_summary_is_short_and_the_page_has_the_rest(
    run: Run, models: Path, data: Path, tmp_path: Path
) -> None:
    set_label(models, "tiny", "stable", 1)
    page = tmp_path / "page.html"
    code, output, errors = run(
        "tiny:stable", models / "tiny" / "2", "--data", data, "--output", page
    )
    assert (code, errors) == (0, "")
    lines = output.splitlines()
    assert len(lines) <= 16
    assert lines[0] == f"100 test images of {data}"
    assert lines[1].split() == ["tiny:1", "tiny:2", "difference"]
    assert "McNemar's exact test: p" in output
    assert lines[-1].endswith(f"; see {page}")
    assert Page(page.read_text()).headings[0] == "tiny:2 compared to tiny:1"
    code, output, _ = run("tiny", "tiny:1", "--data", data)
    assert code == 0
    assert output.splitlines()[1].split() == ["tiny:2", "tiny:1", "difference"]
    assert "--output FILE writes a page" in output


def test_file_that_is_there_is_replaced_only_by_force(run: Run, data: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("dear to somebody")
    command = ("tiny:1", "tiny:2", "--data", data, "--output", page)
    code, output, errors = run(*command)
    assert (code, output) == (1, "")
    assert errors == f"mlpserve-models: {page}: is there already; replace it with --force\n"
    assert page.read_text() == "dear to somebody"
    assert run(*command, "--force")[0] == 0
    assert page.read_text().startswith("<!doctype html>")


@pytest.fixture
def odd_data(tmp_path: Path) -> Path:
    """Return a folder of data that cannot be used."""
    images = np.zeros((20, 4, 6), np.uint8)
    np.savez(tmp_path / "unlabelled.npz", images=images)
    np.savez(tmp_path / "letters.npz", images=images, labels=np.array([*"ab"] * 10))
    np.savez(tmp_path / "more.npz", images=images, labels=np.arange(20) % 5)
    np.savez(tmp_path / "single.npz", images=images[:1], labels=np.zeros(1, np.int64))
    np.savez(tmp_path / "small.npz", images=images[:, :2], labels=np.arange(20) % 3)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            "tiny:1 tiny:1 --data {data}",
            "expected two versions, but 'tiny:1' and 'tiny:1' are",
        ),
        ("tiny:2 tiny --data {data}", "expected two versions, but 'tiny:2' and 'tiny' are both "),
        ("tiny:1 tiny:9 --data {data}", "{models}/tiny: has no version 9; it has 2, 1"),
        ("tiny:1 tiny/9 --data {data}", "{models}/tiny: has no version 9; it has 2, 1"),
        ("tiny:1 none --data {data}", "{models}: has no model 'none'; it has other-classes, "),
        (
            "tiny:1 other-classes --data {data}",
            "classes: expected two versions that tell apart the same ones, but only tiny:1 knows "
            "'0', '1', '2', only other-classes:1 knows 'a', 'b', 'c'",
        ),
        (
            "tiny:1 other-shape --data {data}",
            "images: expected two versions that take the same ones, but tiny:1 takes 4 x 6 values, "
            "other-shape:1 3 x 5",
        ),
        ("tiny:1 tiny:2 --data {odd}/unlabelled.npz", "{odd}/unlabelled.npz: "),
        ("tiny:1 tiny:2 --data {odd}/letters.npz", "{odd}/letters.npz: labels: expected one of 0"),
        ("tiny:1 tiny:2 --data {odd}/more.npz", "{odd}/more.npz: labels: expected the 3 classes"),
        ("tiny:1 tiny:2 --data {odd}/single.npz", "{odd}/single.npz: expected two images of a "),
        ("tiny:1 tiny:2 --data {odd}/small.npz", "{odd}/small.npz: "),
        ("tiny:1 tiny:2 --data {odd}/nothing", "data: expected auto, mnist, drawn, "),
        ("tiny:1 tiny:2 --data {data} --output {odd}", "{odd}: expected a file to write, got a "),
        (
            "tiny:1 tiny:2 --data {data} --output {odd}/none/c.html",
            "{odd}/none/c.html: expected a folder that exists, but {odd}/none is none",
        ),
        ("{data} tiny:2 --data {data}", "{data}: "),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_sentence(
    run: Run, models: Path, data: Path, odd_data: Path, *, arguments: str, sentence: str
) -> None:
    places = {"models": models, "data": data, "odd": odd_data}
    code, output, errors = run(*arguments.format(**places).split())
    assert (code, output) == (1, "")
    assert errors.startswith(f"mlpserve-models: {sentence.format(**places)}")
    assert errors.count("\n") == 1


def test_version_that_was_changed_is_refused(run: Run, models: Path, data: Path) -> None:
    with (models / "tiny" / "2" / "weights.npz").open("ab") as file:
        file.write(b"x")
    code, _, errors = run("tiny:1", "tiny:2", "--data", data)
    assert code == 1
    assert "2/weights.npz: expected the SHA-256" in errors


def test_versions_of_two_folders_are_told_apart(
    run: Run, models: Path, data: Path, tmp_path: Path, model: Model
) -> None:
    made = model_of(model.metadata.training, shape=(4, 6), class_labels="012", seed=3)
    publish(tmp_path / "more", made)
    code, output, _ = run("tiny:1", f"{tmp_path}/more/tiny:1", "--data", data)
    assert code == 0
    assert output.splitlines()[1].split()[:2] == [
        str(folder / "tiny" / "1" / "weights.npz") for folder in (models, tmp_path / "more")
    ]


def test_missing_extra_is_named_and_other_commands_need_none(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "mlpserve.trainer.comparison.command", raising=False)
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert main(["--models", str(models), "compare", "tiny:1", "tiny:2", "--data", "drawn"]) == 1
    assert capsys.readouterr().err == (
        "mlpserve-models: compare needs what trains: pip install 'mlpserve[trainer]'\n"
    )
    assert main(["--models", str(models), "list"]) == 0


def test_help_lists_the_command_and_the_command_its_flags(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for arguments, texts in (
        (["--help"], ["compare", "judge two versions by the same test images"]),
        (["compare", "--help"], ["--data", "--output", "--json", "--label-column", "NAME/VERSION"]),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        output = capsys.readouterr().out
        for text in texts:
            assert text in output
