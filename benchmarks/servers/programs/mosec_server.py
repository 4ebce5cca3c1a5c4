"""Serves with mosec: pixels over HTTP in, probabilities out.

python mosec_server.py MODELS PORT MAX_BATCH_SIZE
"""

import os
import sys

import numpy as np
from forward import Forward
from mosec import Server, Worker

_ARGUMENTS = 4

# mosec reads the arguments itself, and starts this file again for its workers, without them.
if len(sys.argv) == _ARGUMENTS and not sys.argv[1].startswith("-"):
    os.environ["MODELS"], port, os.environ["MAX_BATCH_SIZE"] = sys.argv[1:]
    sys.argv[1:] = ["--port", port, "--timeout", "30000"]


class Inference(Worker):
    """Joins what arrives within a millisecond, where it may."""

    def __init__(self) -> None:
        self._forward = Forward(os.environ["MODELS"])

    def deserialize(self, data: bytes) -> "np.ndarray":
        """Return the images of a request."""
        return np.frombuffer(data, np.uint8).reshape(-1, self._forward.values_per_image)

    def forward(self, data: "list[np.ndarray] | np.ndarray") -> "list[bytes] | bytes":
        """Classify the images of all requests together."""
        if not isinstance(data, list):
            return bytes(self._forward(data))
        rows = self._forward(np.concatenate(data))
        ends = np.cumsum([len(images) for images in data])
        return [part.tobytes() for part in np.split(rows, ends[:-1])]

    def serialize(self, data: bytes) -> bytes:
        """Return the probabilities as they are."""
        return data


if __name__ == "__main__":
    server = Server()
    server.append_worker(
        Inference, max_batch_size=int(os.environ["MAX_BATCH_SIZE"]), max_wait_time=1
    )
    server.run()
