"""Explanations, by both clients: of a real server, an older one, and the server for tests."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc
import numpy as np
import pytest

from mlpserve.client import (
    AsyncClient,
    Client,
    Explanations,
    InvalidRequestError,
    NotFoundError,
    ServerFaultError,
)
from mlpserve.client.testing import FakeServer
from mlpserve.model.attribution import integrated_gradients
from mlpserve.model.weights import Model
from mlpserve.server.server import Server
from mlpserve.v1 import prediction_pb2

IMAGES: Final = np.random.default_rng(8).integers(0, 256, (40, 2, 3), np.uint8)
CLASSES: Final = np.random.default_rng(9).integers(-1, 3, 40)


def by_either(target: str, *args: Any, **options: Any) -> Explanations:
    """Return what both clients say, which must be the same."""

    async def asynchronous() -> Explanations:
        async with AsyncClient(target) as client:
            return await client.explain(*args, **options)

    with Client(target) as client:
        found = client.explain(*args, **options)
    same = asyncio.run(asynchronous())
    for name in ("attributions", "classes", "logits", "baseline_logits"):
        np.testing.assert_allclose(getattr(found, name), getattr(same, name), rtol=0, atol=1e-6)
    return found


def test_many_images_are_explained_in_order_over_several_requests(
    server: Server, model: Model
) -> None:
    found = by_either(
        server.address, IMAGES, classes=CLASSES, steps=9, max_images_per_request=7, version=1
    )
    network = model.network.astype(np.float64)
    inputs = IMAGES.reshape(40, 6) / 255
    chosen = np.where(CLASSES < 0, network.probabilities(inputs).argmax(axis=1), CLASSES)
    np.testing.assert_array_equal(found.classes, chosen)
    expected = integrated_gradients(network, inputs, chosen, steps=9)
    np.testing.assert_allclose(found.attributions, expected, rtol=0, atol=1e-5)
    assert (len(found), found.predictions.model_version) == (40, 1)
    with Client(server.address) as client:
        labels = client.predict(IMAGES, version=1).labels
    np.testing.assert_array_equal(found.predictions.labels, labels)


def test_errors_say_what_is_missing_to_the_sum_and_slices_are_of_all(server: Server) -> None:
    found = by_either(server.address, IMAGES[:1] / 255, steps=64, classes=2)
    assert np.abs(found.errors).max() < 1e-3
    rough = by_either(
        server.address,
        IMAGES,
        method="gradient_times_input",
        max_images_per_request=16,
        class_names=True,
        timings=True,
    )
    assert np.abs(rough.errors).max() > 1e-3
    some = rough[3:9]
    np.testing.assert_array_equal(some.errors, rough.errors[3:9])
    assert some.predictions.names == rough.predictions.names[3:9]
    assert rough.predictions.timings is not None


def test_requests_are_so_small_that_any_server_takes_them(serve: Callable[..., str]) -> None:
    counts: list[int] = []

    def explain(
        request: prediction_pb2.ExplainRequest, _: grpc.ServicerContext
    ) -> prediction_pb2.ExplainResponse:
        count = request.images.count
        counts.append(count)
        return prediction_pb2.ExplainResponse(
            model_version=1,
            probabilities=bytes(8 * count),
            labels=bytes(4 * count),
            attributions=bytes(24 * count),
            classes=bytes(4 * count),
            logits=bytes(4 * count),
            baseline_logits=bytes(4 * count),
        )

    images = np.zeros((1100, 6), np.uint8)
    for options, most in (
        ({}, 51),
        ({"steps": 256}, 4),
        ({"method": "gradient_times_input"}, 256),
    ):
        counts.clear()
        with Client(serve(Explain=explain)) as client:
            assert len(client.explain(images, **options)) == 1100
        assert (max(counts), sum(counts)) == (most, 1100)


@pytest.mark.parametrize(
    ("options", "field", "message"),
    [
        ({"steps": 0}, "steps", "expected from 1 to 256, got 0"),
        ({"steps": 257}, "steps", "expected from 1 to 256, got 257"),
        ({"steps": 2.5}, "steps", "expected from 1 to 256, got 2.5"),
        ({"steps": 3, "method": "gradient_times_input"}, "steps", "expected none with 'gradient_t"),
        (
            {"method": "lime"},
            "method",
            "'integrated_gradients' or 'gradient_times_input', got 'lime",
        ),
        ({"method": 5}, "method", "expected text"),
        ({"classes": [1, 2]}, "classes", "expected an index, or one for each of 40 images, got [1"),
        ({"classes": [[1], [1, 2]]}, "classes", "expected an index"),
        ({"classes": 1.0}, "classes", "expected an index"),
        ({"classes": "1"}, "classes", "expected an index"),
        ({"classes": True}, "classes", "expected an index"),
        ({"classes": -2}, "classes", "or -1 for the most probable, got -2"),
        ({"classes": 2**40}, "classes", "or -1 for the most probable"),
        ({"max_images_per_request": 0}, "max_images_per_request", "expected at least 1"),
        ({"version": -1}, "version", "expected a positive number"),
        ({"timeout_s": 0}, "timeout_s", "expected seconds above 0"),
        ({"class_names": 3}, "class_names", "expected True or False"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_named_before_anything_is_sent(
    options: dict[str, Any], field: str, message: str
) -> None:
    with Client("localhost:1") as client, pytest.raises(InvalidRequestError) as caught:
        client.explain(IMAGES, **options)
    assert caught.value.field == field
    assert message in str(caught.value)
    with pytest.raises(InvalidRequestError, match=field):
        asyncio.run(AsyncClient("localhost:1").explain(IMAGES, **options))


def test_what_the_server_refuses_is_told_with_field_and_limit(server: Server) -> None:
    with Client(server.address) as client:
        with pytest.raises(InvalidRequestError) as caught:
            client.explain(IMAGES[:2], classes=[0, 3])
        assert caught.value.field == "classes"
        with pytest.raises(InvalidRequestError) as caught:
            client.explain(IMAGES, steps=20)
        assert (caught.value.field, caught.value.limit) == ("images.count", 3)
        with pytest.raises(NotFoundError):
            client.explain(IMAGES[:1], version=9)


def test_of_a_server_that_cannot_explain_it_is_said_which_can(serve: Callable[..., str]) -> None:
    with pytest.raises(ServerFaultError) as caught:
        by_either(target := serve(), IMAGES)
    assert "UNIMPLEMENTED: Method not implemented!; Explain came with mlpserve 0.1" in str(
        caught.value
    )

    async def asynchronous() -> None:
        async with AsyncClient(target) as client:
            await client.explain(IMAGES)

    with pytest.raises(ServerFaultError, match="so the server seems to be older"):
        asyncio.run(asynchronous())


def test_answers_that_break_the_contract_are_the_servers_fault(serve: Callable[..., str]) -> None:
    good: dict[str, Any] = {
        "probabilities": bytes(8),
        "labels": bytes(4),
        "attributions": bytes(24),
        "classes": bytes(4),
        "logits": bytes(4),
        "baseline_logits": bytes(4),
    }
    for name in good:
        broken = prediction_pb2.ExplainResponse(**{**good, name: bytes(3)})
        with (
            Client(serve(Explain=lambda *_, broken=broken: broken)) as client,
            pytest.raises(ServerFaultError, match="answer: expected"),
        ):
            client.explain(IMAGES[:1])


ASKED: Final[list[dict[str, Any]]] = [
    {"images": IMAGES[:2], "classes": [1, -1]},
    {"images": IMAGES[2:5], "classes": 4},
    {"images": IMAGES[5:6], "class_names": True},
    {"images": IMAGES[6:8]},
    {"images": IMAGES[8:10], "method": "gradient_times_input"},
    {"images": IMAGES[10:11], "classes": 10},  # there is none: refused
]


async def in_one_loop(target: str) -> Sequence[Explanations | BaseException]:
    async with AsyncClient(target) as client, client.batching(max_delay_s=0) as joined:
        calls = (joined.explain(**each) for each in ASKED)
        return await asyncio.gather(*calls, return_exceptions=True)


def in_threads(target: str) -> Sequence[Explanations | BaseException]:
    with Client(target) as client, ThreadPoolExecutor(len(ASKED)) as threads:
        joined = client.batching()
        calls = [threads.submit(joined.explain, **each) for each in ASKED]
        return [call.exception() or call.result() for call in calls]


@pytest.mark.parametrize("explain_all", [lambda to: asyncio.run(in_one_loop(to)), in_threads])
def test_calls_that_share_requests_are_explained_each_as_if_it_were_alone(
    explain_all: Callable[[str], Sequence[Explanations | BaseException]],
) -> None:
    with FakeServer() as server, Client(server.target) as client:
        *found, refused = explain_all(server.target)
        for each, asked in zip(found, ASKED[:-1], strict=True):
            assert isinstance(each, Explanations)
            alone = client.explain(**asked)
            np.testing.assert_array_equal(each.classes, alone.classes)
            np.testing.assert_allclose(each.attributions, alone.attributions, rtol=1e-5)
            assert each.predictions.class_names == alone.predictions.class_names
        assert isinstance(refused, InvalidRequestError)


def test_calls_of_one_loop_are_explained_in_as_few_requests_as_the_server_takes() -> None:
    async def explain_all(target: str) -> None:
        async with AsyncClient(target) as client, client.batching() as joined:
            calls = (joined.explain(each[np.newaxis], steps=64) for each in IMAGES)
            await asyncio.gather(*calls)

    with FakeServer() as server:
        asyncio.run(explain_all(server.target))
        # 64 steps of 16 images are 1024 rows.
        assert sorted(len(call.images) for call in server.calls) == [8, 16, 16]


def test_a_server_for_tests_explains_completely() -> None:
    with FakeServer() as fake:
        found = by_either(fake.target, IMAGES, classes=3)
        assert found.attributions.shape == (40, 6)
        assert np.abs(found.errors).max() < 1e-4
        assert found.classes.tolist() == [3] * 40
        fake.answer_labels([7, 2])
        fake.fail("UNAVAILABLE", times=2)
        assert by_either(fake.target, IMAGES[:2]).classes.tolist() == [7, 2]
        assert {call.method for call in fake.calls} == {"Explain"}
        with Client(fake.target) as client, pytest.raises(InvalidRequestError, match="classes"):
            client.explain(IMAGES, classes=10)


@pytest.mark.parametrize("kind", ["to_pandas", "to_polars"])
def test_a_frame_has_the_prediction_and_what_speaks_for_its_class(
    server: Server, kind: str
) -> None:
    found = by_either(server.address, IMAGES[:3], classes=2, class_names=True)
    frame = getattr(found, kind)()
    predicted = list(getattr(found.predictions, kind)().columns)
    attributions = [f"attribution_{number}" for number in range(6)]
    assert list(frame.columns) == [*predicted, "class", "logit", "baseline_logit", *attributions]
    assert list(frame["class"]) == [2, 2, 2]
    assert list(frame["logit"]) == found.logits.tolist()
    for number, name in enumerate(attributions):
        assert list(frame[name]) == found.attributions[:, number].tolist()
