"""Calls a server with KServe's SDK, in a process that has our messages as well.

    python kserve_client.py GRPC_ADDRESS HTTP_ADDRESS FIRST

FIRST is who is imported first, kserve or mlserve; the other comes second. Prints JSON.
"""

import asyncio
import importlib
import json
import sys

import numpy as np

_, grpc_address, http_address, first = sys.argv
ORDER = ["kserve", "mlpserve.oip.inference_pb2", "mlpserve.client"]
for module in ORDER if first == "kserve" else reversed(ORDER):
    importlib.import_module(module)

import kserve  # noqa: E402 - the order is the point

IMAGES = np.arange(12, dtype=np.float32).reshape(2, 6) / 16


def _request() -> kserve.InferRequest:
    tensor = kserve.InferInput("images", [2, 6], "FP32")
    tensor.set_data_from_numpy(IMAGES, binary_data=True)
    return kserve.InferRequest("tiny", [tensor], request_id="seven")


async def _over_grpc() -> object:
    client = kserve.InferenceGRPCClient(grpc_address)
    try:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("tiny")
        return _plain(await client.infer(_request()))
    finally:
        await client.close()


async def _over_http() -> object:
    config = kserve.RESTConfig(protocol="v2")
    client = kserve.InferenceRESTClient(config)
    try:
        address = f"http://{http_address}"
        assert await client.is_server_live(address)
        assert await client.is_server_ready(address)
        assert await client.is_model_ready(address, "tiny")
        return _plain(await client.infer(address, _request(), model_name="tiny"))
    finally:
        await client.close()


def _plain(response: kserve.InferResponse) -> object:
    return {
        "version": response.model_version,
        "id": response.id,
        "labels": response.get_output_by_name("labels").as_numpy().tolist(),
        "probabilities": response.get_output_by_name("probabilities").as_numpy().tolist(),
    }


def main() -> None:
    """Call both endpoints."""
    found = {"gRPC": asyncio.run(_over_grpc()), "HTTP": asyncio.run(_over_http())}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
