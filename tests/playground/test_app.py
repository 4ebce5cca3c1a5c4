"""The playground's server: what it answers, and what it refuses."""

import base64
import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpserve.model.attribution import logits
from mlpserve.model.folder import weights_path
from mlpserve.model.weights import load_model
from visitor import playing

pytestmark = pytest.mark.exhaustive

SEVEN = np.zeros((140, 140), np.uint8)
SEVEN[35:46, 40:105] = 255
for row in range(46, 110):
    SEVEN[row, 100 - (row - 46) // 2 : 111 - (row - 46) // 2] = 255


def call(
    address: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, Any, dict[str, str]]:
    request = urllib.request.Request(address, body, headers or {})  # noqa: S310 - our own
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            content = answer.read()
            kind = answer.headers["Content-Type"]
            parsed = json.loads(content) if kind == "application/json" else content.decode()
            return answer.status, parsed, dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error), dict(error.headers)


def test_a_drawing_is_prepared_and_classified_by_the_version_that_is_named(url: str) -> None:
    path = f"{url}/api/predict?width=140&height=140&prepare=28&model=digits&version=2"
    status, answer, _ = call(path, SEVEN.tobytes())
    assert status == 200
    assert (answer["model"], answer["version"], answer["label"]) == ("digits", 2, 7)
    assert sum(answer["probabilities"]) == pytest.approx(1, abs=1e-5)
    assert len(answer["image"]) == 784
    again = f"{url}/api/predict?width=28&height=28&model=digits&version=2"
    _, unprepared, _ = call(again, bytes(answer["image"]))
    assert unprepared["probabilities"] == answer["probabilities"]


def test_an_image_that_looks_like_no_digit_is_said_to_be_so(url: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 784, np.uint8)
    for version in (1, 2):
        path = f"{url}/api/predict?width=28&height=28&model=digits&version={version}"
        assert call(path, noise.tobytes())[1]["isUnlikeTraining"] is True
        prepared = f"{url}/api/predict?width=140&height=140&prepare=28&model=digits"
        _, answer, _ = call(f"{prepared}&version={version}", SEVEN.tobytes())
        assert answer["isUnlikeTraining"] is False
    unnamed = f"{url}/api/predict?width=28&height=28&model=digits"
    assert call(unnamed, noise.tobytes())[1]["isUnlikeTraining"] is False  # another may answer


def test_the_weights_are_those_of_the_version(url: str) -> None:
    status, layers, _ = call(f"{url}/api/network?model=digits&version=1")
    assert status == 200
    sizes = [(layer["inputs"], layer["outputs"], layer["activation"]) for layer in layers]
    assert sizes == [(784, 16, "tanh"), (16, 16, "tanh"), (16, 10, "softmax")]
    assert [len(base64.b64decode(layer["weights"])) for layer in layers] == [50176, 1024, 640]


def test_models_are_described_with_what_tells_versions_apart(url: str) -> None:
    _, (model,), _ = call(f"{url}/api/models")
    assert [version["version"] for version in model["versions"]] == [2, 1]
    assert all(version["hasReport"] for version in model["versions"])
    assert model["versions"][0]["testAccuracy"] > 0.9


def test_a_report_is_shown_without_its_scripts(url: str) -> None:
    status, page, headers = call(f"{url}/report/digits/1")
    assert status == 200
    assert "<html" in page
    assert headers["content-security-policy"].endswith("sandbox")


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("api/predict?width=28&height=28", bytes(783), 422, "expected width x height = 28 x 28"),
        ("api/predict?width=x&height=28", bytes(784), 422, "width: expected a whole number"),
        ("api/predict?height=28", bytes(784), 422, "width: expected a whole number"),
        ("api/predict?width=9&height=9", bytes(81), 422, "expected 784"),
        ("api/predict?width=28&height=28&version=99", bytes(784), 404, "version 99"),
        ("api/predict?width=28&height=28&model=cats", bytes(784), 404, "cats"),
        ("api/predict?width=9&height=9&prepare=9999", bytes(81), 422, "a side of at most 512"),
        ("api/predict?width=2000&height=2000", bytes(4_000_000), 413, "at most 1048576 bytes"),
        ("api/network?model=digits&version=99", None, 404, "weights: "),
        ("api/network?model=../digits&version=1", None, 404, "weights: "),
        ("report/..%2fdigits/1", None, 404, "Not Found"),
        ("report/digits/99", None, 404, "report: "),
        ("api/predict", None, 405, "Method Not Allowed"),
        ("static/../app.py", None, 404, "Not Found"),
    ],
)
def test_what_is_wrong_is_said(
    url: str, path: str, body: bytes | None, status: int, message: str
) -> None:
    answered, answer, _ = call(f"{url}/{path}", body)
    assert (answered, message in answer["error"]) == (status, True), answer


def test_other_sites_may_not_call_it(url: str) -> None:
    foreign = {"Origin": "https://example.com"}
    assert call(f"{url}/api/models", headers=foreign)[0] == 403
    assert call(f"{url}/api/models", headers={"Origin": url})[0] == 200


def test_another_name_for_this_machine_is_refused(url: str) -> None:
    assert call(f"{url}/api/models", headers={"Host": "attacker.example"})[0] == 403


def test_the_page_may_load_nothing_from_elsewhere(url: str) -> None:
    _, page, headers = call(f"{url}/")
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert "://" not in page.replace("http://www.w3.org/", "")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mlpserve.playground", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_port_that_is_taken_and_a_target_that_is_none_are_said_in_a_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("--port", port)
        assert done.returncode == 1
        assert f"port {port}" in done.stderr
    done = run("--target", "nonsense")
    assert done.returncode == 1
    assert "--target" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("port", ["65536", "-1", "http"])
def test_a_port_that_is_none_is_said_in_a_line(port: str) -> None:
    done = run("--port", port)
    assert done.returncode == 2
    assert f"--port: expected a port from 0 to 65535, got '{port}'" in done.stderr


def test_an_explanation_sums_to_what_the_image_changed_in_the_logit(url: str, digits: Path) -> None:
    image = np.random.default_rng(3).integers(0, 256, 784, np.uint8)
    path = f"{url}/api/explain?model=digits&version=1&class=4"
    status, answer, _ = call(path, image.tobytes())
    assert status == 200
    network = load_model(weights_path(digits, "digits", 1)).network
    inputs = np.stack([image / 255, np.zeros(784)]).astype(network.parameters[0].dtype)
    seen, black = logits(network, inputs)[:, 4]
    assert sum(answer["attributions"]) == pytest.approx(seen - black, abs=0.05)
    for asked, body, message in (
        (path, bytes(783), "images.data: expected 784 bytes"),
        (path, b"", "images: expected"),
        (path.replace("class=4", "class=10"), image.tobytes(), "classes: expected from 0 to 9"),
    ):
        status, answer, _ = call(asked, body)
        assert (status, message in answer["error"]) == (422, True), answer


def test_ctrl_c_ends_it_without_a_word() -> None:
    with playing() as (process, address):
        assert call(f"{address}/")[0] == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
