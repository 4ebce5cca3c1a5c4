"""The README and docs/: their commands and code are run as they stand, but for the ports."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from data_kinds import competition, emnist, medmnist, parquet, pictures
from mlpserve.client.__main__ import main as predict
from mlpserve.datasets import load_dataset
from mlpserve.model.__main__ import main as models
from mlpserve.playground.__main__ import main as play
from mlpserve.server.__main__ import main as serve
from mlpserve.trainer.__main__ import main as train

REPOSITORY = Path(__file__).parents[1]
README = REPOSITORY / "README.md"
DOCUMENTS = sorted([README, *(REPOSITORY / "docs").glob("*.md")])
PLAIN = REPOSITORY / "trainer" / "mlpserve" / "trainer" / "learning" / "plain.py"
# How a page calls the addresses, and how the server's log does.
ADDRESSES = {
    "localhost:50051": r"ready: .* on (\S+)$",
    "localhost:8000": r"HTTP is answered on (\S+)$",
    "localhost:9464": r"metrics: http://(\S+)/metrics$",
}
FIXED_PORT = re.compile(r"(--(?:http|metrics)-port) \d+")
# What is not run here: `pip` and `make` would change the environment, CI calls `make demo` itself,
# tests/containers.sh calls Docker, tests/deploy kubectl, and tests/distributed Ray's `serve`.
NOT_RUN = (
    "pip ",
    "make ",
    "mlpserve-playground ",
    "mlpserve-train sweep --data mnist --name swept --space",  # on a cluster: tests/distributed
    "docker ",
    "kubectl ",
    "serve ",
    "MLPSERVE_PORT=50051 docker",
    "MLPSERVE_MNIST=",
)


PROGRAMS = {
    train: ["", "evaluate", "export", "sweep"],
    serve: ["", "healthcheck", "token"],
    play: [""],
    predict: [""],
    models: ["", "list", "show", "label", "promote", "rollback", "verify", "prune", "sync"],
}
# Of docker, curl and sha256sum.
OTHER_FLAGS = {"--rm", "--scale", "--profile", "--volumes", "--memory", "--memory-swap", "--signal"}
OTHER_FLAGS |= {"--data", "--check", "--archives"}
# Of benchmarks.
OTHER_FLAGS |= {"--count", "--folder", "--kill-node", "--minutes", "--plan-only", "--rows"}


class Block(NamedTuple):
    """A block of code on a page."""

    language: str
    code: str


def blocks(page: Path, *languages: str) -> list[Block]:
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [Block(*block) for block in found if block[0] in languages]


def commands(code: str) -> list[str]:
    lines = code.replace("\\\n", " ").splitlines()
    return [line.partition("  #")[0].partition(" # ")[0].strip() for line in lines]


def is_excerpt(code: str) -> bool:
    """Return whether a block only shows lines of ``plain.py``, comments aside."""
    shown, whole = (
        {line.partition("  # ")[0].strip() for line in text.splitlines()}
        for text in (code, PLAIN.read_text())
    )
    return shown <= whole


# The client that each language's block in docs/calling.md is a passage of.
CLIENTS = {
    "typescript": "typescript/src/client.ts",
    "go": "go/main.go",
    "java": "java/src/main/java/example/Predict.java",
    "rust": "rust/src/main.rs",
}


@pytest.mark.parametrize("language", CLIENTS)
def test_what_the_page_on_calling_shows_of_a_language_is_a_passage_of_its_client(
    language: str,
) -> None:
    (shown,) = blocks(REPOSITORY / "docs" / "calling.md", language)
    client = (REPOSITORY / "examples" / CLIENTS[language]).read_text()
    assert without_indentation(shown.code) in without_indentation(client)


def without_indentation(code: str) -> str:
    return "\n".join(line.strip() for line in code.splitlines())


class Reader:
    """Somebody who types what a page says, one block after the other, in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "MLPSERVE_PORT": "0",
        }
        self._server: subprocess.Popen[str] | None = None
        self._addresses: dict[str, str] = {}
        self._names: dict[str, object] = {}

    def read(self, block: Block) -> str:
        """Do what a block says; return what its commands print."""
        if block.language == "python":
            exec(self._with_addresses(block.code), self._names)  # noqa: S102 - our own
            return ""
        typed = [command for command in commands(block.code) if not command.startswith(NOT_RUN)]
        return "".join(self._run(command) for command in typed)

    def stop(self) -> None:
        """Stop the server, if there is one."""
        if self._server is not None:
            with self._server as server:
                os.killpg(server.pid, signal.SIGTERM)
                server.communicate(timeout=30)
        self._server = None

    def _run(self, command: str) -> str:
        if re.search(r"mlpserve-serve(?! healthcheck)", command):
            self._serve(command)
            return ""
        if command.startswith("mlpserve-predict"):
            command += " --target localhost:50051"
        port = self._addresses.get("localhost:50051", ":0").rpartition(":")[2]
        done = subprocess.run(
            ["/bin/bash", "-c", self._with_addresses(command)],
            cwd=self._folder,
            env=self._environment | {"MLPSERVE_PORT": port},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        return done.stdout

    def _serve(self, command: str) -> None:
        self.stop()
        self._server = subprocess.Popen(
            ["/bin/bash", "-c", FIXED_PORT.sub(r"\1 0", command)],
            cwd=self._folder,
            env=self._environment,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._server.stderr is not None
        said = ""
        for line in self._server.stderr:
            said += line
            self._addresses |= {
                name: found[1]
                for name, pattern in ADDRESSES.items()
                if (found := re.search(pattern, line))
            }
            if "workers: " in line:  # the last line of a start
                return
        pytest.fail(f"{command}\n{said}")

    def _with_addresses(self, text: str) -> str:
        for name, address in self._addresses.items():
            text = text.replace(name, address)
        return text


@pytest.fixture(scope="session")
def published(mnist_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a models folder as `make demo` leaves it."""
    models = tmp_path_factory.mktemp("published")
    arguments = ["--data", "mnist", "--data-dir", str(mnist_folder), "--name", "digits"]
    assert train([*arguments, "--models", str(models)]) == 0
    return models


@pytest.fixture
def reader(
    published: Path, mnist_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Reader]:
    """Return a reader whose folder has models, the examples, and data of their own."""
    monkeypatch.setenv("MLPSERVE_DATA_DIR", str(mnist_folder))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(published, tmp_path / "models")
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    images, labels = np.arange(600 * 64, dtype=np.uint8).reshape(600, 8, 8), np.arange(600) % 3
    np.savez("mine.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    reading = Reader(tmp_path)
    yield reading
    reading.stop()


def read(reader: Reader, page: str) -> str:
    """Have a page read; return what its commands print."""
    found = blocks(REPOSITORY / page, "sh", "python")
    assert found
    return "".join(reader.read(block) for block in found if not is_excerpt(block.code))


@pytest.mark.exhaustive
def test_the_readme_does_what_it_says(reader: Reader, capfd: pytest.CaptureFixture[str]) -> None:
    printed = read(reader, "README.md")
    assert "published models/digits/2" in printed
    assert "published models/mine/1" in printed
    assert "on the test images of mnist: accuracy 9" in printed
    assert "examples/digit.png: 1 image" in printed
    assert '"model_name": "digits"' in printed.replace('":"', '": "')
    assert "[5 5 5]" in capfd.readouterr().out


def test_what_is_said_about_calls_holds(reader: Reader, capfd: pytest.CaptureFixture[str]) -> None:
    reader.read(Block("sh", "mlpserve-serve --models models"))
    printed = read(reader, "docs/calling.md")
    assert re.search(r"^7: [\d.]+ %$", printed, re.MULTILINE)
    shown = capfd.readouterr().out
    assert "images.data: expected 3136 bytes (1 images of 28 x 28 values" in shown
    assert "model_version: version 99 of model 'digits' is not served" in shown
    assert "digits [1]" in shown


@pytest.mark.exhaustive
def test_what_is_said_about_predicting_holds(reader: Reader, tmp_path: Path) -> None:
    reader.read(Block("sh", "mlpserve-serve --models models"))
    printed = read(reader, "docs/predicting.md")
    assert "examples/digit.png: 1 image" in printed
    assert "standard input,0,7," in printed
    header, *answers = (tmp_path / "answers.csv").read_text().splitlines()
    assert header == "source,index,label,probability,true_label,ImageId,warning"
    assert len(answers) == 300


@pytest.mark.exhaustive
def test_what_is_said_about_serving_holds(reader: Reader) -> None:
    printed = read(reader, "docs/serving.md")
    assert "on the test images of mnist: accuracy 9" in printed
    assert '"source": "examples/digit.png", "index": 0, "label": "7"' in printed


def test_what_is_said_about_weights_files_holds(
    reader: Reader, capfd: pytest.CaptureFixture[str]
) -> None:
    for block in blocks(REPOSITORY / "docs" / "models.md", "python"):
        reader.read(block)
    assert re.search(r"^0\.9\d+ \(784, 128\)$", capfd.readouterr().out, re.MULTILINE)


@pytest.mark.exhaustive
def test_what_is_said_about_training_holds(
    reader: Reader, tmp_path: Path, mnist_folder: Path
) -> None:
    digits = load_dataset("mnist", data_dir=mnist_folder)
    few = replace(
        digits,
        train=digits.train.select(np.arange(1000)),
        test=digits.test.select(np.arange(100)),
    )
    for make in (competition, parquet, pictures, emnist, medmnist):
        make(tmp_path, few)
    printed = read(reader, "docs/training.md")
    for name in ("csv", "parquet", "pictures", "letters", "medical", "sketches"):
        assert f"published models/{name}/1" in printed
    assert (tmp_path / "digits.onnx").exists()


@pytest.mark.exhaustive
def test_what_is_said_about_sweeps_holds(reader: Reader, tmp_path: Path) -> None:
    printed = read(reader, "docs/sweeps.md")
    assert "the best is trial" in printed
    assert (tmp_path / "models" / "swept" / "1" / "sweep.json").exists()


@pytest.mark.exhaustive
def test_what_is_said_about_settings_holds(reader: Reader) -> None:
    read(reader, "docs/configuration.md")


@pytest.mark.exhaustive
def test_what_is_said_about_metrics_and_traces_holds(reader: Reader) -> None:
    assert "mlpserve_workers" in read(reader, "docs/metrics.md")


@pytest.mark.exhaustive
def test_what_is_said_about_the_open_inference_protocol_holds(
    reader: Reader, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tritonclient.grpc")
    assert "probabilities" in read(reader, "docs/open-inference-protocol.md")
    assert "(3, 10)" in capfd.readouterr().out


def test_the_readme_shows_lines_of_the_page_with_the_algorithm() -> None:
    assert [block for block in blocks(README, "python") if is_excerpt(block.code)]


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_every_file_that_a_page_links_to_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_every_extra_and_target_that_a_page_names_is_there(page: Path) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    named = re.findall(r"pip install '[\w.]+\[([\w,-]+)\]'", page.read_text())
    extras = {extra for names in named for extra in names.split(",")}
    assert extras <= set(project["optional-dependencies"])
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.MULTILINE)) <= targets


def test_every_flag_that_the_pages_name_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    for program, programs_commands in PROGRAMS.items():
        for command in programs_commands:
            with pytest.raises(SystemExit, match="0"):
                program([*command.split(), "--help"])
    known = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out)) | OTHER_FLAGS
    for page in DOCUMENTS:
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", page.read_text()))
        assert named <= known, page


def test_every_folder_that_is_described_to_contributors_is_there() -> None:
    tree = next(
        block.code
        for block in blocks(REPOSITORY / "CONTRIBUTING.md", "text")
        if block.code.startswith("proto/")
    )
    folders = re.findall(r"^(\w+)/ ", tree, re.MULTILINE)
    assert folders
    assert [folder for folder in folders if not (REPOSITORY / folder).is_dir()] == []
