"""Feeds the decoders of the Open Inference Protocol anything, and tells what must never come of it.

Run by hand for longer, guided by coverage, where atheris is installed:

    python tests/support/oip_attack.py corpus -runs=1000000

``corpus`` is a folder, which is given good requests to begin with where it is not there yet.
"""

import json
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import monotonic_ns
from typing import Any

import numpy as np

from mlpserve.model.compiled import Answer, CompiledModel, Workspace
from mlpserve.model.inputs import InputSpec
from mlpserve.model.metadata import Metadata, Training
from mlpserve.model.network import Layer, Network
from mlpserve.model.weights import Model
from mlpserve.oip import inference_pb2 as pb
from mlpserve.server.errors import ServerError
from mlpserve.server.inference.registry import Registry, Router, ServedModel
from mlpserve.server.inference.request import ParsedRequest
from mlpserve.server.oip.http.body import read_body, write_body
from mlpserve.server.oip.inference import Inference
from mlpserve.server.oip.tensors import DTYPES
from mlpserve.server.statuses import STATUS_OF_ERROR
from mlpserve.server.telemetry.counters import Counters
from mlpserve.server.telemetry.request_record import RequestRecord

MAX_BATCH_IMAGES = 8


def attacked_model() -> CompiledModel:
    """Return a network of 6-3 for images of 2 x 3."""
    rng = np.random.default_rng(5)
    weights = rng.normal(size=(6, 3)).astype(np.float32)
    network = Network((Layer(weights, np.zeros(3, np.float32), "softmax"),))
    training = Training(
        "fast", {}, 0, "pets", "sha256:0", 0.9, 0.9, datetime(2024, 1, 1, tzinfo=UTC)
    )
    labels = ("cat", "dög", '"bird"')
    metadata = Metadata("tiny", 1, (6, 3), ("softmax",), InputSpec((2, 3)), labels, training)
    return CompiledModel(Model(network, metadata))


MODEL = attacked_model()
REGISTRY = Registry({"tiny": ServedModel((MODEL,), {"stable": 1}, 1)})

ROUTER = Router(lambda: REGISTRY)
MESSAGE_BYTES = 1 << 20
INFERENCE = Inference(
    ROUTER, Counters(), max_batch_images=MAX_BATCH_IMAGES, max_message_bytes=MESSAGE_BYTES
)


def attack_grpc(data: bytes) -> str:
    """Send bytes to ModelInfer's decoder; return what became of them.

    Raises:
        Exception: Something that a caller would be told is INTERNAL.
    """
    try:
        request = INFERENCE.parse(data, RequestRecord(arrived_ns=monotonic_ns()))
    except ServerError as error:
        return _checked_refusal(error)
    request.encode(_answer(request))
    return "answered"


def attack_http(body: bytes, header_length: str | None) -> str:
    """Send a body to the decoder of HTTP, as ``attack_grpc`` does."""
    try:
        asked_for = read_body(
            body,
            header_length,
            model_name="tiny",
            model_version="",
            max_values=INFERENCE.max_values,
            image_form=lambda: ("UINT8", 6),
        )
        record = RequestRecord(arrived_ns=monotonic_ns())
        encode = partial(write_body, binary_outputs=asked_for.binary_outputs)
        request = INFERENCE.request(asked_for.request, record, None, encode)
    except ServerError as error:
        return _checked_refusal(error)
    written, length = request.encode(_answer(request))
    json.loads(written[:length])
    return "answered"


def _answer(request: ParsedRequest[Any]) -> Answer:
    (answer,) = MODEL.answers([request.images], Workspace())
    return answer


def _checked_refusal(error: ServerError) -> str:
    assert type(error) in STATUS_OF_ERROR
    sentence = str(error)
    assert 0 < len(sentence) < 1000, sentence
    sentence.encode("utf-8", "backslashreplace")
    return "refused"


def write_seeds(folder: Path) -> None:
    """Write good requests, as ``attack`` reads them."""
    folder.mkdir()
    values = np.full((2, 6), 1)
    for name, dtype in DTYPES.items():
        raw = values.astype(dtype).tobytes()
        request = pb.ModelInferRequest(model_name="tiny", id="1", raw_input_contents=[raw])
        request.inputs.add(name="images", datatype=name, shape=[2, 2, 3])
        output = request.outputs.add(name="probabilities")
        output.parameters["classification"].int64_param = 2
        request.parameters["timeout"].int64_param = 10**7
        (folder / f"raw {name}").write_bytes(b"\0" + request.SerializeToString())
        tensor = {"name": "images", "datatype": name, "shape": [2, 6], "data": values.tolist()}
        (folder / f"json {name}").write_bytes(b"\xff" + json.dumps({"inputs": [tensor]}).encode())
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 6]}
    text = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": 6}}]}).encode()
    (folder / "binary").write_bytes(bytes([100 + len(text)]) + text + bytes(6))


def main() -> None:
    """Let atheris look for bytes that break a decoder; its flags are libFuzzer's."""
    import atheris  # noqa: PLC0415 - only here

    if len(sys.argv) > 1 and not Path(sys.argv[1]).exists() and sys.argv[1][0] != "-":
        write_seeds(Path(sys.argv[1]))
    atheris.instrument_all()

    def attack(data: bytes) -> None:
        kind, rest = data[:1], data[1:]
        if kind < b"\x80":
            attack_grpc(rest)
        else:
            attack_http(rest, str(kind[0] - 100) if kind < b"\xf0" else None)

    atheris.Setup(sys.argv, attack)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
