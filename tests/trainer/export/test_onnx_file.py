"""Exports run in ONNX Runtime, which knows nothing of us."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import onnx
import onnxruntime
import pytest

from mlpserve.model.activations import ACTIVATIONS, OUTPUT_ACTIVATION, FloatArray
from mlpserve.model.inputs import InputSpec
from mlpserve.model.metadata import Metadata
from mlpserve.model.network import Layer, Network
from mlpserve.model.weights import Model
from mlpserve.trainer.errors import ExportError
from mlpserve.trainer.export.onnx_file import to_bytes

TOLERANCE = 1e-5


def network_of(widths: Sequence[int], activation: str, *, gain: float = 1) -> Network:
    """Return a random network; with a higher gain it is surer of its answers."""
    rng = np.random.default_rng(sum(widths))
    layers = []
    for number, (fan_in, fan_out) in enumerate(pairwise(widths), start=1):
        weights = rng.normal(0, gain * np.sqrt(2 / fan_in), (fan_in, fan_out)).astype(np.float32)
        bias = rng.normal(size=fan_out).astype(np.float32)
        is_last = number == len(widths) - 1
        layers.append(Layer(weights, bias, "softmax" if is_last else activation))
    return Network(tuple(layers))


def model_of(network: Network, metadata: Metadata) -> Model:
    sizes = network.layer_sizes
    described = replace(
        metadata,
        layer_sizes=sizes,
        activations=network.activations,
        input=InputSpec((sizes[0],)),
        class_labels=tuple(map(str, range(sizes[-1]))),
    )
    return Model(network, described)


def session_of(content: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def largest_difference(model: Model, counts: Sequence[int]) -> float:
    """Return how far ONNX Runtime is off at most in batches of several sizes."""
    session = session_of(to_bytes(model))
    rng = np.random.default_rng(3)
    largest = 0.0
    for count in counts:
        images = rng.random((count, model.network.layer_sizes[0]), np.float32)
        found: FloatArray = session.run(["probabilities"], {"images": images})[0]
        assert found.dtype == np.float32
        assert found.shape == (count, model.network.layer_sizes[-1])
        largest = max(largest, float(np.abs(found - model.network.probabilities(images)).max()))
    return largest


# With a much higher gain, float32 itself is further off from float64 than this tolerance.
@pytest.mark.parametrize("gain", [1, 2], ids=["unsure", "sure"])
@pytest.mark.parametrize(
    "widths", [(6, 3), (20, 16, 4), (9, 1, 2), (30, 24, 20, 16, 12, 10)], ids=str
)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_onnx_runtime_gives_the_same_probabilities_whatever_the_batch(
    metadata: Metadata, activation: str, widths: tuple[int, ...], gain: float
) -> None:
    model = model_of(network_of(widths, activation, gain=gain), metadata)
    assert largest_difference(model, [1, 2, 7, 64, 1000]) < TOLERANCE


@pytest.mark.parametrize("widths", [(784, 16, 16, 10), (784, 800, 10)], ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_onnx_runtime_gives_the_same_probabilities_at_the_size_of_mnist(
    metadata: Metadata, activation: str, widths: tuple[int, ...]
) -> None:
    assert largest_difference(model_of(network_of(widths, activation), metadata), [300]) < TOLERANCE


def test_both_extremes_of_certainty_are_the_same(metadata: Metadata) -> None:
    # Sums that differ by hundreds: probabilities of exactly 0 and 1, and none is NaN.
    model = model_of(network_of((20, 16, 4), "relu", gain=100), metadata)
    assert largest_difference(model, [100]) < TOLERANCE


def test_every_activation_can_be_exported(metadata: Metadata) -> None:
    kinds = {
        node.op_type.lower()
        for activation in ACTIVATIONS
        for node in onnx.load_from_string(
            to_bytes(model_of(network_of((6, 5, 3), activation), metadata))
        ).graph.node
    }
    assert kinds == {*ACTIVATIONS, OUTPUT_ACTIVATION, "gemm"}


def test_checker_finds_nothing_and_old_runtimes_may_read_it(model: Model) -> None:
    content = to_bytes(model)
    onnx.checker.check_model(content, full_check=True)
    exported = onnx.load_from_string(content)
    assert exported.ir_version == 7
    assert [(entry.domain, entry.version) for entry in exported.opset_import] == [("", 13)]


def test_file_says_what_goes_in_what_comes_out_and_what_it_is(model: Model) -> None:
    session = session_of(to_bytes(model))
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape) == ("images", "tensor(float)", ["N", 6])
    assert (given.name, given.type, given.shape) == ("probabilities", "tensor(float)", ["N", 3])
    described = session.get_modelmeta()
    assert (described.graph_name, described.version) == ("tiny", 1)
    assert described.producer_name == "mlpserve"
    texts = described.custom_metadata_map
    assert set(texts) == {"name", "version", "class_labels", "metadata"}
    assert (texts["name"], texts["version"]) == ("tiny", "1")
    assert json.loads(texts["class_labels"]) == ["cat", "dög", '"bird"']
    assert Metadata.from_json(texts["metadata"]) == model.metadata


def test_parameters_are_bit_for_bit_those_of_the_version(model: Model) -> None:
    exported = onnx.load_from_string(to_bytes(model))
    found = {entry.name: onnx.numpy_helper.to_array(entry) for entry in exported.graph.initializer}
    assert list(found) == ["W1", "b1", "W2", "b2"]
    for one, other in zip(found.values(), model.network.parameters, strict=True):
        assert (one.dtype, one.tobytes()) == (other.dtype, other.tobytes())


def test_same_version_gives_the_same_bytes(model: Model) -> None:
    assert to_bytes(model) == to_bytes(model)


def test_network_that_is_too_large_for_the_format_is_refused_at_once(metadata: Metadata) -> None:
    # Arrays without memory behind them: nothing of 2 GiB is made before the refusal.
    weights = np.broadcast_to(np.float32(0), (65_536, 9_000))
    layer = Layer(weights, np.broadcast_to(np.float32(0), (9_000,)), "softmax")
    with pytest.raises(ExportError, match="the most that one such file can hold, got 2359332000; "):
        to_bytes(model_of(Network((layer,)), metadata))
