"""The benchmark as it is run: a process, its output, its files."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from warm_parent import WarmParent

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "training.py"
Run = Callable[..., "subprocess.CompletedProcess[str]"]
PEERS = {"mlpserve, Numba": "numba", "PyTorch": "torch", "scikit-learn": "sklearn", "JAX": "jax"}


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Return a function that runs the benchmark to its end."""
    with WarmParent(["mlpserve.trainer.job"]) as parent:
        yield lambda *arguments: parent.run([sys.executable, str(SCRIPT), *map(str, arguments)])


@pytest.mark.exhaustive
def test_it_measures_what_is_installed_and_names_what_is_missing(
    run: Run, digits_path: Path, tmp_path: Path
) -> None:
    outputs = tmp_path / "results.md", tmp_path / "results.json"
    flags = "--repeats 1 --epochs 2 --networks 8-tanh --threads 1 --iterations 1 --images 50"
    missing = [title for title, module in PEERS.items() if importlib.util.find_spec(module) is None]
    done = run("--data", digits_path, *flags.split(), *(f"--output={path}" for path in outputs))
    assert done.returncode == 0, done.stderr
    for title in missing:
        assert f"{title} is not installed and so not measured: `pip install" in done.stdout
    assert "50 training images of digits" in done.stdout
    assert "| 784-8-10 tanh | 1       | mlpserve, NumPy" in done.stdout
    assert "| pure Python loops" in done.stdout
    assert done.stdout in outputs[0].read_text()
    report = json.loads(outputs[1].read_text())
    assert list(report["missing"]) == missing
    assert all(len(entry["rounds"]) == 1 for entry in report["measured"])
    assert 0 <= report["libraries"][0]["test_accuracy"] <= 1
    assert report["seed"][0]["times_ours"] == {"median": 1, "lowest": 1, "highest": 1}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--networks 128-swish", "expected widths and tanh or relu, as in 16-16-tanh"),
        ("--networks relu", "expected widths and tanh or relu, as in 16-16-tanh"),
        ("--libraries torch", "expected some of mlpserve, mlpserve-numba, pytorch, scikit-learn"),
        ("--threads 0", "expected a number of at least 1, got '0'"),
        ("--threads 4096", "the processors at hand, got '4096'"),
        ("--data nowhere.npz", "there is no such file or folder"),
        ("--output results.txt", "expected a name that ends in .md or .json"),
    ],
)
def test_a_bad_flag_is_refused_by_what_was_expected(run: Run, flags: str, message: str) -> None:
    done = run(*flags.split())
    assert done.returncode != 0
    assert done.stdout == ""
    assert message in done.stderr.replace("\n", " ")
