"""The command as its users run it: a process, its output, its exit code, the file afterwards."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import load_file

from mlpserve.model.digests import DIGEST_FILE_NAME
from mlpserve.model.errors import ModelError
from mlpserve.model.folder import weights_path
from mlpserve.model.versions import publish as publish_model
from mlpserve.model.weights import Model, golden_samples, load_model, save_model
from mlpserve.trainer.errors import ExportError
from mlpserve.trainer.export.command import main
from warm_parent import WarmParent

Export = Callable[..., "subprocess.CompletedProcess[str]"]

COMMAND = "import sys; from mlpserve.trainer.__main__ import main; sys.exit(main())"
FULL_DISK = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); "
WITHOUT = "import sys; sys.modules[{package!r}] = None; "  # as if it were not installed


@pytest.fixture
def export(warm_trainer: WarmParent) -> Export:
    """Return a function that runs the command to its end."""

    def run(*arguments: object, code: str = COMMAND) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-W", "error", "-c", code, "export", *map(str, arguments)]
        return warm_trainer.run(command, timeout_s=60)

    return run


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def golden_models(models: Path, model: Model) -> Path:
    """Return a models folder with two versions of the tiny model that carry golden samples."""
    images = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    golden = golden_samples(model.network, model.metadata.input, images)
    for _ in range(2):
        publish_model(models, replace(model, golden=golden))
    return models


def test_newest_version_is_exported_as_onnx(
    export: Export, golden_models: Path, tmp_path: Path
) -> None:
    output = tmp_path / "tiny.onnx"
    done = export("--format", "onnx", "--model", golden_models / "tiny", "--output", output)
    assert done.returncode == 0, done.stderr
    size = output.stat().st_size
    assert done.stdout == f"exported tiny:2 as onnx to {output} ({size} bytes)\n"
    assert done.stderr == ""
    session = onnxruntime.InferenceSession(output, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().version == 2
    golden = load_model(weights_path(golden_models, "tiny", 2)).golden
    assert golden is not None
    inputs = golden.images.reshape(4, 6).astype(np.float32) / 255
    (found,) = session.run(None, {"images": inputs})
    assert golden.largest_difference(found) < 1e-5


def test_named_version_is_exported_as_safetensors(
    export: Export, golden_models: Path, tmp_path: Path
) -> None:
    output = tmp_path / "tiny.safetensors"
    done = export(
        *("--format", "safetensors", "--model", f"{golden_models}/tiny:1", "--output", output)
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("exported tiny:1 as safetensors to ")
    with np.load(weights_path(golden_models, "tiny", 1), allow_pickle=False) as file:
        expected = {name: file[name] for name in file if name != "metadata"}
    found = load_file(output)
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("package", ["onnx", "safetensors"])
def test_missing_extra_is_named_with_the_command_that_installs_it(
    export: Export, golden_models: Path, tmp_path: Path, package: str
) -> None:
    output = tmp_path / "exported"
    done = export(
        *("--format", package, "--model", golden_models / "tiny", "--output", output),
        code=WITHOUT.format(package=package) + COMMAND,
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"mlpserve-train: the format {package} needs a package of that name: "
        f"pip install 'mlpserve[{package}]'\n"
    )
    assert not output.exists()


def test_one_format_does_not_need_the_extra_of_the_other(
    export: Export, golden_models: Path, tmp_path: Path
) -> None:
    code = WITHOUT.format(package="onnx") + COMMAND
    arguments = ("--model", golden_models / "tiny", "--output", tmp_path / "exported")
    assert export("--format", "safetensors", *arguments, code=code).returncode == 0


def refusal(*arguments: object) -> str:
    """Return why the command refuses to export, or nothing if it does export."""
    try:
        main(["--format", "safetensors", *map(str, arguments)])
    except (ExportError, ModelError) as error:
        return str(error)
    return ""


def test_file_that_is_there_is_replaced_only_by_force(golden_models: Path, tmp_path: Path) -> None:
    output = tmp_path / "tiny.safetensors"
    output.write_text("dear to somebody")
    arguments = ("--model", golden_models / "tiny", "--output", output)
    assert refusal(*arguments) == f"{output}: is there already; replace it with --force"
    assert output.read_text() == "dear to somebody"
    assert refusal(*arguments, "--force") == ""
    assert "W1" in load_file(output)
    assert names_in(tmp_path) == ["models", output.name]


@pytest.mark.parametrize(
    ("reference", "cause"),
    [
        ("{models}/other", "{models}: has no model 'other'; it has tiny"),
        ("{models}/tiny:9", "{models}/tiny: has no version 9; it has 2, 1"),
        ("{models}/tiny/2", "{models}/tiny: has no model '2'; did you mean {models}/tiny:2?"),
        ("{models}/no name", "model: expected MODELS/NAME, MODELS/NAME:VERSION or "),
        ("{models}/tiny:last", "{models}/tiny: has no label 'last'; it has none"),
        (
            "{models}/tiny:01",
            "model: expected a version's number or a label after the colon, as in ",
        ),
    ],
)
def test_what_is_no_version_is_refused_and_nothing_is_written(
    golden_models: Path,
    tmp_path: Path,
    reference: str,
    cause: str,
) -> None:
    output = tmp_path / "tiny.safetensors"
    model = reference.format(models=golden_models)
    message = refusal("--model", model, "--output", output)
    assert message.startswith(cause.format(models=golden_models))
    assert not output.exists()


def test_version_that_does_not_give_its_golden_samples_is_not_exported(
    golden_models: Path, tmp_path: Path
) -> None:
    path = weights_path(golden_models, "tiny", 2)
    model = load_model(path)
    other = model.network.with_parameters([array / 2 for array in model.network.parameters])
    save_model(path, replace(model, network=other))
    path.with_name(DIGEST_FILE_NAME).unlink()  # it would tell already
    output = tmp_path / "tiny.safetensors"
    message = refusal("--model", golden_models / "tiny", "--output", output)
    assert message.startswith("golden samples of tiny:2: expected probabilities within 0.0001 of")
    assert not output.exists()


@pytest.mark.parametrize(
    ("place", "cause"),
    [
        ("missing/tiny", "expected a folder that exists, but {folder}/missing is none"),
        ("models", "expected a file to write, got a folder, a pipe or a device"),
        ("a" * 300, "cannot be written: File name too long"),
    ],
    ids=["missing folder", "folder", "long name"],
)
def test_place_that_cannot_be_written_is_said(
    golden_models: Path,
    tmp_path: Path,
    place: str,
    cause: str,
) -> None:
    output = tmp_path / place
    message = refusal("--model", golden_models / "tiny", "--output", output, "--force")
    assert message == f"{output}: {cause.format(folder=tmp_path)}"
    assert names_in(tmp_path) == ["models"]


def test_disk_that_is_full_leaves_the_old_file_and_nothing_else(
    export: Export, golden_models: Path, tmp_path: Path
) -> None:
    output = tmp_path / "tiny.onnx"
    output.write_text("dear to somebody")
    arguments = ("--model", golden_models / "tiny", "--output", output, "--force")
    done = export("--format", "onnx", *arguments, code=FULL_DISK + COMMAND)
    assert done.returncode == 1
    assert done.stderr == f"mlpserve-train: {output}: cannot be written: File too large\n"
    assert output.read_text() == "dear to somebody"
    assert names_in(tmp_path) == ["models", output.name]


def test_folder_without_permission_is_said(
    public_folder: Path,
    model: Model,
    as_ordinary_user: Callable[[], AbstractContextManager[None]],
) -> None:
    publish_model(public_folder / "models", model)
    output = public_folder / "tiny.safetensors"
    with as_ordinary_user():
        message = refusal("--model", public_folder / "models" / "tiny", "--output", output)
    assert message == f"{output}: cannot be written: Permission denied"
