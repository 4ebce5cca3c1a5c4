"""The HTTP door of a server of several processes, as its users run it."""

import http.client
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

TIMEOUT_S = 20.0
MOST_CONNECTIONS = 200


def ask(port: int, method: str, path: str, body: str | None = None) -> Any:
    """Return the JSON that is answered over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    connection.request(method, path, body)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def test_every_worker_answers_http_on_the_same_port(models: Path, tiny_models: None) -> None:
    command = [sys.executable, "-m", "mlpserve.server", "--models", str(models)]
    flags = ["--port", "0", "--http-port", "0", "--workers", "2"]
    with subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        port = next(
            int(found[1])
            for line in process.stderr
            if (found := re.search(r"HTTP is answered on 127.0.0.1:(\d+)$", line))
        )
        tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 6], "data": [9] * 6}
        answer = ask(port, "POST", "/v2/models/tiny/infer", json.dumps({"inputs": [tensor]}))
        assert answer["model_version"] == "2"
        # One worker has answered this one image, and the other none: both are there.
        counts = set[int]()
        for _ in range(MOST_CONNECTIONS):
            newest = ask(port, "GET", "/v2/models/tiny/versions/2/stats")["model_stats"][0]
            counts.add(newest["inference_count"])
            if counts == {0, 1}:
                break
        process.terminate()
        process.communicate(timeout=TIMEOUT_S)
    assert counts == {0, 1}
    assert process.returncode == 0
