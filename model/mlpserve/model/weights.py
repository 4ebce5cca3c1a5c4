"""The weights file of one version: a network, and what it says of itself.

``weights.npz`` holds the float32 arrays ``W1, b1, ... WL, bL`` (``Wi``: fan_in x fan_out) and
``metadata``, a string that holds JSON. To look into one without mlpserve:

    with numpy.load("weights.npz") as file:
        print(json.loads(file["metadata"].item()), file["W1"].shape)

Two more are golden samples, with which whoever loads the file, on another machine or in
another program, sees whether it computes what the trainer computed: ``golden_images``, S images as
they are before they are flattened and scaled, and ``golden_probabilities``, the S x K float32 that
the network gives for them. The entries of ``mlpserve.model.out_of_distribution`` tell whether an
image looks like what was learned. Files of earlier releases lack these entries.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.model.activations import FloatArray
from mlpserve.model.archive import read_open_arrays, write_arrays
from mlpserve.model.atomic_files import sync_file
from mlpserve.model.errors import ModelError, WeightsFileError
from mlpserve.model.folder import open_file
from mlpserve.model.inputs import InputSpec, number_text
from mlpserve.model.metadata import Metadata
from mlpserve.model.network import Layer, Network, largest_sums
from mlpserve.model.out_of_distribution import OodDetector, read_detector

# Other processors and libraries sum in another order, which moves a probability by some 1e-6. A
# wrong weight, scale or order of the pixels moves some of them by far more than this.
GOLDEN_TOLERANCE: Final = 1e-4
_METADATA: Final = "metadata"
_GOLDEN: Final = ("golden_images", "golden_probabilities")
_MAX_SUM: Final = 0.99 * float(np.finfo(np.float32).max)  # the rest is for rounding
_PARAMETERS: Final = re.compile(r"[Wb][0-9]+")


@dataclass(frozen=True, eq=False)
class GoldenSamples:
    """Images and the probabilities that a network gives for them; checked when it is made.

    Attributes:
        images: (S, ...) uint8 or float32 as the network takes them; S at least 1.
        probabilities: (S, K) float32, from 0 to 1.

    Raises:
        WeightsFileError: A dtype, a shape or a value is another.
    """

    images: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        _check_samples("golden_images", self.images, (np.uint8, np.float32))
        _check_samples("golden_probabilities", self.probabilities, (np.float32,))
        lowest, highest = self.probabilities.min(), self.probabilities.max()
        # Written so that a NaN, which compares false, is refused as well.
        if not (lowest >= 0 and highest <= 1):
            raise WeightsFileError(
                "golden_probabilities: expected values from 0 to 1, "
                f"got {number_text(lowest)} to {number_text(highest)}"
            )
        if self.probabilities.ndim != 2 or len(self.probabilities) != len(self.images):  # noqa: PLR2004 - a matrix
            raise WeightsFileError(
                f"golden_probabilities: expected {len(self.images)} rows, one an image, "
                f"got {self.probabilities.shape}"
            )

    def largest_difference(self, probabilities: FloatArray) -> float:
        """Return how far other (S, K) probabilities for the images are from these at most.

        NaN where one of them is NaN, so ask whether it is within a tolerance, not beyond it.
        """
        return float(np.abs(probabilities - self.probabilities).max())


@dataclass(frozen=True, eq=False)
class Model:
    """A network together with what it says of itself; checked when it is made.

    Attributes:
        network: The network.
        metadata: What it is for, and how it was made.
        golden: Images with the probabilities that it gives for them; None where the file has none.
        detector: What scores how little an image looks like those that it learned from; None where
            the file has none.

    Raises:
        WeightsFileError: The metadata, the golden samples or the detector are of another network.
    """

    network: Network
    metadata: Metadata
    golden: GoldenSamples | None = None
    detector: OodDetector | None = None

    def __post_init__(self) -> None:
        described = (self.metadata.layer_sizes, self.metadata.activations)
        actual = (self.network.layer_sizes, self.network.activations)
        if described != actual:
            raise WeightsFileError(
                f"metadata: describes a network of {described}, but the weights are of {actual}"
            )
        if self.golden is not None:
            _check_fit(self.golden, self.metadata)
        if (
            self.detector is not None
            and self.detector.means.shape[1] != self.network.layer_sizes[0]
        ):
            raise WeightsFileError(
                f"ood_means: expected {self.network.layer_sizes[0]} values an image, got "
                f"{self.detector.means.shape[1]}"
            )


def golden_samples(network: Network, spec: InputSpec, images: npt.NDArray[Any]) -> GoldenSamples:
    """Return images with what a network answers.

    Args:
        network: The network as it is published: in float32.
        spec: What it takes.
        images: A few, (S, ...) integers or floats, each of the shape of ``spec``.
    """
    if images.dtype != np.uint8:
        images = images.astype(np.float32, copy=False)
    return GoldenSamples(images, network.probabilities(spec.scale(images)).astype(np.float32))


def save_model(path: Path, model: Model) -> None:
    """Write a weights file and wait until it is on disk.

    The file is not written in one step; see ``mlpserve.model.versions.publish``.

    Raises:
        OSError: It cannot be written.
    """
    arrays = {**model_arrays(model), _METADATA: np.array(model.metadata.to_json())}
    with path.open("wb") as file:
        write_arrays(file, arrays)
        sync_file(file)


def model_arrays(model: Model) -> dict[str, npt.NDArray[Any]]:
    """Return all arrays of a weights file by their names; the metadata is none of them."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    with np.errstate(over="ignore"):  # infinity, which ``load_model`` refuses
        for number, layer in enumerate(model.network.layers, start=1):
            arrays[f"W{number}"] = layer.weights.astype("<f4")
            arrays[f"b{number}"] = layer.bias.astype("<f4")
    if model.golden is not None:
        arrays.update(zip(_GOLDEN, (model.golden.images, model.golden.probabilities), strict=True))
    if model.detector is not None:
        arrays.update(model.detector.to_arrays())
    return arrays


def load_model(path: Path) -> Model:
    """Read and check a weights file; what the network answers is left to ``check_golden``.

    Raises:
        WeightsFileError: The file is missing, damaged, foreign, or does not describe a network; the
            message begins with the path.
    """
    try:
        with open_file(path) as file:
            return read_model(file)
    except ModelError as error:
        raise WeightsFileError(f"{path}: {error}") from error
    except OSError as error:
        raise WeightsFileError(f"{path}: cannot be read: {error.strerror}") from error


def read_model(file: IO[bytes]) -> Model:
    """Read and check a weights file that is open; see ``load_model``.

    Raises:
        ModelError: As for ``load_model``, but the message does not name the file.
        OSError: It cannot be read.
    """
    return _model(read_open_arrays(file))


def check_golden(model: Model, *, tolerance: float = GOLDEN_TOLERANCE) -> None:
    """Check that a network gives the probabilities of its golden samples, where it has some.

    Args:
        model: The model; its network is run on a few images.
        tolerance: How far a probability may be off.

    Raises:
        WeightsFileError: One is further off; this machine or this library computes something else.
    """
    if model.golden is None:
        return
    inputs = model.metadata.input.scale(model.golden.images)
    difference = model.golden.largest_difference(model.network.probabilities(inputs))
    # Written so that a NaN, which compares false, is refused as well.
    if not difference <= tolerance:
        raise WeightsFileError(
            f"golden samples of {model.metadata.name}:{model.metadata.version}: expected "
            f"probabilities within {tolerance:g} of those in the file, but one is off by "
            f"{difference:.3g}: the weights are not those that were trained, or are computed "
            "otherwise here"
        )


def _model(arrays: Mapping[str, npt.NDArray[Any]]) -> Model:
    metadata = _metadata(arrays)
    count = len(metadata.activations)
    expected = {_METADATA} | {f"{kind}{n}" for n in range(1, count + 1) for kind in "Wb"}
    # Entries of other kinds are from a later release of this format, and ignored as fields are.
    present = {name for name in arrays if name == _METADATA or _PARAMETERS.fullmatch(name)}
    if present != expected:
        raise WeightsFileError(
            f"entries: expected {', '.join(sorted(expected))}; missing are "
            f"{sorted(expected - present)}, unknown are {sorted(present - expected)}"
        )
    layers = (
        Layer(_parameters(arrays, f"W{number}"), _parameters(arrays, f"b{number}"), activation)
        for number, activation in enumerate(metadata.activations, start=1)
    )
    network = Network(tuple(layers))
    _check_sums(network, metadata.input)
    return Model(network, metadata, _golden(arrays), read_detector(arrays))


def _golden(arrays: Mapping[str, npt.NDArray[Any]]) -> GoldenSamples | None:
    present = [name for name in _GOLDEN if name in arrays]
    if not present:
        return None
    if len(present) < len(_GOLDEN):
        raise WeightsFileError(
            f"entries: expected both {' and '.join(_GOLDEN)} or neither, got only {present[0]}"
        )
    images, probabilities = (np.asarray(arrays[name], order="C") for name in _GOLDEN)
    return GoldenSamples(images, probabilities)


def _check_samples(
    name: str, array: npt.NDArray[Any], dtypes: tuple[type[np.uint8 | np.float32], ...]
) -> None:
    if array.dtype not in dtypes:
        expected = " or ".join(dtype.__name__ for dtype in dtypes)
        raise WeightsFileError(f"{name}: expected {expected}, got {array.dtype}")
    if array.ndim == 0 or 0 in array.shape:
        raise WeightsFileError(f"{name}: expected at least one sample, got {array.shape}")


def _check_fit(golden: GoldenSamples, metadata: Metadata) -> None:
    if golden.images.shape[1:] != metadata.input.shape:
        raise WeightsFileError(
            f"golden_images: expected images of {metadata.input.shape}, "
            f"got {golden.images.shape[1:]}"
        )
    classes = golden.probabilities.shape[1]
    if classes != len(metadata.class_labels):
        raise WeightsFileError(
            f"golden_probabilities: expected {len(metadata.class_labels)} columns, one a class, "
            f"got {classes}"
        )
    if (problem := metadata.input.problem(golden.images)) is not None:
        raise WeightsFileError(f"golden_images: {problem}")


def _check_sums(network: Network, spec: InputSpec) -> None:
    for number, largest in enumerate(largest_sums(network), start=1):
        # Written so that a NaN, which compares false, is refused as well.
        if not largest * spec.growth < _MAX_SUM:
            raise WeightsFileError(
                f"W{number}, b{number}: expected values with which no image overflows float32, but "
                f"sums may reach {largest:.3g}; did the training diverge?"
            )


def _metadata(arrays: Mapping[str, npt.NDArray[Any]]) -> Metadata:
    if _METADATA not in arrays:
        raise WeightsFileError(
            f"entry {_METADATA!r} is missing: not a weights file of mlpserve (use mlpserve-train)"
        )
    entry = arrays[_METADATA]
    if entry.dtype.kind != "U" or entry.shape != ():
        raise WeightsFileError(
            f"entry {_METADATA!r}: expected one string, got {entry.dtype} {entry.shape}"
        )
    metadata = Metadata.from_json(str(entry))
    if metadata.version < 1:
        raise WeightsFileError(f"version: expected a positive integer, got {metadata.version}")
    return metadata


def _parameters(arrays: Mapping[str, npt.NDArray[Any]], name: str) -> npt.NDArray[np.float32]:
    array = arrays[name]
    if array.dtype != np.float32:
        raise WeightsFileError(f"entry {name!r}: expected float32, got {array.dtype}")
    if not np.isfinite(array).all():
        raise WeightsFileError(f"entry {name!r}: expected finite values, got NaN or infinity")
    return np.asarray(array, order="C")
