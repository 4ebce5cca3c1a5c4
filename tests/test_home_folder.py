"""The home folder in paths: ``~`` of flags, variables and files, and users who have none."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlpserve.datasets.paths import user_path as datasets_path
from mlpserve.model.command_line import user_path

NO_HOME = "'~/x': there is no home folder, because HOME is empty"


def run(home: Path | str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        env={**os.environ, "HOME": str(home), **variables},
        cwd=variables.get("PWD"),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def home(tmp_path: Path, publish: Callable[..., None]) -> Path:
    """Return a home folder with a models folder of one model, and data."""
    publish("tiny", versions=1)
    images = np.random.default_rng(1).integers(0, 256, (60, 2, 3), np.uint8)
    labels = np.arange(60) % 3
    np.savez(tmp_path / "data.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    return tmp_path


def test_every_program_finds_what_is_in_the_home_folder(home: Path, tmp_path: Path) -> None:
    (home / "serve.toml").write_text('models = "~/models"\ntls_key = "~/key.pem"\n')
    done = {
        "models": run(home, "mlpserve.model", "list", "--models=~/models"),
        "trainer": run(
            home, "mlpserve.trainer", "--models=~/trained", "--data=~/data.npz", "--epochs=1",
            "--checkpoint=~/checkpoints", "--no-report", "--min-accuracy=0",
        ),
        "evaluate": run(
            home, "mlpserve.trainer", "evaluate", "--model=~/models/tiny:1", "--data=~/data.npz",
        ),
        "predict": run(
            home, "mlpserve.client", "--models=~/models", "--output=~/answers.csv", "~/d*.npz",
        ),
        "flag": run(home, "mlpserve.server", "--print-config", "--models=~/models"),
        "variable": run(home, "mlpserve.server", "--print-config", MLPSERVE_MODELS="~/models"),
        "file": run(
            home, "mlpserve.server", "--print-config", "--config=~/serve.toml",
            "--tls-certificate=~/crt.pem",
        ),
    }  # fmt: skip
    assert {name: each.stderr for name, each in done.items() if each.returncode} == {}
    assert "tiny" in done["models"].stdout
    assert (home / "trained" / "data" / "1" / "weights.npz").exists()
    assert (home / "answers.csv").exists()
    for name in ("flag", "variable", "file"):
        assert f'models = "{home}/models"' in done[name].stdout, name
    assert f'tls_key = "{home}/key.pem"' in done["file"].stdout
    assert not Path("~").exists()


@pytest.mark.exhaustive
def test_no_program_shows_a_traceback_to_a_user_without_a_home(tmp_path: Path) -> None:
    commands = {
        "models": ("mlpserve.model", "list", "--models=~/x"),
        "trainer": ("mlpserve.trainer", "--models=~/x"),
        "data": ("mlpserve.trainer", "--data=~/x", f"--models={tmp_path}"),
        "export": ("mlpserve.trainer", "export", "--model=~/x", "--format=onnx", "--output=o"),
        "server": ("mlpserve.server", "--print-config", "--models=~/x"),
        "config": ("mlpserve.server", "--print-config", "--config=~/x"),
        "predict": ("mlpserve.client", "--models=~/x", "picture.png"),
        "output": ("mlpserve.client", "--output=~/x", "picture.png"),
        "pictures": ("mlpserve.client", f"--models={tmp_path}", "~/x"),
    }
    for name, command in commands.items():
        done = run("", *command)
        assert done.returncode != 0, name
        assert "Traceback" not in done.stderr, (name, done.stderr)
        if name != "pictures":
            assert NO_HOME in done.stderr, (name, done.stderr)


@pytest.mark.parametrize("expand", [user_path, datasets_path])
def test_only_a_home_folder_is_expanded(
    expand: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert expand("~/models") == Path("/home/me/models")
    assert expand("~") == Path("/home/me")
    assert expand("a/~/b") == Path("a/~/b")
    assert expand("~nobody-has-this-name/x") == Path("~nobody-has-this-name/x")
    monkeypatch.setenv("HOME", "")
    assert expand("models") == Path("models")
    for text in ("~", "~/x"):
        with pytest.raises(Exception, match="there is no home folder"):
            expand(text)


def test_a_user_whom_the_system_does_not_know_has_no_home(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    with pytest.raises(Exception, match="there is no home folder"):
        user_path("~/x")
