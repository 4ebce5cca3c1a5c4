"""Serves with LitServe: pixels in a form over HTTP in, probabilities out.

python litserve_server.py MODELS PORT
"""

import os
import sys

import litserve
import numpy as np
from forward import Forward
from starlette.requests import Request
from starlette.responses import Response


class Digits(litserve.LitAPI):
    """Joins up to 32 requests."""

    def setup(self, device: str) -> None:
        """Load the network."""
        del device
        self._forward = Forward(os.environ["MODELS"])

    def decode_request(self, request: Request) -> "np.ndarray":
        """Return the images of a request, which LitServe takes as a form only."""
        pixels = np.frombuffer(request["images"].file.read(), np.uint8)
        return pixels.reshape(-1, self._forward.values_per_image)

    def batch(self, inputs: "list[np.ndarray]") -> "list[np.ndarray]":
        """Keep the requests apart: they may have different sizes."""
        return inputs

    def predict(self, batch: "list[np.ndarray]") -> "list[np.ndarray]":
        """Classify the images of all requests together."""
        rows = self._forward(np.concatenate(batch))
        return list(np.split(rows, np.cumsum([len(images) for images in batch])[:-1]))

    def unbatch(self, output: "list[np.ndarray]") -> "list[np.ndarray]":
        """Return the answer to each request."""
        return output

    def encode_response(self, output: "np.ndarray") -> Response:
        """Return the probabilities as they are."""
        return Response(output.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    os.environ["MODELS"] = sys.argv[1]
    api = Digits(max_batch_size=32, batch_timeout=0.001, api_path="/inference")
    server = litserve.LitServer(api, accelerator="cpu", timeout=30)
    server.run(
        port=int(sys.argv[2]), host="127.0.0.1", generate_client_file=False, log_level="error"
    )
