"""The output of ``mlpserve-models``: ``list``, ``show`` and ``verify``."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from commands import Done, lines, refusal
from mlpserve.model.folder import weights_path
from mlpserve.model.labels import labels_path, set_label
from mlpserve.model.versions import publish
from mlpserve.model.weights import Model

Run = Callable[..., Done]


def digest(models: Path, version: int) -> str:
    return sha256(weights_path(models, "tiny", version).read_bytes()).hexdigest()


def test_show_tells_from_which_score_on_an_image_is_unlike_the_data(
    run: Run, models: Path, scored_model: Model
) -> None:
    publish(models, scored_model)
    assert scored_model.detector is not None
    threshold = scored_model.detector.threshold
    told = f"unlike its data      a score above {threshold:.3f}, as 25.00 % of the test images have"
    assert told in run("show", "tiny").stdout
    document = json.loads(run("show", "tiny", "--json").stdout)
    assert document["out_of_distribution"] == {"threshold": threshold, "test_share": 0.25}


def test_list_shows_all_versions_of_all_models_and_their_labels(
    run: Run, models: Path, model: Model, three: Path
) -> None:
    publish(models, Model(model.network, replace(model.metadata, name="another")))
    for label, version in (("stable", 1), ("canary", 3), ("beta", 3)):
        set_label(models, "tiny", label, version)
    other = sha256(weights_path(models, "another", 1).read_bytes()).hexdigest()
    assert lines(run("list")) == [
        "model    version  labels        test accuracy  data  trained (UTC)     digest",
        f"another  1        -             10.00 %        pets  2024-02-29 23:59  {other[:12]}",
        *(
            f"tiny     {number}        {labels:12}  10.00 %        pets  2024-02-29 23:59  "
            f"{digest(models, number)[:12]}"
            for number, labels in ((3, "beta, canary"), (2, "-"), (1, "stable"))
        ),
    ]


def test_list_says_what_is_wrong_with_a_version_and_with_labels(
    run: Run, models: Path, three: Path
) -> None:
    for version in (1, 2):
        set_label(models, "tiny", "stable", version)
    shutil.rmtree(three / "2")
    (three / "3" / "weights.npz").write_bytes(b"spoilt")
    (three / "1" / "weights.npz.sha256").unlink()
    problem = f"{three}/3/weights.npz: expected an .npz file, but it is damaged: File is not a zip "
    header, broken, good, labels = lines(run("list"))
    assert header.split("  ")[-1].strip() == "problem"
    assert broken.split()[:7] == ["tiny", "3", "-", "-", "-", "-", broken.split()[6]]
    assert problem in broken
    assert good.split() == ["tiny", "1", "-", "10.00", "%", "pets", "2024-02-29", "23:59", "-"]
    assert labels == f"{three}: label 'stable' means version 2, which was deleted"

    (found,) = json.loads(run("list", "--json").stdout)["models"]
    assert found["name"] == "tiny"
    assert found["labels"] == {"stable": {"version": 2, "history": [1]}}
    assert found["problems"] == [labels]
    assert [version["version"] for version in found["versions"]] == [3, 1]
    assert found["versions"][0]["problem"].startswith(problem)
    assert found["versions"][0]["test_accuracy"] is None
    assert found["versions"][1] == {
        "version": 1,
        "labels": [],
        "test_accuracy": 0.1,
        "data": "pets",
        "created_at": "2024-02-29T23:59:59.123456+00:00",
        "digest": None,
        "problem": None,
    }


def test_list_of_an_empty_folder_says_so(run: Run, models: Path) -> None:
    models.mkdir()
    assert lines(run("list")) == [f"{models}: no models; train one with mlpserve-train"]
    assert json.loads(run("list", "--json").stdout) == {"models": []}


def test_show_tells_all_of_the_version_that_is_named(run: Run, models: Path, three: Path) -> None:
    for version in (1, 2):
        set_label(models, "tiny", "stable", version)
    name, *facts = lines(run("show", "tiny:stable"))
    assert name == "tiny version 2"
    assert dict(fact.strip().split("  ", maxsplit=1) for fact in facts) == {
        "folder": f"             {three}/2",
        "files": "              weights.npz, weights.npz.sha256",
        "labels": "             stable (before: 1)",
        "SHA-256": f"            {digest(models, 2)}",
        "layers": "             6-4-3, 43 parameters",
        "activations": "        tanh, softmax",
        "input": "              2 x 3 values",
        "range": "              0 to 255 as uint8, 0 to 1 as float",
        "classes": '            cat, dög, "bird"',
        "golden samples": "     2",
        "unlike its data": "    -",
        "trained at": "         2024-02-29 23:59:59 UTC",
        "recipe": "             fast, seed 7",
        "settings": "           learning_rate 0.01, epochs 3, schedule one-cycle",
        "data": "               pets (sha256:0123)",
        "training accuracy": "  96.88 %",
        "validation accuracy": "87.50 %",
        "test accuracy": "      10.00 %",
        "calibration": (
            "        temperature 1.250, expected calibration error 6.25 % before, 3.12 % after"
        ),
        "made with": "          numpy 2.0.0, python 3.11.7",
    }
    assert lines(run("show", "tiny:3"))[0] == lines(run("show", "tiny"))[0] == "tiny version 3"
    found = json.loads(run("show", "tiny:2", "--json").stdout)
    assert (found["version"], found["labels"]) == (2, ["stable"])
    assert found["digest"] == digest(models, 2)
    assert found["metadata"]["training"]["hyperparameters"]["epochs"] == 3


def test_what_a_file_says_moves_no_cursor(run: Run, models: Path, model: Model) -> None:
    training = replace(model.metadata.training, data_name="\x1b[31mred\nline")
    publish(models, Model(model.network, replace(model.metadata, training=training)))
    for command in (("list",), ("show", "tiny")):
        output = run(*command).stdout
        assert r"\x1b[31mred\nline" in output
        assert "\x1b" not in output


def test_verify_tells_of_every_version_and_fails_where_one_is_bad(
    run: Run, models: Path, model: Model, three: Path
) -> None:
    assert lines(run("verify")) == ["tiny:3: good", "tiny:2: good", "tiny:1: good"]
    publish(models, Model(model.network, replace(model.metadata, name="another")))
    with (three / "2" / "weights.npz").open("ab") as file:
        file.write(b"\0")
    labels_path(models, "tiny").write_text("{")
    done = run("verify")
    assert refusal(done) == "2 of 5 checks failed"
    another, newest, changed, oldest, labels = done.stdout.splitlines()
    assert another == "another:1: good, but without golden samples"
    assert (newest, oldest) == ("tiny:3: good", "tiny:1: good")
    assert changed.startswith(f"tiny:2: {three}/2/weights.npz: expected the SHA-256 ")
    assert labels.startswith(f"tiny: {three}/labels.json: document: expected JSON, but ")
    assert lines(run("verify", "tiny:3")) == ["tiny:3: good"]
    assert refusal(run("verify", "tiny:2")) == "1 of 1 checks failed"
    assert refusal(run("verify", "tiny")) == "2 of 4 checks failed"


def test_verify_recomputes_the_golden_samples(run: Run, three: Path) -> None:
    # Two files of one version that are each sound, but whose samples are of other weights.
    with np.load(three / "1" / "weights.npz") as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(three / "1" / "weights.npz", **(arrays | {"W1": arrays["W1"] / 2}))
    (three / "1" / "weights.npz.sha256").unlink()
    done = run("verify", "tiny:1")
    assert done.returncode == 1
    assert done.stdout.startswith("tiny:1: golden samples of tiny:1: expected probabilities within")
