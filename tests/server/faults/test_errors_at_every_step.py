"""An error at each step of a request, on each endpoint: one answer, and a place given back."""

import http.client
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc
import pytest
from grpc import _server as grpcio

from mlpserve.model.compiled import CompiledModel
from mlpserve.model.versions import publish as publish_model
from mlpserve.model.weights import Model
from mlpserve.oip import inference_pb2
from mlpserve.server.errors import RequestError
from mlpserve.server.grpc_api.fast_lane.calls import HotCall, HotMethod
from mlpserve.server.grpc_api.fast_lane.handler import HotHandler
from mlpserve.server.grpc_api.fast_lane.lane import FastLane
from mlpserve.server.grpc_api.late_calls import LateCalls
from mlpserve.server.grpc_api.parsing import Parser
from mlpserve.server.inference import batcher, queue
from mlpserve.server.inference.batcher import Batcher
from mlpserve.server.inference.explanation import MAX_STEPS
from mlpserve.server.inference.fair_share import FairShare
from mlpserve.server.inference.queue import RowQueue
from mlpserve.server.inference.registry import Router
from mlpserve.server.inference.request import ParsedRequest
from mlpserve.server.inference.shadow import Shadow
from mlpserve.server.oip import inference as oip_inference
from mlpserve.server.oip.http import app as http_app
from mlpserve.server.security.admission import Admission
from mlpserve.server.server import Server
from mlpserve.server.settings.config import ServerConfig
from mlpserve.server.telemetry.counters import Counters, SharedCounters
from mlpserve.server.telemetry.recorder import Recorder
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc
from steady_load import IMAGES, REQUEST

TIMEOUT_S: Final = 60.0
IDLE_S: Final = 0.05
NO_ANSWER: Final = "DEADLINE_EXCEEDED"

OIP_REQUEST: Final = inference_pb2.ModelInferRequest(
    model_name="tiny",
    inputs=[
        inference_pb2.ModelInferRequest.InferInputTensor(
            name="images", datatype="UINT8", shape=[len(IMAGES), 2, 3]
        )
    ],
    raw_input_contents=[IMAGES.tobytes()],
)
# In eight parts, of two images each but for the last.
EXPLAIN_REQUEST: Final = prediction_pb2.ExplainRequest(
    images=prediction_pb2.ImageBatch(
        count=3 * len(IMAGES),
        data_type=REQUEST.images.data_type,
        data=3 * IMAGES.tobytes(),
    ),
    steps=MAX_STEPS,
)
HTTP_REQUEST: Final = {
    "inputs": [
        {
            "name": "images",
            "datatype": "UINT8",
            "shape": [len(IMAGES), 2, 3],
            "data": IMAGES.ravel().tolist(),
        }
    ]
}


class Client:
    """Asks one endpoint of a server, and says how that ended."""

    def __init__(self, endpoint: str, server: Server, channel: grpc.Channel) -> None:
        self._asked: Callable[[], str] = getattr(self, f"_{endpoint.rpartition(' ')[2]}")
        self._server = server
        self._predictions = prediction_pb2_grpc.PredictionServiceStub(channel)

        def rpc(kind: Any, method: str, response: Any) -> Any:
            return kind(
                f"/inference.GRPCInferenceService/{method}",
                request_serializer=inference_pb2.ModelInferRequest.SerializeToString,
                response_deserializer=response.FromString,
            )

        self._rpc = rpc(channel.unary_unary, "ModelInfer", inference_pb2.ModelInferResponse)
        self._stream_rpc = rpc(
            channel.stream_stream, "ModelStreamInfer", inference_pb2.ModelStreamInferResponse
        )

    def ask(self) -> str:
        """Return the status of a call."""
        try:
            return self._asked()
        except grpc.RpcError as error:
            return str(error.code().name)

    def _Predict(self) -> str:
        self._predictions.Predict(REQUEST, timeout=TIMEOUT_S)
        return "OK"

    def _Explain(self) -> str:
        self._predictions.Explain(EXPLAIN_REQUEST, timeout=TIMEOUT_S)
        return "OK"

    def _ModelInfer(self) -> str:
        self._rpc(OIP_REQUEST, timeout=TIMEOUT_S)
        return "OK"

    def _PredictStream(self) -> str:
        request = prediction_pb2.PredictStreamRequest(images=REQUEST.images)
        (_,) = self._predictions.PredictStream(iter([request]), timeout=TIMEOUT_S)
        return "OK"

    def _ModelStreamInfer(self) -> str:
        (response,) = self._stream_rpc(iter([OIP_REQUEST]), timeout=TIMEOUT_S)
        return str(response.error_message) or "OK"

    def _infer(self) -> str:
        asked = http.client.HTTPConnection("127.0.0.1", self._server.http_port, timeout=TIMEOUT_S)
        asked.request("POST", "/v2/models/tiny/infer", json.dumps(HTTP_REQUEST))
        with asked.getresponse() as response:
            answer = json.loads(response.read())
        asked.close()
        return "OK" if response.status == http.HTTPStatus.OK else str(answer["error"])


EXPLAIN: Final = ("fast lane Explain", "public API Explain")
LANE: Final = ("fast lane Predict", "fast lane ModelInfer", EXPLAIN[0])
UNARY: Final = ("public API Predict", "public API ModelInfer", EXPLAIN[1])
STREAMS: Final = ("public API PredictStream", "public API ModelStreamInfer")
HTTP: Final = ("HTTP infer",)
GRPC: Final = (*LANE, *UNARY, *STREAMS)
ALL: Final = (*GRPC, *HTTP)
OF_PREDICTIONS: Final = tuple(each for each in ALL if each not in EXPLAIN)


class Step(NamedTuple):
    """One step, as what is called there, and where it is taken.

    Attributes:
        name: What it is.
        places: What is called, one of these first: what has it, and its name there.
        endpoints: Where.
    """

    name: str
    places: tuple[tuple[Any, str], ...]
    endpoints: tuple[str, ...] = ALL


# Of ``ParsedRequest`` these are called by what took it from the queue.
OF_REQUEST: Final = ("is_wanted", "encode")
STEPS: Final = (
    Step("a call begins", ((FastLane, "begin"),), LANE),
    Step("the next call is asked for", ((HotMethod, "request_calls"),), LANE),
    Step("admission", ((Admission, "enter"),)),
    Step("a place is taken", ((FairShare, "take"),)),
    Step("the request is asked for", ((HotCall, "start"),), LANE),
    Step("the request is accepted", ((HotHandler, "accept"),), LANE),
    Step("arrived", ((Recorder, "arrived"),)),
    Step("router key", ((Router, "key"), (Router, "stream_key"))),
    Step("the request is expected", ((LateCalls, "add"),), (*LANE, *UNARY)),
    Step("the request arrives", ((grpcio, "_receive_message"), (LateCalls, "discard")), GRPC),
    Step("the request is no more expected", ((LateCalls, "discard"),), GRPC),
    Step("a thread is given to the request", ((ThreadPoolExecutor, "submit"),), (*UNARY, *STREAMS)),
    Step(
        "parse",
        ((Parser, "parse"), (oip_inference, "decode_request"), (http_app, "read_body")),
    ),
    Step("read", ((Recorder, "read"),)),
    Step("submit", ((Batcher, "submit"),), (*UNARY, *STREAMS, *HTTP)),
    Step("room in the queue", ((RowQueue, "has_room"),)),
    Step("queue.put", ((RowQueue, "put"),)),
    Step("a place in the queue", ((queue, "heappush"),)),
    Step("work", ((HotHandler, "work"),), LANE),
    Step("queue.take", ((RowQueue, "take"),)),
    Step("is the request wanted", ((ParsedRequest, "is_wanted"),)),
    Step("in the middle of queue.take", ((RowQueue, "_forget_old_lines"),)),
    Step("run", ((CompiledModel, "answers"),)),
    Step("timing", ((batcher, "_timing"),)),
    Step("recorder.computed", ((Recorder, "computed"),)),
    Step("counting the pass", ((Counters, "add_batch"), (SharedCounters, "add_batch"))),
    Step("the outcome is handed on", ((HotHandler, "_reply"),), LANE),
    Step("encode", ((ParsedRequest, "encode"),)),
    Step("call.answer", ((HotCall, "answer"),), LANE),
    Step("recorder.answered", ((Recorder, "answered"),)),
    Step("counting the answer", ((Counters, "add_answered"), (SharedCounters, "add_answered"))),
    Step("recorder.replied", ((Recorder, "replied"),)),
    Step("shadow.offer", ((Shadow, "offer"),), OF_PREDICTIONS),
    Step("the pace is learned", ((RowQueue, "learn_pace"),)),
    Step("the answer is sent", ((HotCall, "_on_sent"),), LANE),
    Step("admission.leave", ((Admission, "leave"),)),
    Step("a place is given back", ((FairShare, "give_back"),)),
)
# With a request that is refused: what becomes of an error while an error is told.
REFUSING: Final = (
    Step("recorder.refused", ((Recorder, "refused"),)),
    Step("counting a refusal", ((Counters, "add_call"), (SharedCounters, "add_call"))),
    Step("call.fail", ((HotCall, "fail"),), LANE),
)


GROUPS: Final = {"fast lane": LANE, "public API": UNARY, "streams": STREAMS, "HTTP": HTTP}
DOCUMENT: Final = Path(__file__).parents[3] / "docs" / "faults.md"
BEGIN: Final = "<!-- steps: begin -->\n"
END: Final = "<!-- steps: end -->\n"


def table_of_steps() -> str:
    """Return all steps as the document lists them."""
    rows = ["| step | what fails there | endpoints |", "|---|---|---|"]
    for step in (*STEPS, *(each._replace(name=f"refusal: {each.name}") for each in REFUSING)):
        places = (f"`{owner.__name__.rpartition('.')[2]}.{name}`" for owner, name in step.places)
        endpoints = {*step.endpoints, *EXPLAIN}
        groups = [name for name, group in GROUPS.items() if set(group) <= endpoints]
        listed = "all" if len(groups) == len(GROUPS) else ", ".join(groups)
        rows.append(f"| {step.name} | {', '.join(places)} | {listed} |")
    return "\n".join(rows) + "\n"


class Fault:
    """Raises an error the first time that any of some functions is called, in place of it."""

    def __init__(
        self, error: Exception, patch: pytest.MonkeyPatch, places: tuple[tuple[Any, str], ...]
    ) -> None:
        self._error: Exception | None = error
        self._patch = patch
        self._lock = threading.Lock()
        for owner, name in places:
            self._put_in(owner, name)

    @property
    def has_come(self) -> bool:
        """Return whether the error was raised."""
        return self._error is None

    def raise_once(self) -> None:
        """Raise the error, where that was not done."""
        with self._lock:
            error, self._error = self._error, None
        if error is not None:
            raise type(error)(*error.args)  # a fresh one, which keeps nothing alive afterwards

    def _put_in(self, owner: Any, name: str) -> None:
        """Have a function raise it."""
        if owner is ParsedRequest:
            self._put_in_requests(name)
            return
        function = getattr(owner, name)

        def failing(*arguments: Any, **options: Any) -> Any:
            self.raise_once()
            return function(*arguments, **options)

        self._patch.setattr(owner, name, failing)

    def _put_in_requests(self, name: str) -> None:
        put = RowQueue.put

        def put_failing(waiting: RowQueue, request: ParsedRequest[Any]) -> None:
            function = getattr(request, name)

            def failing(*arguments: Any) -> Any:
                self.raise_once()
                return function(*arguments)

            setattr(request, name, failing)
            put(waiting, request)

        self._patch.setattr(RowQueue, "put", put_failing)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, model: Model) -> Iterator[list[Server]]:
    """Return one of each adapter, with one place: one that is not given back is one too many."""
    models = tmp_path_factory.mktemp("models")
    publish_model(models, Model(model.network, replace(model.metadata, name="tiny")))
    running = [
        Server(
            ServerConfig(
                models=models,
                port=0,
                http_port=0,
                fast_lane=fast_lane,
                max_concurrent_requests=1,
                shadow="candidate",
            )
        )
        for fast_lane in (True, False)
    ]
    for each in running:
        each.start()
    yield running
    for each in running:
        each.stop()


def cases(steps: tuple[Step, ...]) -> list[Any]:
    return [
        pytest.param(
            step,
            endpoint,
            id=f"{step.name}, {endpoint}",
            marks=[pytest.mark.exhaustive] * (endpoint in EXPLAIN),
        )
        for step in steps
        for endpoint in step.endpoints
    ]


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    """Keep pytest from keeping what is logged, and with it all that an error has passed."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def test_the_document_lists_every_step(request: pytest.FixtureRequest) -> None:
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    listed, _, after = rest.partition(END)
    if request.config.getoption("--fault-table") is not None:  # `make faults` makes it anew
        DOCUMENT.write_text(f"{before}{BEGIN}{table_of_steps()}{END}{after}")
    else:
        assert listed == table_of_steps(), "run this test with --fault-table docs/faults.md"


ERRORS: Final = [
    pytest.param(MemoryError(), id="memory"),
    pytest.param(RuntimeError("a fault"), id="fault", marks=pytest.mark.exhaustive),
]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(("step", "endpoint"), cases(STEPS))
def test_an_error_at_any_step_ends_one_call_once_and_gives_its_place_back(
    servers: list[Server],
    monkeypatch: pytest.MonkeyPatch,
    step: Step,
    endpoint: str,
    error: Exception,
) -> None:
    with monkeypatch.context() as patch:
        check(servers, endpoint, Fault(error, patch, step.places))


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(("step", "endpoint"), cases(REFUSING))
def test_an_error_while_a_request_is_refused_ends_it_once_and_gives_its_place_back(
    servers: list[Server],
    monkeypatch: pytest.MonkeyPatch,
    step: Step,
    endpoint: str,
    error: Exception,
) -> None:
    with monkeypatch.context() as patch:
        Fault(RequestError("refused"), patch, ((Router, "key"), (Router, "stream_key")))
        check(servers, endpoint, Fault(error, patch, step.places))


def check(servers: list[Server], endpoint: str, fault: Fault) -> None:
    """Check that a call with a fault ends, the next goes well, and nothing is left to do then."""
    server = servers[endpoint.startswith("public API")]
    with grpc.insecure_channel(server.address) as channel:
        client = Client(endpoint, server, channel)
        assert client.ask() != NO_ANSWER
        wait_until(lambda: fault.has_come)
        wait_until(lambda: client.ask() == "OK")
    used_s = time.process_time()
    threading.Event().wait(IDLE_S)
    assert time.process_time() - used_s < IDLE_S / 2


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for what is so as soon as the answer to a call that was received has ended the call."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline_s
