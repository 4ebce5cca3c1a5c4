import io
import json
import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.model.errors import WeightsFileError
from mlpserve.model.metadata import Metadata
from mlpserve.model.network import Layer, Network
from mlpserve.model.weights import Model, load_model, save_model

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.npz"


@pytest.fixture
def saved(path: Path, model: Model) -> Path:
    save_model(path, model)
    return path


@pytest.fixture
def arrays(saved: Path) -> Arrays:
    """Return what a good file holds, to make a bad one of."""
    with np.load(saved, allow_pickle=False) as file:
        return dict(file)


def overwrite(path: Path, position: int, byte: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        file.write(bytes([byte]))


def bits(model: Model) -> list[bytes]:
    return [array.tobytes() for array in model.network.parameters]


def refusal(path: Path) -> str:
    """Return the cause for which a file is refused, without the path before it."""
    with pytest.raises(WeightsFileError) as refused:
        load_model(path)
    message = str(refused.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    cause = message.removeprefix(f"{path}: ")
    assert not cause.endswith(": ")
    return cause


def savez(path: Path, arrays: Arrays, *, compressed: bool = False) -> None:
    """Write a file as NumPy does."""
    write = np.savez_compressed if compressed else np.savez
    write(path, **arrays)  # type: ignore[arg-type]  # no array is called allow_pickle


def describe(arrays: Arrays, **fields: object) -> None:
    """Change fields of the metadata."""
    document = json.loads(str(arrays["metadata"]))
    arrays["metadata"] = np.array(json.dumps({**document, **fields}))


def test_model_loads_bit_for_bit_as_it_was_saved(saved: Path, model: Model) -> None:
    loaded = load_model(saved)
    assert loaded.metadata == model.metadata
    assert bits(loaded) == bits(model)
    assert all(array.dtype == np.float32 for array in loaded.network.parameters)


def test_float64_is_saved_as_the_nearest_float32(path: Path, model: Model) -> None:
    wide = model.network.with_parameters(
        [array.astype(np.float64) + 1e-12 for array in model.network.parameters]
    )
    save_model(path, Model(wide, model.metadata))
    assert bits(load_model(path)) == bits(Model(wide.astype(np.float32), model.metadata))


def test_order_in_memory_changes_no_weight(path: Path, model: Model) -> None:
    turned = model.network.with_parameters(
        [np.asfortranarray(array) for array in model.network.parameters]
    )
    save_model(path, Model(turned, model.metadata))
    loaded = load_model(path)
    assert bits(loaded) == bits(model)
    assert all(array.flags.c_contiguous for array in loaded.network.parameters)


def test_numpy_alone_reads_the_file(saved: Path, model: Model) -> None:
    with np.load(saved, allow_pickle=False) as file:
        assert set(file) == {"W1", "b1", "W2", "b2", "metadata"}
        assert [file[name].tobytes() for name in ("W1", "b1", "W2", "b2")] == bits(model)
        assert file["W1"].dtype == np.dtype("<f4")
        assert file["W1"].shape == (6, 4)
        document = json.loads(file["metadata"].item())
    assert document["format_version"] == 1
    assert document["layer_sizes"] == [6, 4, 3]


def test_file_that_numpy_wrote_is_read(path: Path, arrays: Arrays, model: Model) -> None:
    savez(path, arrays)
    assert bits(load_model(path)) == bits(model)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "File is not a zip file"),
        (b"W1 = 0.5\n", "File is not a zip file"),
        (pickle.dumps({"W1": [0.5]}), "File is not a zip file"),
        (b"\x93NUMPY\x01\x00", "File is not a zip file"),
        (b"PK\x05\x06" + bytes(18), "entry 'metadata' is missing"),
    ],
    ids=["empty", "text", "pickle", "npy", "zip of nothing"],
)
def test_foreign_file_is_refused(path: Path, content: bytes, cause: str) -> None:
    path.write_bytes(content)
    assert cause in refusal(path)


def test_npz_of_something_else_is_refused(path: Path) -> None:
    np.savez(path, x_train=np.zeros((2, 3)), y_train=np.zeros(2))
    assert refusal(path) == (
        "entry 'metadata' is missing: not a weights file of mlpserve (use mlpserve-train)"
    )


def test_compressed_file_is_refused(path: Path, arrays: Arrays) -> None:
    savez(path, arrays, compressed=True)
    assert "expected it uncompressed; write it with numpy.savez" in refusal(path)


def test_file_cut_anywhere_is_refused(saved: Path) -> None:
    content = saved.read_bytes()
    for length in range(0, len(content), 7):
        saved.write_bytes(content[:length])
        refusal(saved)
    saved.write_bytes(content[:-1])
    refusal(saved)


@pytest.mark.exhaustive
def test_flipped_bit_is_refused_or_changes_nothing(saved: Path, model: Model) -> None:
    # Nothing changes where the zip holds what nobody reads, such as the time of an entry.
    content = saved.read_bytes()
    refused = 0
    for position, byte in enumerate(content):
        overwrite(saved, position, byte ^ 1 << position % 8)
        try:
            loaded = load_model(saved)
        except WeightsFileError:
            refused += 1
        else:
            assert loaded.metadata == model.metadata
            assert bits(loaded) == bits(model)
        overwrite(saved, position, byte)
    assert refused > len(content) / 2
    assert bits(load_model(saved)) == bits(model)


@pytest.mark.parametrize("name", ["W1", "b1", "W2", "b2"])
def test_missing_entry_is_named(path: Path, arrays: Arrays, name: str) -> None:
    del arrays[name]
    savez(path, arrays)
    assert refusal(path) == (
        f"entries: expected W1, W2, b1, b2, metadata; missing are ['{name}'], unknown are []"
    )


def test_unknown_entry_is_named(path: Path, arrays: Arrays) -> None:
    savez(path, {**arrays, "W3": arrays["W2"]})
    assert refusal(path) == (
        "entries: expected W1, W2, b1, b2, metadata; missing are [], unknown are ['W3']"
    )


def test_entries_of_a_later_release_are_ignored(path: Path, arrays: Arrays, model: Model) -> None:
    savez(path, {**arrays, "hints": np.zeros((16, 2, 3), np.uint8)})
    np.testing.assert_array_equal(
        load_model(path).network.layers[1].weights, model.network.layers[1].weights
    )


@pytest.mark.parametrize(
    ("name", "array", "cause"),
    [
        ("W1", np.zeros((6, 4)), "entry 'W1': expected float32, got float64"),
        ("b2", np.zeros(3, np.int32), "entry 'b2': expected float32, got int32"),
        ("W1", np.zeros((6, 4), ">f4"), "entry 'W1': expected float32, got >f4"),
        ("W1", np.array("0.5"), "entry 'W1': expected float32, got <U3"),
        (
            "W2",
            np.array([[np.nan] * 3] * 4, np.float32),
            "entry 'W2': expected finite values, got NaN or infinity",
        ),
        (
            "b1",
            np.array([0, 1, -np.inf, 2], np.float32),
            "entry 'b1': expected finite values, got NaN or infinity",
        ),
        ("W2", np.zeros((5, 3), np.float32), "W2: expected 4 rows, the width of layer 1, got 5"),
        ("b1", np.zeros(3, np.float32), "b1: expected shape (4,), one a column of W1, got (3,)"),
        ("b1", np.zeros((), np.float32), "b1: expected shape (4,), one a column of W1, got ()"),
        (
            "W1",
            np.zeros(24, np.float32),
            "W1: expected (fan_in, fan_out), each at least 1, got (24,)",
        ),
        (
            "W1",
            np.array([{}], object),
            "entry 'W1': expected numbers, got pickled objects, which are never read",
        ),
        ("metadata", np.array(["{}", "{}"]), "entry 'metadata': expected one string, got <U2 (2,)"),
        ("metadata", np.array(b"{}"), "entry 'metadata': expected one string, got |S2 ()"),
        ("metadata", np.array("{}"), "metadata: the field 'format_version' is missing"),
        (
            "metadata",
            np.array("not JSON"),
            "metadata: expected JSON, but Expecting value: line 1 column 1 (char 0)",
        ),
    ],
    ids=[
        "float64",
        "int32",
        "big-endian",
        "string",
        "NaN",
        "infinity",
        "rows",
        "bias too short",
        "bias a number",
        "weights no matrix",
        "objects",
        "two metadata",
        "metadata in bytes",
        "metadata empty",
        "metadata no JSON",
    ],
)
def test_wrong_entry_is_named(
    path: Path, arrays: Arrays, name: str, array: npt.NDArray[Any], cause: str
) -> None:
    savez(path, {**arrays, name: array})
    assert refusal(path) == cause


def test_metadata_of_no_characters_is_refused(path: Path, arrays: Arrays) -> None:
    arrays["metadata"] = np.frombuffer(b"\xff" * 16, "<U4").reshape(())
    savez(path, arrays)
    assert refusal(path)


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"version": 0}, "version: expected a positive integer, got 0"),
        ({"format_version": 3}, "format_version: expected 1 or 2, got 3; use a release"),
        (
            {"layer_sizes": [6, 5, 3]},
            "metadata: describes a network of ((6, 5, 3), ('tanh', 'softmax')), but the weights",
        ),
        (
            {"activations": ["softmax", "softmax"]},
            "activation of layer 1: expected tanh or relu or sigmoid, got 'softmax'",
        ),
        ({"activations": ["tanh", "gelu"]}, "activation of layer 2: expected softmax, got 'gelu'"),
    ],
    ids=["no version", "other format", "other widths", "softmax inside", "unknown activation"],
)
def test_metadata_that_does_not_fit_is_refused(
    path: Path, arrays: Arrays, fields: dict[str, object], cause: str
) -> None:
    describe(arrays, **fields)
    savez(path, arrays)
    assert refusal(path).startswith(cause)


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid"])
def test_weights_with_which_an_image_could_overflow_are_refused(
    path: Path, metadata: Metadata, activation: str
) -> None:
    def model(size: float) -> Model:
        first = Layer(np.full((6, 4), size, np.float32), np.zeros(4, np.float32), activation)
        last = Layer(np.ones((4, 3), np.float32), np.zeros(3, np.float32), "softmax")
        activations = (activation, "softmax")
        return Model(Network((first, last)), replace(metadata, activations=activations))

    # Six inputs of at most 1 each: sums of 6e38 are beyond float32, those of 6e37 are not.
    save_model(path, model(1e38))
    assert refusal(path).startswith("W1, b1: expected values with which no image overflows float32")
    save_model(path, model(1e37))
    white = np.ones((1, 6), np.float32)
    assert np.isfinite(load_model(path).network.probabilities(white)).all()


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "missing.npz") == "cannot be read: No such file or directory"
    assert refusal(tmp_path) == "expected a file, got a folder, a pipe or a device"


def test_file_without_permission_is_refused(
    public_folder: Path,
    model: Model,
    as_ordinary_user: Callable[[], AbstractContextManager[None]],
) -> None:
    path = public_folder / "weights.npz"
    save_model(path, model)
    path.chmod(0o644)
    with as_ordinary_user():
        assert bits(load_model(path)) == bits(model)
    path.chmod(0o000)
    with as_ordinary_user():
        assert refusal(path) == "cannot be read: Permission denied"


def test_pickle_in_the_file_is_not_run(path: Path, arrays: Arrays, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
            return Path.touch, (tmp_path / "sprung",)

    savez(path, {**arrays, "W1": np.array([Trap()], object)})
    refusal(path)
    assert not (tmp_path / "sprung").exists()
    pickle.load(io.BytesIO(pickle.dumps(Trap())))  # noqa: S301 - proves that the trap works
    assert (tmp_path / "sprung").exists()


def test_saving_where_there_is_no_folder_is_an_os_error(tmp_path: Path, model: Model) -> None:
    with pytest.raises(FileNotFoundError):
        save_model(tmp_path / "missing" / "weights.npz", model)


def test_model_whose_metadata_is_of_another_network_is_refused(
    network: Network, metadata: Metadata
) -> None:
    first, last = network.layers
    relu = Network((Layer(first.weights, first.bias, "relu"), last))
    with pytest.raises(WeightsFileError, match="metadata: describes a network of"):
        Model(relu, metadata)
    with pytest.raises(WeightsFileError, match="metadata: describes a network of"):
        Model(network, replace(metadata, layer_sizes=(6, 5, 3)))
