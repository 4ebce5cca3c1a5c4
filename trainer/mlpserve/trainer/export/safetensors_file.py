"""Safetensors: the entries of ``weights.npz`` in a format that others read."""

import numpy as np
from safetensors.numpy import save

from mlpserve.model.weights import Model, model_arrays


def to_bytes(model: Model) -> bytes:
    """Return the content of a safetensors file.

    The tensors are called as in `weights.npz`, and so is the JSON: it is the string ``metadata``
    of the header.
    """
    # Made contiguous because `save` takes the bytes as they lie in memory, whatever the strides.
    tensors = {name: np.ascontiguousarray(array) for name, array in model_arrays(model).items()}
    # One string only: of several, the package writes the order at random.
    return save(tensors, metadata={"metadata": model.metadata.to_json()})
