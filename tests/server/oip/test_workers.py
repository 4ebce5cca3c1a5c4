"""The HTTP endpoint of a server of several processes, as its users run it."""

import http.client
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from processes import children

TIMEOUT_S = 60.0
CONNECTIONS = 40


class Connections:
    """Connections to a port that stay open."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: list[http.client.HTTPConnection] = []

    def ask(self, method: str, path: str, body: str | None = None) -> Any:
        """Return the JSON that is answered over a new one."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)
        self._open.append(connection)
        connection.request(method, path, body)
        return json.loads(connection.getresponse().read())

    def close(self) -> None:
        for connection in self._open:
            connection.close()


def sockets_by_worker(server: int) -> list[int]:
    """Return how many sockets each worker of a server has open."""
    return [
        sum("socket:" in str(entry.readlink()) for entry in Path(f"/proc/{worker}/fd").iterdir())
        for worker in children(server)
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_every_worker_answers_http_on_the_same_port_and_tells_the_figures_of_all(
    models: Path, tiny_models: None
) -> None:
    command = [sys.executable, "-m", "mlpserve.server", "--models", str(models)]
    flags = ["--port", "0", "--http-port", "0", "--workers", "2"]
    with subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        port = next(
            int(found[1])
            for line in process.stderr
            if (found := re.search(r"HTTP is answered on 127.0.0.1:(\d+)$", line))
        )
        before = sockets_by_worker(process.pid)
        connections = Connections(port)
        tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 6], "data": [9] * 6}
        asked = json.dumps({"inputs": [tensor]})
        for number in range(1, CONNECTIONS + 1):
            answer = connections.ask("POST", "/v2/models/tiny/infer", asked)
            assert answer["model_version"] == "2"
            told = connections.ask("GET", "/v2/models/tiny/versions/2/stats")["model_stats"][0]
            assert told["inference_count"] == number
            assert told["inference_stats"]["success"]["count"] == number
        after = sockets_by_worker(process.pid)
        assert all(more > few for few, more in zip(before, after, strict=True))
        connections.close()
        process.terminate()
        process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
