"""Calls a server with MLServer's messages and converters, in a process that has ours as well.

    python mlserver_client.py GRPC_ADDRESS HTTP_ADDRESS FIRST

As kserve_client.py; MLServer has no client for HTTP.
"""

import importlib
import json
import sys

import grpc
import numpy as np

_, grpc_address, _, first = sys.argv
ORDER = ["mlserver.grpc.dataplane_pb2", "mlpserve.oip.inference_pb2", "mlpserve.client"]
for module in ORDER if first == "mlserver" else reversed(ORDER):
    importlib.import_module(module)

from mlserver.codecs import NumpyCodec  # noqa: E402 - the order is the point
from mlserver.grpc import converters, dataplane_pb2, dataplane_pb2_grpc  # noqa: E402
from mlserver.types import InferenceRequest  # noqa: E402

IMAGES = np.arange(12, dtype=np.float32).reshape(2, 6) / 16


def main() -> None:
    """Ask with typed contents, as MLServer writes them."""
    asked = InferenceRequest(id="seven", inputs=[NumpyCodec.encode_input("images", IMAGES)])
    request = converters.ModelInferRequestConverter.from_types(asked, model_name="tiny")
    with grpc.insecure_channel(grpc_address) as channel:
        stub = dataplane_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ServerReady(dataplane_pb2.ServerReadyRequest()).ready
        response = stub.ModelInfer(request)
    answer = converters.ModelInferResponseConverter.to_types(response)
    outputs = {each.name: NumpyCodec.decode_output(each).tolist() for each in answer.outputs}
    found = {"version": answer.model_version, "id": answer.id, **outputs}
    sys.stdout.write(json.dumps({"gRPC": found}))


if __name__ == "__main__":
    main()
