"""Arguments that nobody should give: each is refused by its name, and by our errors only."""

import asyncio
import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from mlpserve.client import AsyncClient, Client, ClientError, InvalidRequestError
from mlpserve.server.server import Server

IMAGES = np.zeros((1, 6), np.uint8)


class Raising:
    """An object of which every use fails."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("boom")

    def __repr__(self) -> str:
        raise RuntimeError("boom")

    def __array__(self, *_: object, **__: object) -> Any:
        raise RuntimeError("boom")

    def __float__(self) -> float:
        raise RuntimeError("boom")

    def __index__(self) -> int:
        raise RuntimeError("boom")

    def __bool__(self) -> bool:
        raise RuntimeError("boom")


NO_NUMBERS: dict[str, list[tuple[Any, str]]] = {
    "timeout_s": [
        (0, "timeout_s: expected seconds above 0, got 0 (int)"),
        ("5", "timeout_s: expected seconds above 0, got '5'"),
        (b"5", "timeout_s: expected seconds above 0, got b'5' (bytes)"),
        (math.nan, "timeout_s: expected seconds above 0, got nan (float)"),
        (math.inf, "timeout_s: expected at most 1000000000 seconds, got inf (float)"),
        (np.float32(np.inf), "timeout_s: expected at most 1000000000 seconds, got"),
        (10**400, "timeout_s: expected seconds above 0, got 1000"),
        (1j, "timeout_s: expected seconds above 0, got 1j (complex)"),
        (np.array([1, 2]), "timeout_s: expected seconds above 0, got array([1, 2]) (ndarray)"),
        (Raising(), "timeout_s: expected seconds above 0, got a value that cannot be shown"),
    ],
    "version": [
        ("1", "version: expected a positive number, or 0 for none in particular, got '1'"),
        (1.0, "got 1.0 (float)"),
        (True, "got True (bool)"),
        (-1, "got -1 (int)"),
        (2**63, "got 9223372036854775808 (int)"),
        (np.array([1, 2]), "got array([1, 2]) (ndarray)"),
        (Raising(), "version: expected a positive number"),
    ],
    "model": [
        (5, "model: expected text, got 5 (int)"),
        (b"m", "model: expected text, got b'm' (bytes)"),
        ("\udcff", "model: expected valid Unicode text, got '\\udcff'"),
        (Raising(), "model: expected text, got a value that cannot be shown"),
    ],
    "label": [
        (["canary"], "label: expected text, got ['canary'] (list)"),
        ("x" * 3 + "\ud800", "label: expected valid Unicode text, got 'xxx\\ud800'"),
    ],
    "class_names": [
        ("yes", "class_names: expected True or False, got 'yes'"),
        (Raising(), "class_names: expected True or False"),
    ],
    "timings": [(np.array([1, 2]), "timings: expected True or False, got array([1, 2]) (ndarray)")],
}
ONLY_PREDICT: dict[str, list[tuple[Any, str]]] = {
    "max_images_per_request": [
        (0, "max_images_per_request: expected at least 1, got 0 (int)"),
        (2**70, "max_images_per_request: expected at least 1, got 1180591620717411303424 (int)"),
        ("9", "max_images_per_request: expected at least 1, got '9'"),
        (1.5, "max_images_per_request: expected at least 1, got 1.5 (float)"),
    ],
    "images": [
        (None, "images: expected"),
        (Raising(), "images: expected an array: boom"),
        ([Raising()], "images: expected an array: boom"),
        ({"a": 1}, "images: expected (count, ...) with at least one image, got shape ()"),
        (iter([]), "images: expected (count, ...) with at least one image, got shape ()"),
        ("text", "images: expected (count, ...) with at least one image, got shape ()"),
        ([[1, "a"]], "images: expected"),
        (np.zeros((1, 6), [("a", "u1")]), "images: expected"),
        (np.zeros((0, 6)), "with at least one image, got shape (0, 6)"),
    ],
}
BATCHES: list[tuple[Any, str]] = [
    (None, "batches: expected an iterable of arrays of images, got None (NoneType)"),
    (5, "batches: expected an iterable of arrays of images, got 5 (int)"),
    (Raising(), "batches: expected an iterable of arrays of images, got a value that cannot"),
    (np.uint8(5), "batches: expected an iterable of arrays of images, got"),
    (np.array(5), "images: expected (count, ...) with at least one image, got shape ()"),
    (np.zeros(6), "images: expected (count, ...) with at least one image, got shape (1,)"),
    ("text", "images: expected (count, ...) with at least one image, got shape ()"),
    ([None], "images: expected"),
    ([Raising()], "images: expected an array: boom"),
]


def refused(call: Callable[[], object], message: str, field: str | None) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        call()
    assert message in str(caught.value)
    if field is not None:
        assert caught.value.field == field


def cases(table: dict[str, list[tuple[Any, str]]]) -> list[Any]:
    return [
        pytest.param(name, value, message, id=f"{name}-{number}")
        for name, values in table.items()
        for number, (value, message) in enumerate(values)
    ]


async def first(client: AsyncClient, batches: Any, **arguments: Any) -> object:
    return await anext(client.predict_stream(batches, **arguments))


# Nothing listens there: all is refused before a server is asked.
TARGET = "localhost:1"


@pytest.mark.parametrize(("name", "value", "message"), cases(NO_NUMBERS | ONLY_PREDICT))
def test_an_argument_of_predict(name: str, value: Any, message: str) -> None:
    arguments: dict[str, Any] = {"images": IMAGES} | {name: value}
    with Client(TARGET) as client:
        refused(lambda: client.predict(**arguments), message, name)
    asynchronous = AsyncClient(TARGET)
    refused(lambda: asyncio.run(asynchronous.predict(**arguments)), message, name)


@pytest.mark.parametrize(("name", "value", "message"), cases(NO_NUMBERS))
def test_an_argument_of_a_stream(name: str, value: Any, message: str) -> None:
    with Client(TARGET) as client:
        refused(lambda: list(client.predict_stream([IMAGES], **{name: value})), message, name)


@pytest.mark.parametrize(("batches", "message"), BATCHES, ids=range(len(BATCHES)))
def test_the_batches_of_a_stream(server: Server, batches: Any, message: str) -> None:
    with Client(server.address) as client:
        refused(lambda: list(client.predict_stream(batches)), message, None)

    async def asynchronous() -> None:
        async with AsyncClient(server.address) as client:
            await anext(client.predict_stream(batches))

    refused(lambda: asyncio.run(asynchronous()), message, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": None}, "target: expected HOST:PORT"),
        ({"target": 50051}, "target: expected text, got 50051 (int)"),
        ({"target": "unix:\udcff"}, "target: expected valid Unicode text"),
        ({"target": Raising()}, "target: expected text, got a value that cannot be shown"),
        ({"credentials": "key"}, "credentials: expected what grpc.ssl_channel_credentials makes"),
        ({"token": b"secret"}, "token: expected printable ASCII characters without spaces"),
        ({"token": "sec\nret"}, "token: expected printable ASCII characters without spaces"),
        ({"timeout_s": "1"}, "timeout_s: expected seconds above 0, got '1'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_argument_of_a_client(arguments: dict[str, Any], message: str) -> None:
    given = {"target": TARGET} | arguments
    for kind in (Client, AsyncClient):
        with pytest.raises(InvalidRequestError) as caught:
            kind(**given)
        assert message in str(caught.value)
        assert caught.value.field == next(iter(arguments))
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda client: client.model(5), "name"),
        (lambda client: client.model(version="1"), "version"),
        (lambda client: client.model(version=1, label="canary"), "label"),
        (lambda client: client.models(timeout_s="1"), "timeout_s"),
        (lambda client: client.health(5), "service"),
        (lambda client: client.health(timeout_s=0), "timeout_s"),
        (lambda client: client.wait_until_ready(timeout_s=math.nan), "timeout_s"),
    ],
)
def test_an_argument_of_another_method(call: Callable[[Any], Any], field: str) -> None:
    with Client(TARGET) as client:
        refused(lambda: call(client), f"{field}: expected ", field)
    refused(lambda: asyncio.run(call(AsyncClient(TARGET))), f"{field}: expected ", field)


@pytest.mark.parametrize(
    "arguments",
    [
        dict.fromkeys(
            ["model", "version", "label", "timeout_s", "max_images_per_request", "class_names"]
        ),
        {"timeout_s": np.float32(5), "version": np.int64(2)},
        {"timeout_s": np.array(5), "version": np.uint8(2), "timings": np.True_},
        {"timeout_s": Decimal(5), "max_images_per_request": np.int8(1)},
        {"timeout_s": Fraction(7, 2)},
        {"timeout_s": 1e9},
    ],
    ids=str,
)
def test_numbers_of_every_library_and_none_are_taken(
    server: Server, arguments: dict[str, Any]
) -> None:
    with Client(server.address, timeout_s=None, token=None) as client:
        assert client.predict(IMAGES, **arguments).model_version == 2


def test_an_iterable_that_fails_halfway_fails_as_it_is_and_leaves_nothing_behind(
    client: Client,
) -> None:
    class DiskError(Exception):
        pass

    def batches() -> Any:
        yield IMAGES
        raise DiskError

    answers = client.predict_stream(batches())
    next(answers)
    with pytest.raises(DiskError):
        next(answers)


def test_what_the_server_says_of_a_refusal_is_in_the_error(client: Client) -> None:
    with pytest.raises(ClientError) as caught:
        client.predict(np.zeros((65, 6), np.uint8))
    assert (caught.value.field, caught.value.limit) == ("images.count", 64)
