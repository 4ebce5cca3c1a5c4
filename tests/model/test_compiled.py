import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.model.compiled import CompiledModel, Images, Workspace
from mlpserve.model.inputs import InputSpec
from mlpserve.model.metadata import Metadata
from mlpserve.model.network import Layer, Network
from mlpserve.model.weights import Model

FEATURES = 6


def model_of(metadata: Metadata, sizes: tuple[int, ...], activation: str, seed: int) -> Model:
    rng = np.random.default_rng(seed)
    activations = (*[activation] * (len(sizes) - 2), "softmax")
    layers = [
        Layer(
            rng.normal(size=(fan_in, fan_out)).astype(np.float32),
            rng.normal(size=fan_out).astype(np.float32),
            layer_activation,
        )
        for fan_in, fan_out, layer_activation in zip(
            sizes[:-1], sizes[1:], activations, strict=True
        )
    ]
    described = Metadata(
        **{
            **metadata.__dict__,
            "layer_sizes": sizes,
            "activations": activations,
            "input": InputSpec((sizes[0],)),
            "class_labels": tuple(map(str, range(sizes[-1]))),
        }
    )
    return Model(Network(tuple(layers)), described)


def images_of(rng: np.random.Generator, count: int, dtype: str) -> Images:
    pixels: npt.NDArray[np.uint8] = rng.integers(0, 256, (count, FEATURES), np.uint8)
    return pixels if dtype == "uint8" else (pixels / np.float32(255)).astype(np.float32)


@given(
    hidden=st.lists(st.integers(1, 9), max_size=3),
    activation=st.sampled_from(["tanh", "relu", "sigmoid"]),
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    dtype_and_seed=st.tuples(st.sampled_from(["uint8", "float32"]), st.integers(0, 2**32 - 1)),
)
def test_joined_batches_are_answered_as_the_plain_network_answers_each(
    metadata: Metadata,
    hidden: list[int],
    activation: str,
    counts: list[int],
    dtype_and_seed: tuple[str, int],
) -> None:
    dtype, seed = dtype_and_seed
    model = model_of(metadata, (FEATURES, *hidden, 3), activation, seed)
    rng = np.random.default_rng(seed)
    batches = [images_of(rng, count, dtype) for count in counts]
    found = CompiledModel(model).classify(batches, Workspace())
    inputs = model.metadata.input.scale(np.concatenate(batches))
    expected = model.network.probabilities(inputs)
    np.testing.assert_allclose(found.probabilities, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found.labels, found.probabilities.argmax(axis=1))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 11])
def test_a_batch_larger_than_a_block_is_answered_as_if_it_were_not(
    model: Model, dtype: str, count: int
) -> None:
    images = images_of(np.random.default_rng(count), count, dtype)
    compiled = CompiledModel(model)
    whole = compiled.classify([images], Workspace())
    in_blocks = compiled.classify([images], Workspace(block_rows=4))
    np.testing.assert_allclose(in_blocks.probabilities, whole.probabilities, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(in_blocks.labels, whole.labels)


@pytest.mark.parametrize("width", [16, 32, 128])
@pytest.mark.parametrize("counts", [[31, 1], [33], [65], [257], [300, 212], [1024], [1501]])
def test_networks_of_any_width_answer_any_number_of_rows(
    metadata: Metadata, width: int, counts: list[int]
) -> None:
    model = model_of(metadata, (784, width, 10), "tanh", seed=width)
    rng = np.random.default_rng(6)
    batches = [rng.integers(0, 256, (count, 784), np.uint8) for count in counts]
    found = CompiledModel(model).classify(batches, Workspace())
    inputs = model.metadata.input.scale(np.concatenate(batches))
    expected = model.network.probabilities(inputs)
    np.testing.assert_allclose(found.probabilities, expected, rtol=0, atol=1e-3)


def test_models_of_other_sizes_share_a_workspace(metadata: Metadata) -> None:
    workspace = Workspace(block_rows=4)
    rng = np.random.default_rng(3)
    for width in (2, 50, 3):
        model = model_of(metadata, (FEATURES, width, 7, width, 3), "relu", seed=width)
        images = images_of(rng, 9, "uint8")
        found = CompiledModel(model).classify([images], workspace)
        expected = model.network.probabilities(model.metadata.input.scale(images))
        np.testing.assert_allclose(found.probabilities, expected, rtol=0, atol=1e-6)


def test_answers_are_not_overwritten_by_later_ones(model: Model) -> None:
    compiled, workspace, rng = CompiledModel(model), Workspace(), np.random.default_rng(4)
    first = compiled.classify([images_of(rng, 5, "uint8")], workspace)
    kept = first.probabilities.copy()
    compiled.classify([images_of(rng, 5, "uint8")], workspace)
    np.testing.assert_array_equal(first.probabilities, kept)


def test_equal_probabilities_are_labelled_with_the_lowest_index(metadata: Metadata) -> None:
    layer = Layer(np.zeros((FEATURES, 3), np.float32), np.zeros(3, np.float32), "softmax")
    described = Metadata(
        **{**metadata.__dict__, "layer_sizes": (FEATURES, 3), "activations": ("softmax",)}
    )
    compiled = CompiledModel(Model(Network((layer,)), described))
    found = compiled.classify([np.zeros((2, FEATURES), np.uint8)], Workspace())
    assert found.labels.tolist() == [0, 0]


def test_sums_at_the_edge_of_float32_neither_warn_nor_answer_nan(metadata: Metadata) -> None:
    weights = np.zeros((FEATURES, 3), np.float32)
    bias = np.array([3e38, -3e38, 0], np.float32)
    described = Metadata(
        **{**metadata.__dict__, "layer_sizes": (FEATURES, 3), "activations": ("softmax",)}
    )
    compiled = CompiledModel(Model(Network((Layer(weights, bias, "softmax"),)), described))
    found = compiled.classify([np.zeros((1, FEATURES), np.uint8)], Workspace())
    assert found.probabilities.tolist() == [[1, 0, 0]]
