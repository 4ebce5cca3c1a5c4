"""Serves with Ray Serve: pixels over HTTP in, probabilities out.

python ray_server.py MODELS PORT
"""

import sys
import threading
from typing import Any

import numpy as np
import ray
from forward import Forward
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(max_ongoing_requests=64)
class Digits:
    """Joins what arrives within a millisecond, up to 32 requests."""

    def __init__(self, models: str) -> None:
        self._forward = Forward(models)

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.001)
    async def classify(self, batches: "list[np.ndarray]") -> "list[bytes]":
        """Classify the images of all requests together."""
        rows = self._forward(np.concatenate(batches))
        parts = np.split(rows, np.cumsum([len(images) for images in batches])[:-1])
        return [part.tobytes() for part in parts]

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        pixels = np.frombuffer(await request.body(), np.uint8)
        return Response(await self.classify(pixels.reshape(-1, self._forward.values_per_image)))


if __name__ == "__main__":
    ray.init(include_dashboard=False, num_cpus=2)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
    digits: Any = Digits  # Ray's decorator has made something else of it
    serve.run(digits.bind(sys.argv[1]), route_prefix="/inference")
    threading.Event().wait()
