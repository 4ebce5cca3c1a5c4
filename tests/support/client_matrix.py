"""One row of the client's version matrix: its calls, with the releases that this environment has.

    python -W error client_matrix.py NAME

It needs no more than what the extra ``client`` installs. Where tritonclient is there as well, its
messages are used in the same process.
"""

import asyncio
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Final

import numpy as np

if find_spec("tritonclient"):  # first, as whoever adds our client to a program has it
    from tritonclient.grpc import service_pb2

from mlpserve.client import AsyncClient, Client, HealthStatus, InvalidRequestError
from mlpserve.client.testing import FakeServer
from mlpserve.oip import inference_pb2

IMAGES: Final = np.arange(3000, dtype=np.uint8).repeat(2).reshape(1500, 4)
PACKAGES: Final = ("numpy", "grpcio", "protobuf", "tritonclient")


def call_all(target: str) -> None:
    """Make each call of the client once."""
    with Client(target, hedge_after_s=5) as client:
        client.wait_until_ready(timeout_s=10)
        expected = client.predict(IMAGES)
        streamed = list(client.predict_stream([IMAGES[:700], IMAGES[700:]]))
        np.testing.assert_array_equal(
            np.concatenate([each.labels for each in streamed]), expected.labels
        )
        described = client.model()
        if client.models() != [described] or client.health() is not HealthStatus.SERVING:
            raise RuntimeError(f"got {described}")
        try:
            client.predict(np.zeros((1, 3), np.uint8))
        except InvalidRequestError as error:
            if error.field != "images.data":
                raise
        else:
            raise RuntimeError("images of another size were taken")
    asyncio.run(_call_asynchronously(target, expected.labels))


async def _call_asynchronously(target: str, expected: np.ndarray) -> None:
    async with AsyncClient(target) as client:
        np.testing.assert_array_equal((await client.predict(IMAGES)).labels, expected)
        streamed = [each.labels async for each in client.predict_stream([IMAGES])]
        np.testing.assert_array_equal(np.concatenate(streamed), expected)


def meet_tritonclient() -> None:
    """Send a message of tritonclient's through ours of the same name."""
    theirs = service_pb2.ModelInferRequest(model_name="digits", id="seven")
    if str(inference_pb2.ModelInferRequest.FromString(theirs.SerializeToString())) != str(theirs):
        raise RuntimeError("tritonclient's message was read as another")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def main() -> None:
    """Make the calls, and print the row."""
    with FakeServer(input_shape=(2, 2)) as fake:
        call_all(fake.target)
    if find_spec("tritonclient"):
        meet_tritonclient()
    python = ".".join(map(str, sys.version_info[:3]))
    print(f"| {' | '.join([sys.argv[1], python, *map(_version, PACKAGES), 'works'])} |")


if __name__ == "__main__":
    main()
