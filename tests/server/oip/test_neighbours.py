"""Our messages share a process with those of others that bear the same names."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from mlpserve.client import Client
from mlpserve.server.server import Server

REPOSITORY = Path(__file__).parents[3]
PARTS = ("client", "model", "proto", "server")
IMPORT_BOTH = """
import sys
for name in sys.argv[1:]:
    __import__(name)
from mlpserve.oip import inference_pb2 as ours
from tritonclient.grpc import service_pb2 as theirs
sent = theirs.ModelInferRequest(model_name="tiny", id="seven")
sent.inputs.add(name="images", shape=[1, 6]).contents.fp32_contents.append(0.5)
sent.parameters["timeout"].int64_param = 7
read = ours.ModelInferRequest.FromString(sent.SerializeToString())
assert str(read) == str(sent)
assert type(read) is not type(sent)
"""
MODULES = [
    "mlpserve.oip.inference_pb2", "mlpserve.server.server", "mlpserve.client", "tritonclient.grpc",
    "tritonclient.http",
]  # fmt: skip


@pytest.mark.parametrize("modules", [MODULES, MODULES[::-1]], ids=["ours first", "theirs first"])
def test_tritonclient_shares_a_process_with_our_server_and_client(modules: list[str]) -> None:
    if find_spec("tritonclient") is None:
        pytest.skip("tritonclient is part of the development environment only")
    subprocess.run([sys.executable, "-c", IMPORT_BOTH, *modules], check=True)


@pytest.mark.exhaustive
@pytest.mark.parametrize("imports_us_first", [False, True])
@pytest.mark.parametrize("neighbour", ["kserve", "mlserver"])
def test_clients_with_messages_of_their_own_are_answered_in_one_process_with_ours(
    server: Server, http_address: str, neighbour: str, *, imports_us_first: bool
) -> None:
    python = REPOSITORY / ".venv-peers-serving" / neighbour / "bin" / "python"
    if not python.exists():
        pytest.skip(f"`make peers-serving` has not installed {neighbour}")
    program = Path(__file__).parent / "neighbours" / f"{neighbour}_client.py"
    run = subprocess.run(
        [
            python,
            program,
            server.address,
            http_address,
            "mlpserve" if imports_us_first else neighbour,
        ],
        env={**os.environ, "PYTHONPATH": ":".join(str(REPOSITORY / part) for part in PARTS)},
        stdout=subprocess.PIPE,
        check=True,
        timeout=240,  # of which compiling what it imports, where it is new, takes most
    )
    images = np.arange(12, dtype=np.float32).reshape(2, 6) / 16
    with Client(server.address) as client:
        plain = client.predict(images)
    for endpoint, found in json.loads(run.stdout).items():
        # KServe's client passes over the version in an answer over HTTP.
        assert found["version"] == "2" or (neighbour, endpoint) == ("kserve", "HTTP")
        assert found["id"] == "seven"
        assert np.ravel(found["labels"]).tolist() == plain.labels.tolist()
        probabilities = np.array(found["probabilities"], np.float32).tobytes()
        assert probabilities == plain.probabilities.tobytes(), endpoint
