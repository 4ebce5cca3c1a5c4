"""Serves with MLServer: the Open Inference Protocol over grpc.aio, raw contents.

python mlserver_server.py MODELS PORT
"""

import asyncio
import os
import sys

import numpy as np
from forward import Forward
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Digits(MLModel):
    """Runs in the server's own process, which spares a hop."""

    async def load(self) -> bool:
        """Load the network."""
        self._forward = Forward(os.environ["MODELS"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Classify a batch."""
        images = NumpyCodec.decode_input(payload.inputs[0]).astype(np.uint8, copy=False)
        rows = self._forward(images.reshape(-1, self._forward.values_per_image))
        output = NumpyCodec.encode_output("probabilities", rows)
        return InferenceResponse(model_name=self.name, outputs=[output])


async def serve(port: int) -> None:
    """Serve until killed."""
    server = MLServer(
        Settings(
            debug=False,
            parallel_workers=0,
            host="127.0.0.1",
            http_port=port + 1,
            grpc_port=port,
            metrics_endpoint=None,
            grpc_max_message_length=64 * 1024 * 1024,
        )
    )
    await server.start([ModelSettings(name="digits", implementation=Digits)])


if __name__ == "__main__":
    os.environ["MODELS"] = sys.argv[1]
    asyncio.run(serve(int(sys.argv[2])))
