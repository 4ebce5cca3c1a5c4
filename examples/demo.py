"""Demo of the whole path with the real programs: train, publish, serve, predict, look.

Run by `make demo`. Each program is a process of its own, as in production; this file only starts
them, asks the server through the client library and draws the answers.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpserve.client import Client, Predictions, VersionInfo
from mlpserve.datasets import Split, load_test_split

MODELS = Path("models")
MODEL_NAME = "digits"
PICTURES_SHOWN = 5
GAP = "  "
STOP_TIMEOUT_S = 15
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main() -> int:
    """Run the demo; return its exit code."""
    step(f"1. Train a network and publish it into {MODELS}/")
    trained = subprocess.run(
        [sys.executable, "-m", "mlpserve.trainer", "--models", MODELS, "--name", MODEL_NAME],
        check=False,
    )
    if trained.returncode:
        return trained.returncode
    step("2. Start the server on a free port")
    with running_server() as target, Client(target) as client:
        step("3. Send the test images")
        version = client.model(MODEL_NAME).versions[0]
        split = load_test_split(version.training.data_name, data_dir=data_dir())
        started = time.perf_counter()
        found = client.predict(split.images, model=MODEL_NAME)
        duration_s = time.perf_counter() - started
        show(split, found, version)
        accuracy = np.mean(found.labels == split.labels)
        print(
            f"\n{len(split)} test images of {version.training.data_name}: "
            f"accuracy {100 * accuracy:.2f} %, {len(split) / duration_s:,.0f} images/s"
        )
        if version.training.data_name == "drawn":
            print("Drawn digits are hard to read; the same network reads 95 % of the real MNIST.")
    step(f"The server is stopped. The model is {MODELS / MODEL_NAME / str(found.model_version)}/")
    print(f"Serve it with: .venv/bin/mlpserve-serve --models {MODELS}")
    print("Draw on a page at http://localhost:8080 and see it think: make play")
    return 0


def data_dir() -> Path | None:
    """Return the folder that the trainer, too, looks for the MNIST files in first."""
    named = os.environ.get("MLPSERVE_DATA_DIR")
    return Path(named) if named else None


def step(title: str) -> None:
    """Print a heading at once, so that it comes before the output of the next program."""
    print(f"\n{title}", flush=True)


@contextmanager
def running_server() -> Iterator[str]:
    """Start `mlpserve-serve`, yield its address once it is ready, and stop it."""
    command = [sys.executable, "-m", "mlpserve.server", "--models", str(MODELS), "--port", "0"]
    command += ["--log-format", "text"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield wait_until_ready(process)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.communicate(timeout=STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_until_ready(process: "subprocess.Popen[str]") -> str:
    """Return the address that the server says it listens on."""
    assert process.stderr is not None  # noqa: S101 - it was asked for above
    for line in process.stderr:
        print(line, end="")
        if ready := re.search(r"ready: .* on (\S+:\d+)$", line):
            return ready[1]
    raise SystemExit("the server did not start")


def show(split: Split, found: Predictions, version: VersionInfo) -> None:
    """Print the first few images side by side, each over the network's answer.

    A cross stands before the true class where the network is wrong.
    """
    drawings = [draw(image) for image in split.images[:PICTURES_SHOWN]]
    width = len(drawings[0][0])
    for lines in zip(*drawings, strict=True):
        print(GAP.join(lines))
    for index, label in enumerate(found.labels[:PICTURES_SHOWN]):
        probability = f"{100 * found.probabilities[index, label]:.1f} %"
        caption = f"{version.class_labels[label]}: {probability}"
        if label != split.labels[index]:
            caption += f" ✗ {version.class_labels[split.labels[index]]}"
        print(caption.center(width), end=GAP)
    print()


def draw(image: npt.NDArray[Any]) -> list[str]:
    """Return a (height, width) image as lines of text, two by four pixels a character.

    A braille character is a grid of two by four dots, each of which is one bit of its code.
    """
    bits = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
    dots = image > image.max() / 2
    height, width = dots.shape
    dots = np.pad(dots, ((0, -height % 4), (0, -width % 2)))
    cells = dots.reshape(len(dots) // 4, 4, -1, 2).transpose(0, 2, 1, 3)
    codes = 0x2800 + (cells * bits).sum(axis=(2, 3))
    return ["".join(map(chr, row)) for row in codes]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
