from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load

from mlpserve.model.metadata import Metadata
from mlpserve.model.weights import Model, golden_samples, model_arrays
from mlpserve.trainer.export.safetensors_file import to_bytes


def test_its_own_reader_finds_every_array_of_the_weights_file_bit_for_bit(model: Model) -> None:
    images = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    model = replace(model, golden=golden_samples(model.network, model.metadata.input, images))
    found = load(to_bytes(model))
    assert set(found) == {"W1", "b1", "W2", "b2", "golden_images", "golden_probabilities"}
    for name, array in model_arrays(model).items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


def test_order_in_memory_changes_no_weight(model: Model) -> None:
    turned = model.network.with_parameters(
        [np.asfortranarray(array) for array in model.network.parameters]
    )
    assert to_bytes(Model(turned, model.metadata)) == to_bytes(model)


def test_its_own_reader_finds_the_metadata(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(to_bytes(model))
    with safe_open(path, "numpy") as file:
        texts = file.metadata()
    assert list(texts) == ["metadata"]
    assert Metadata.from_json(texts["metadata"]) == model.metadata


def test_same_version_gives_the_same_bytes(model: Model) -> None:
    assert len({to_bytes(model) for _ in range(8)}) == 1
