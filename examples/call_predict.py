"""Client of Predict with nothing but gRPC and the code generated from the contract.

    python examples/call_predict.py localhost:50051

For services that cannot use our client library: this is all that a client must do.
"""

import sys

import grpc
import numpy as np

from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc

TIMEOUT_S = 5


def main(target: str) -> None:
    """Send one black image and print the probabilities."""
    with grpc.insecure_channel(target) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        described = stub.GetModel(prediction_pb2.GetModelRequest(), timeout=TIMEOUT_S)
        version = described.model.versions[0]
        images = np.zeros((1, *version.input_shape), np.uint8)
        request = prediction_pb2.PredictRequest(
            images=prediction_pb2.ImageBatch(
                count=len(images),
                data_type=prediction_pb2.DATA_TYPE_UINT8,
                data=images.tobytes(),
            )
        )
        response = stub.Predict(request, timeout=TIMEOUT_S)
    probabilities = np.frombuffer(response.probabilities, "<f4").reshape(len(images), -1)
    for label, probability in zip(version.class_labels, probabilities[0], strict=True):
        print(f"{label}: {100 * probability:.2f} %")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "localhost:50051")
