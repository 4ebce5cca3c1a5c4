"""Serves with PyTriton: the Open Inference Protocol by Triton's own server, NumPy behind it.

python pytriton_server.py MODELS PORT
"""

import sys

import numpy as np
from forward import Forward
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

_MAX_BATCH_SIZE = 1024

if __name__ == "__main__":
    models, port = sys.argv[1], int(sys.argv[2])
    forward = Forward(models)

    @batch
    def classify(images: "np.ndarray") -> "dict[str, np.ndarray]":
        """Classify the images of all requests together."""
        return {"probabilities": forward(images)}

    config = TritonConfig(grpc_port=port, http_port=port + 1, allow_metrics=False)
    with Triton(config=config) as triton:
        triton.bind(
            model_name="digits",
            infer_func=classify,
            inputs=[Tensor(name="images", dtype=np.uint8, shape=(forward.values_per_image,))],
            outputs=[Tensor(name="probabilities", dtype=np.float32, shape=(-1,))],
            config=ModelConfig(
                max_batch_size=_MAX_BATCH_SIZE,
                batcher=DynamicBatcher(max_queue_delay_microseconds=0),
            ),
        )
        triton.serve()
