"""Types that callers see: what type checkers take of a program, and what they refuse."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

GOOD = """
import asyncio
from collections.abc import AsyncIterator, Iterator

import numpy as np
import numpy.typing as npt

from mlpserve.client import AsyncClient, Client, ClientError, HealthStatus, Predictions


def classify(images: npt.NDArray[np.uint8]) -> list[str]:
    with Client("localhost:50051", timeout_s=None) as client:
        client.wait_until_ready(timeout_s=5)
        try:
            found = client.predict(images, model="digits", version=None, class_names=True)
        except ClientError as error:
            limit: int | None = error.limit
            retry_after_s: float | None = error.retry_after_s
            raise SystemExit(f"{error.field}: {limit}, {retry_after_s}") from error
        labels: npt.NDArray[np.int32] = found.labels
        probabilities: npt.NDArray[np.float32] = found[:10].probabilities
        best: npt.NDArray[np.float32] = found.top(3).probabilities
        queue_s: float = found.timings.queue_s if found.timings is not None else 0.0
        why = client.explain(images, classes=[7], method="integrated_gradients", steps=50)
        attributions: npt.NDArray[np.float32] = why[:10].attributions
        print(attributions, why.predictions.labels, why.errors.max())
        versions: list[int] = [version.version for version in client.model().versions]
        print(labels, probabilities, best, queue_s, versions)
        return found.names


def batches() -> Iterator[npt.NDArray[np.float64]]:
    yield np.zeros((2, 784))


def stream(client: Client) -> list[int]:
    return [answer.model_version for answer in client.predict_stream(batches())]


async def asynchronous() -> None:
    async def later() -> AsyncIterator[list[list[float]]]:
        yield [[0.0]]

    async with AsyncClient("localhost:50051") as client, client.batching(max_rows=64) as joined:
        alone, shared = await asyncio.gather(
            client.predict([[0.0]]), joined.predict([[0.5]], timeout_s=1)
        )
        answers: list[Predictions] = [alone, shared]
        async for answer in client.predict_stream(later()):
            answers.append(answer)
        if await client.health() is HealthStatus.SERVING:
            print(answers)
"""

BAD = """
from mlpserve.client import AsyncClient, Client


def blocking(client: Client) -> None:
    client.predict([[0.0]], version="1")  # wrong
    client.predict([[0.0]], 3)  # wrong
    client.predict(object())  # wrong
    client.predict_stream(5)  # wrong
    text: str = client.predict([[0.0]]).labels  # wrong
    print(text, client.predict([[0.0]]).timings.queue_s)  # wrong
    client.explain()  # wrong
    Client("localhost:50051", timeout=3)  # wrong
    Client(50051)  # wrong


async def asynchronous(client: AsyncClient) -> None:
    print((client.predict([[0.0]])).labels)  # wrong
    for _ in client.predict_stream([]):  # wrong
        pass
    client.batching(max_rows="64")  # wrong
"""
WRONG = {number for number, line in enumerate(BAD.splitlines(), 1) if line.endswith("# wrong")}


def mypy_lines(path: Path) -> set[int]:
    """Return the lines that mypy finds fault with, in an environment that has the library."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=200, check=False, cwd=path.parent
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return {int(line) for line in re.findall(rf"{path.name}:(\d+): error", done.stdout)}


def pyright_lines(path: Path) -> set[int]:
    """Return the lines that pyright finds fault with."""
    (path.parent / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    command = [sys.executable, "-m", "pyright", "--outputjson"]
    command += ["--pythonpath", sys.executable, "--project", str(path.parent)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=280, check=False, cwd=path.parent
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return {
        found["range"]["start"]["line"] + 1
        for found in json.loads(done.stdout)["generalDiagnostics"]
        if found["severity"] == "error"
    }


@pytest.mark.exhaustive
@pytest.mark.parametrize("lines", [mypy_lines, pyright_lines], ids=["mypy", "pyright"])
@pytest.mark.parametrize(("source", "wrong"), [(GOOD, set()), (BAD, WRONG)], ids=["good", "bad"])
def test_strict_type_checkers_find_just_the_mistakes(
    tmp_path: Path, lines: object, source: str, wrong: set[int]
) -> None:
    path = tmp_path / "service.py"
    path.write_text(source)
    assert callable(lines)
    assert lines(path) == wrong
