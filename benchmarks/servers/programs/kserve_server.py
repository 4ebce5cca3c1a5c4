"""Serves with the KServe SDK: the Open Inference Protocol over grpc.aio.

python kserve_server.py MODELS PORT
"""

import sys

from forward import Forward
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class Digits(Model):
    """Answers in raw contents."""

    def __init__(self, models: str) -> None:
        super().__init__("digits")
        self._forward = Forward(models)
        self.ready = True

    def predict(
        self, payload: InferRequest, headers: object = None, response_headers: object = None
    ) -> InferResponse:
        """Classify a batch."""
        del headers, response_headers
        rows = self._forward(payload.inputs[0].as_numpy())
        output = InferOutput("probabilities", list(rows.shape), "FP32")
        output.set_data_from_numpy(rows, binary_data=True)
        return InferResponse(payload.id, self.name, [output])


if __name__ == "__main__":
    models, port = sys.argv[1:3]
    server = ModelServer(http_port=int(port) + 1, grpc_port=int(port), enable_latency_logging=False)
    server.start([Digits(models)])
