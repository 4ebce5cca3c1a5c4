"""ONNX: a version as a graph, which many runtimes run without mlpserve.

    images -> Gemm -> Tanh | Relu | ... -> Gemm -> Tanh | Relu | ... -> Gemm -> Softmax

The input is what the network's definition has: float32 from 0 to 1. How uint8 images become that
is the caller's to do, as everywhere outside of mlpserve; the graph's texts say how. Where a model
has a range of values, the input is these values, and their scaling is in the first layer's weights.
"""

import json
from collections.abc import Iterator
from importlib.metadata import version as installed_version
from typing import Final

import numpy as np
import onnx
from onnx import checker, helper, numpy_helper

from mlpserve.model.activations import ACTIVATIONS
from mlpserve.model.metadata import Metadata
from mlpserve.model.network import Network
from mlpserve.model.weights import Model
from mlpserve.trainer.errors import ExportError

# The oldest that have these operators as we use them, so that runtimes since 2020 take the file.
_OPSET: Final = 13
_IR_VERSION: Final = 7
_MAX_FILE_BYTES: Final = 2**31 - 1  # protobuf's
_OUTPUT_OPERATOR: Final = "Softmax"  # over the last axis, if nothing else is said
_INPUT: Final = "images"
_OUTPUT: Final = "probabilities"


def to_bytes(model: Model) -> bytes:
    """Return the content of an ONNX file.

    Input ``images``: (N, D) float32 from 0 to 1, or of the model's range of values. Output
    ``probabilities``: (N, K) float32. The model's metadata are four strings: ``name``,
    ``version``, ``class_labels`` (a JSON list) and ``metadata`` (the JSON of the weights file).

    Raises:
        ExportError: The network is too large for the format.
    """
    _check_size(model.network)
    exported = helper.make_model(
        _graph(_unscaled(model), model.metadata),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="mlpserve",
        producer_version=installed_version("mlpserve"),
        model_version=model.metadata.version,
    )
    helper.set_model_props(exported, _properties(model.metadata))
    checker.check_model(exported, full_check=True)
    return exported.SerializeToString()


def _check_size(network: Network) -> None:
    size_bytes = sum(array.size * np.float32().itemsize for array in network.parameters)
    if size_bytes > 0.99 * _MAX_FILE_BYTES:  # the rest is for the texts
        raise ExportError(
            f"onnx: expected parameters of at most {_MAX_FILE_BYTES} bytes, the most that one "
            f"such file can hold, got {size_bytes}; use --format safetensors"
        )


def _unscaled(model: Model) -> Network:
    """Return a network that takes float32 values as the server does."""
    first, *others = model.network.layers
    scaling = model.metadata.input.scaling(np.dtype(np.float32))
    return Network((first.unscaled(*scaling), *others))


def _graph(network: Network, metadata: Metadata) -> onnx.GraphProto:
    widths = network.layer_sizes
    value_range = metadata.input.value_range
    scaling = (
        f"N flattened images, from 0 to 1: uint8 / {metadata.input.uint8_divisor}"
        if value_range is None
        else f"N flattened images, values from {value_range}"
    )
    initializers = [
        numpy_helper.from_array(array.astype(np.float32), name)
        for number, layer in enumerate(network.layers, start=1)
        for name, array in ((f"W{number}", layer.weights), (f"b{number}", layer.bias))
    ]
    return helper.make_graph(
        list(_nodes(network)),
        metadata.name,
        [_values(_INPUT, widths[0], scaling)],
        [_values(_OUTPUT, widths[-1], "one a class, in the order of class_labels")],
        initializers,
    )


def _nodes(network: Network) -> Iterator[onnx.NodeProto]:
    inputs = _INPUT
    for number, layer in enumerate(network.layers, start=1):
        sums = f"sums{number}"
        is_last = number == len(network.layers)
        outputs = _OUTPUT if is_last else f"outputs{number}"
        operator = _OUTPUT_OPERATOR if is_last else ACTIVATIONS[layer.activation].onnx_operator
        # Gemm is inputs @ W + b.
        yield helper.make_node("Gemm", [inputs, f"W{number}", f"b{number}"], [sums])
        yield helper.make_node(operator, [sums], [outputs])
        inputs = outputs


def _values(name: str, width: int, description: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(
        name, onnx.TensorProto.FLOAT, ["N", width], doc_string=description
    )


def _properties(metadata: Metadata) -> dict[str, str]:
    return {
        "name": metadata.name,
        "version": str(metadata.version),
        "class_labels": json.dumps(metadata.class_labels),
        "metadata": metadata.to_json(),
    }
