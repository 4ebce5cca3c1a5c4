"""The README's commands and code are run as they stand, but for the port."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
DEFAULT_ADDRESS = "localhost:50051"
MODULES = {
    "mlpserve-train": "mlpserve.trainer",
    "mlpserve-serve": "mlpserve.server",
    "mlpserve-predict": "mlpserve.client",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)


def commands() -> dict[str, list[str]]:
    """Return the commands of "Step by step", as they would be run, by the program's name."""
    block = next(block for block in blocks("sh") if block.startswith("mlpserve-train"))
    found: dict[str, list[str]] = {}
    for line in block.splitlines():
        name, *arguments = shlex.split(line)
        found.setdefault(name, []).append(
            shlex.join([sys.executable, "-m", MODULES[name], *arguments])
        )
    return found


def run(command: str, folder: Path) -> str:
    done = subprocess.run(
        shlex.split(command), cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def serving(command: str, folder: Path) -> Iterator[str]:
    with subprocess.Popen(
        [*shlex.split(command), "--port", "0"], cwd=folder, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            ready = re.search(r"ready: .* on (\S+)$", process.stderr.readline())
            assert ready is not None
            yield ready[1]
        finally:
            process.terminate()
            process.communicate(timeout=30)


def test_the_commands_and_the_code_of_the_readme_do_what_it_says(
    tmp_path: Path,
    mnist_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLPSERVE_DATA_DIR", str(mnist_folder))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(README.parent / "examples")
    steps = commands()
    assert set(steps) == set(MODULES)
    for command in steps["mlpserve-train"]:
        assert "published models/digits/1" in run(command, tmp_path)
    with serving(steps["mlpserve-serve"][0], tmp_path) as address:
        first, second = (
            run(f"{command} --target {address}", tmp_path) for command in steps["mlpserve-predict"]
        )
        assert "accuracy 9" in first
        assert '"source": "examples/digit.png", "index": 0, "label": "7"' in second
        namespace: dict[str, object] = {}
        for block in blocks("python"):
            # One after the other, as a reader would type them.
            exec(block.replace(DEFAULT_ADDRESS, address), namespace)  # noqa: S102 - our own
    shown = capsys.readouterr().out
    assert "images.data: expected 3136 bytes (1 images of 28 x 28 values" in shown
    assert "model_version: version 99 of model 'digits' is not served" in shown
    assert "digits [1]" in shown
    assert "(784, 128)" in shown


def test_every_file_that_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README.read_text())
    local = [link for link in links if "://" not in link]
    assert local
    assert [link for link in local if not (README.parent / link).exists()] == []


def test_every_folder_that_the_readme_describes_is_there() -> None:
    tree = next(block for block in blocks("text") if block.startswith("proto/"))
    folders = re.findall(r"^(\w+)/ ", tree, re.MULTILINE)
    assert folders
    assert [folder for folder in folders if not (README.parent / folder).is_dir()] == []
