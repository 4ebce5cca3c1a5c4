"""Replicas of Ray Serve: what becomes of models, load and failures; the contract is beside this."""

import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest

from mlpserve.client import Client, NotFoundError
from mlpserve.model.labels import set_label
from mlpserve.model.versions import publish
from mlpserve.model.weights import Model
from ray_application import BIN, REPOSITORY, RayServer, wait_until

IMAGES = np.random.default_rng(8).integers(0, 256, (5, 2, 3), np.uint8)
CALLERS = 12
TIMEOUT_S = 240.0  # of what takes a second where nobody else is busy


@contextmanager
def steady_load(server: RayServer, model: Model) -> Iterator[Callable[[], int]]:
    """Have callers ask until the block ends; yield what counts answers. All have to be right."""
    expected = model.network.probabilities(model.metadata.input.scale(IMAGES))
    is_over, wrong = threading.Event(), list[object]()
    answered = [0] * CALLERS

    def ask(caller: int) -> None:
        try:
            with Client(server.address, timeout_s=TIMEOUT_S) as client:
                while not is_over.is_set():
                    found = client.predict(IMAGES, model="tiny").probabilities
                    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
                    answered[caller] += 1
        except Exception as error:  # noqa: BLE001 - whatever it is, it is shown
            wrong.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        yield lambda: sum(answered)
    finally:
        is_over.set()
        for thread in threads:
            thread.join(TIMEOUT_S)
    assert wrong == []
    assert min(answered) > 0


def test_before_there_is_a_model_requests_are_refused_in_words_and_later_ones_are_answered(
    server: RayServer, first_answer: list[str]
) -> None:
    assert first_answer[0].startswith("UNAVAILABLE: no model is "), first_answer


def test_replicas_come_and_go_with_the_load_and_every_answer_is_right(
    server: RayServer, model: Model
) -> None:
    with steady_load(server, model):
        wait_until(lambda: server.replicas() == 3, "no replicas were added")
    wait_until(lambda: server.replicas() == 1, "none was taken away")


def test_a_replica_that_is_killed_under_load_costs_no_caller_an_answer(
    server: RayServer, model: Model
) -> None:
    expected = model.network.probabilities(model.metadata.input.scale(IMAGES))
    with (
        steady_load(server, model) as answers,
        Client(server.address, timeout_s=TIMEOUT_S) as client,
    ):
        streamed = 0
        for streamed, found in enumerate(client.predict_stream([IMAGES] * 50), 1):
            np.testing.assert_allclose(found.probabilities, expected, rtol=0, atol=1e-6)
            if streamed == 10:
                server.kill_a_replica()
        assert streamed == 50
        before = answers()
        wait_until(lambda: answers() > before + 10 * CALLERS, "no answers after it")


def test_an_application_that_is_deployed_anew_costs_no_caller_an_answer(
    server: RayServer, model: Model
) -> None:
    with steady_load(server, model) as answers:
        wait_until(lambda: answers() > CALLERS, "no answers")
        before = server.replica_names()
        server.deploy(max_batch_rows=256)
        wait_until(lambda: not before & server.replica_names(), "none was replaced")
        wait_until(lambda: server.replicas() > 0, "no replica runs")


def test_over_http_it_is_said_that_only_grpc_is_answered(server: RayServer) -> None:
    with pytest.raises(HTTPError, match="404") as refused:
        urlopen(f"http://{server.http}/mlpserve", timeout=TIMEOUT_S)
    assert b"answers gRPC only" in refused.value.read()
    refused.value.close()


def test_versions_labels_and_models_come_and_go_in_every_replica(
    server: RayServer, model: Model
) -> None:
    other = Model(model.network, replace(model.metadata, name="other"))
    with Client(server.address, timeout_s=TIMEOUT_S) as client:
        for version in (1, 2):
            publish(server.models, other)
            wait_until(lambda: _version(client) == version, "it is not served")  # noqa: B023
        set_label(server.models, "other", "stable", 1)
        wait_until(lambda: _version(client) == 1, "the label has no effect")
        assert client.predict(IMAGES, model="other", version=2).model_version == 2
        (server.models / "other").rename(server.models.parent / "gone")
        wait_until(lambda: _version(client) == 0, "it is still served")
        with pytest.raises(NotFoundError, match="no model 'other' is served; served are: tiny"):
            client.predict(IMAGES, model="other")


def _version(client: Client) -> int:
    """Return which version of the other model answers; 0 where there is none."""
    try:
        return client.predict(IMAGES, model="other").model_version
    except NotFoundError:
        return 0


def test_what_the_page_says_of_calls_holds(
    server: RayServer, capsys: pytest.CaptureFixture[str]
) -> None:
    code = code_of_the_page("python").replace("localhost:50051", server.address)
    exec(code.replace("28, 28", "2, 3"), {})  # noqa: S102 - our own
    assert len(capsys.readouterr().out.split()) == 3


def test_what_the_page_shows_of_the_example_is_in_it() -> None:
    shown = code_of_the_page("yaml")
    example = (REPOSITORY / "deploy/ray/serve.yaml").read_text()
    assert {line.strip() for line in shown.splitlines()} <= {
        line.partition("  #")[0].strip() for line in example.splitlines()
    }


def code_of_the_page(language: str) -> str:
    page = (REPOSITORY / "docs/ray-serve.md").read_text()
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return str(code)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["models=models"], "models: expected the absolute path of a folder that all nodes have"),
        (["models=/m", "max_replicas=many"], "max_replicas: expected a whole number, at least 1"),
    ],
)
def test_the_command_says_which_argument_is_wrong_before_it_starts_anything(
    arguments: list[str], sentence: str
) -> None:
    command = [str(BIN / "serve"), "run", "mlpserve.server.ray_serve:app", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    assert ended.returncode != 0
    assert sentence in ended.stderr
