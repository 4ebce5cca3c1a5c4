"""Compiled model: a network prepared once, computed in place in buffers that are reused.

    uint8 images   -> converted -> @ W1 / 255 + b1 -> activation in place -> ... -> softmax
    float32 images ------------>   @ W1       + b1 -> ...

    images with a range of values  @ W1 / width + (b1 - low / width sum of W1) -> ...

Gives what ``Network.probabilities`` gives, but for rounding. Knows nothing of requests.

How BLAS rounds depends on how many rows it multiplies at once, so an image's probabilities depend,
in their last bits, on who shares its batch. A reproducible model multiplies eight rows at a time,
always, and fills the last eight up with zeros. `self_test` checks that this is enough with the BLAS
at hand; with larger blocks it was not.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve.model.activations import FloatArray
from mlpserve.model.attribution import explanations
from mlpserve.model.metadata import Metadata
from mlpserve.model.network import Layer, Network, largest_sums
from mlpserve.model.out_of_distribution import OodDetector
from mlpserve.model.weights import Model

Images: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
Floats: TypeAlias = npt.NDArray[np.float32]

DEFAULT_BLOCK_ROWS: Final = 512
_REPRODUCIBLE_ROWS: Final = 8
# OpenBLAS multiplies matrices with up to so many products of two numbers as they are, where it has
# kernels for that (AVX-512). Larger ones it copies first, which takes longer than multiplying them
# where a layer is narrow. So narrow layers have fewer rows at once, but never less than the other.
_MAX_SMALL_PRODUCTS: Final = 1_000_000
_MIN_SMALL_ROWS: Final = 32
# Before a narrow layer, so many rows are converted at a time: what the cache holds besides stays.
_NARROW_BLOCK_ROWS: Final = 256
# The values of a layer that several blocks go through the rest of a network together with: each
# call of NumPy costs some microseconds, more where images have just displaced it from the cache.
_GROUP_VALUES: Final = 1 << 16
_FLOAT32_BYTES: Final = 4
_MAX_VIEWS: Final = 4096
MOST_PROBABLE: Final = -1  # in the place of the index of a class
_LARGEST_SUM: Final = float(np.finfo(np.float32).max) / 2


class Workspace:
    """Two buffers that the layers of a network write to in turn; all networks may share them.

    For one thread at a time.

    Args:
        block_rows: So many images are computed at once. More take more memory, and leave the cache.
    """

    def __init__(self, block_rows: int = DEFAULT_BLOCK_ROWS) -> None:
        self.block_rows = block_rows
        self._buffers = [np.empty(0, np.float32), np.empty(0, np.float32)]
        self._arrays: dict[tuple[int, int, int], Floats] = {}

    def array(self, turn: int, rows: int, width: int) -> Floats:
        """Return a (rows, width) array of any content; it is good until the turn after the next."""
        key = (turn % 2, rows, width)
        array = self._arrays.get(key)
        if array is None:
            # A view takes longer to make than a small layer to compute.
            array = self._arrays[key] = self._view(*key)
        return array

    def _view(self, buffer: int, rows: int, width: int) -> Floats:
        if len(self._arrays) > _MAX_VIEWS or self._buffers[buffer].size < rows * width:
            self._arrays.clear()
        if self._buffers[buffer].size < rows * width:
            self._buffers[buffer] = np.empty(max(rows, self.block_rows) * width, np.float32)
        return self._buffers[buffer][: rows * width].reshape(rows, width)


class Classified(NamedTuple):
    """What a network says of some images.

    Attributes:
        probabilities: (N, K) float32.
        labels: (N,) int32: the index of each row's highest probability, the lowest of equal ones.
    """

    probabilities: Floats
    labels: npt.NDArray[np.int32]


class Attributions(NamedTuple):
    """What spoke for a class of each image of one request, and against it, as it is sent.

    All are bytes of little-endian values.

    Attributes:
        values: (N, D) float32: what each value added to the logit of the class.
        logits: (N,) float32: the logit of the class.
        baseline_logits: (N,) float32: that of the darkest image.
        classes: (N,) int32: the index of the class.
    """

    values: bytes
    logits: bytes
    baseline_logits: bytes
    classes: bytes


class Answer(NamedTuple):
    """What a network says of the images of one request, as it is sent.

    Attributes:
        probabilities: (N, K) float32, little-endian, as bytes.
        labels: (N,) int32, little-endian, as bytes: the index of each row's highest probability.
        attributions: What spoke for a class; None where nobody asked.
    """

    probabilities: bytes
    labels: bytes
    attributions: Attributions | None = None


class CompiledModel:
    """A model that is ready to be run.

    Safe to use from many threads, each with a workspace of its own: nothing in it changes.

    Args:
        model: The model.
        reproducible: Whether an image's probabilities must not depend, to the bit, on the other
            images of the batch. Takes about twice the time.
    """

    def __init__(self, model: Model, *, reproducible: bool = False) -> None:
        self.metadata: Final[Metadata] = model.metadata
        self.detector: Final[OodDetector | None] = model.detector
        # Of one image in the largest data type in which it may be sent.
        self.image_bytes: Final[int] = model.metadata.input.values_per_image * _FLOAT32_BYTES
        first, *others = model.network.layers
        spec = model.metadata.input
        uint8, float32 = (spec.scaling(np.dtype(dtype)) for dtype in (np.uint8, np.float32))
        self._uint8_layers = [_contiguous(layer) for layer in (first.unscaled(*uint8), *others)]
        self._float32_layers = (
            self._uint8_layers
            if uint8 == float32
            else [_contiguous(first.unscaled(*float32)), *self._uint8_layers[1:]]
        )
        self._classes = model.network.layer_sizes[-1]
        self._max_width = max(model.network.layer_sizes[1:])
        self._rows_at_once = _REPRODUCIBLE_ROWS if reproducible else 1
        # The difference of two sums is at most twice as large as either.
        self._sums_are_small = largest_sums(model.network)[-1] < _LARGEST_SUM

    def classify(self, batches: Sequence[Images], workspace: Workspace) -> Classified:
        """Run the network over batches of images as if they were one.

        Args:
            batches: At least one, each (N, D), all uint8 or all float32. Several are joined, and
                together have at most ``workspace.block_rows`` rows; one alone may have more.
            workspace: What to compute in.

        Returns:
            The rows of the first batch, then those of the next.
        """
        is_uint8 = batches[0].dtype == np.uint8
        layers = self._uint8_layers if is_uint8 else self._float32_layers
        count = sum(map(len, batches))
        found = Classified(np.empty((count, self._classes), np.float32), np.empty(count, np.int32))
        for start, rows, sums in self._first_sums(layers[0], batches, workspace):
            probabilities = self._finished(layers, sums, workspace)[:, :rows]
            found.probabilities[start : start + rows] = probabilities.T
            found.labels[start : start + rows] = probabilities.argmax(axis=0)
        return found

    def answers(self, batches: Sequence[Images], workspace: Workspace) -> list[Answer]:
        """Run the network over the batches of several requests in one pass; see ``classify``.

        Returns:
            The answer to each batch, in their order.
        """
        found = self.classify(batches, workspace)
        # All rows at once: slices of bytes are cut faster than slices of arrays are written.
        probabilities = found.probabilities.astype("<f4", copy=False).tobytes()
        labels = found.labels.astype("<i4", copy=False).tobytes()
        row_bytes, label_bytes = len(probabilities) // len(found.labels), found.labels.itemsize
        ends = list(accumulate(map(len, batches), initial=0))
        return [
            Answer(
                probabilities[start * row_bytes : end * row_bytes],
                labels[start * label_bytes : end * label_bytes],
            )
            for start, end in pairwise(ends)
        ]

    def explanations(
        self,
        batches: Sequence[Images],
        classes: Sequence[npt.NDArray[np.int32]],
        steps: int,
        workspace: Workspace,
    ) -> list[Answer]:
        """Answer the batches of several requests, and say what spoke for a class in each image.

        Args:
            batches: As for ``classify``.
            classes: (N,) of each batch the indices of the classes to explain, or ``MOST_PROBABLE``.
            steps: As for ``integrated_gradients``; 0 for ``gradient_times_input``.
            workspace: As for ``classify``.

        Returns:
            The answer to each batch, in their order, with attributions.
        """
        answers = self.answers(batches, workspace)
        labels = np.concatenate([np.frombuffer(answer.labels, "<i4") for answer in answers])
        wanted = np.concatenate(classes)
        chosen = np.where(wanted == MOST_PROBABLE, labels, wanted)
        arrays = self._attributions(np.concatenate(batches), chosen, steps)
        ends = accumulate(map(len, batches), initial=0)
        return [
            answer._replace(
                attributions=Attributions(*(array[start:end].tobytes() for array in arrays))
            )
            for answer, (start, end) in zip(answers, pairwise(ends), strict=True)
        ]

    def _attributions(
        self, images: npt.NDArray[Any], classes: npt.NDArray[np.int32], steps: int
    ) -> tuple[npt.NDArray[Any], ...]:
        """Return the arrays whose bytes ``Attributions`` has; see ``explanations``."""
        layers = self._uint8_layers if images.dtype == np.uint8 else self._float32_layers
        baseline, _ = self.metadata.input.limits(images.dtype)
        floats = explanations(
            Network(tuple(layers)),
            images.astype(np.float32, copy=False),
            classes,
            steps=steps,
            baseline=baseline,
            # Alone, an image has the same bits in any company.
            rows_at_once=len(images) if self._rows_at_once == 1 else 1,
        )
        of_floats = (array.astype("<f4", copy=False) for array in floats)
        return *of_floats, classes.astype("<i4", copy=False)

    def _first_sums(
        self, layer: Layer, batches: Sequence[Images], workspace: Workspace
    ) -> Iterator[tuple[int, int, Floats]]:
        """Multiply images with the weights of the first layer, in blocks that fit into the cache.

        Yields:
            Which row of all is the first of several blocks, how many rows they have, and their
            products, in the workspace. These may have more rows, which mean nothing, so that their
            number is a multiple of those that are multiplied at once.
        """
        if len(batches) > 1:
            inputs = _converted(batches, workspace, self._rows_at_once)
            sums = workspace.array(1, len(inputs), len(layer.bias))
            self._multiply(inputs, layer.weights, sums)
            yield 0, sum(map(len, batches)), sums
            return
        (images,) = batches
        block_rows = _multiple(workspace.block_rows, self._rows_at_once)
        if block_rows > _NARROW_BLOCK_ROWS and self._rows_at_once == 1 < _small_rows(layer.weights):
            block_rows = _NARROW_BLOCK_ROWS
        group_rows = max(1, _GROUP_VALUES // (block_rows * self._max_width)) * block_rows
        for start in range(0, len(images), group_rows):
            group = images[start : start + group_rows]
            sums = workspace.array(1, _multiple(len(group), self._rows_at_once), len(layer.bias))
            for at in range(0, len(group), block_rows):
                inputs = self._inputs(group[at : at + block_rows], workspace)
                self._multiply(inputs, layer.weights, sums[at : at + len(inputs)])
            yield start, len(group), sums

    def _inputs(self, block: Images, workspace: Workspace) -> Floats:
        """Return a block as float32; with rows of zeros, so that it is multiplied as it must be."""
        if block.dtype == np.uint8 or len(block) % self._rows_at_once:
            return _converted([block], workspace, self._rows_at_once)
        return block  # type: ignore[return-value] # what is not uint8 is float32

    def _finished(self, layers: Sequence[Layer], sums: Floats, workspace: Workspace) -> Floats:
        """Return the (K, N) probabilities of some images, in the workspace.

        Args:
            layers: The layers.
            sums: The products of the first one, in the workspace.
            workspace: What to compute in.
        """
        for turn, layer in enumerate(layers, start=1):
            if turn > 1:
                inputs = sums
                sums = workspace.array(turn, len(inputs), len(layer.bias))
                self._multiply(inputs, layer.weights, sums)
            sums += layer.bias
            if layer is not layers[-1]:
                layer.activate(sums)
        outputs = sums
        by_class = workspace.array(len(layers) + 1, *outputs.T.shape)
        by_class[...] = outputs.T
        if self._sums_are_small:
            _softmax(by_class)
        else:
            with np.errstate(over="ignore"):  # a difference beyond float32 is -inf: exp of it is 0
                _softmax(by_class)
        return by_class

    def _multiply(self, inputs: Floats, weights: FloatArray, products: Floats) -> None:
        rows = self._rows_at_once
        if rows == 1 and len(inputs) > _MIN_SMALL_ROWS:
            rows = _small_rows(weights)
        whole = len(inputs) // rows * rows if 1 < rows < len(inputs) else 0
        if whole:
            # NumPy has BLAS multiply one matrix of a stack after the other.
            stack = inputs[:whole].reshape(-1, rows, inputs.shape[1])
            np.matmul(stack, weights, out=products[:whole].reshape(-1, rows, products.shape[1]))
        if whole < len(inputs):
            np.matmul(inputs[whole:], weights, out=products[whole:])


def _small_rows(weights: FloatArray) -> int:
    """Return how many rows BLAS multiplies with weights as they are; 0 where they are too few."""
    return _MAX_SMALL_PRODUCTS // weights.size // _MIN_SMALL_ROWS * _MIN_SMALL_ROWS


def _contiguous(layer: Layer) -> Layer:
    return Layer(
        np.ascontiguousarray(layer.weights, np.float32),
        np.ascontiguousarray(layer.bias, np.float32),
        layer.activation,
    )


def _multiple(count: int, of: int) -> int:
    """Return the least multiple that is not below a count."""
    return count + -count % of


def _converted(batches: Sequence[Images], workspace: Workspace, rows_at_once: int) -> Floats:
    """Return the batches as one of float32: joining and converting are one copy."""
    count = sum(map(len, batches))
    inputs = workspace.array(0, _multiple(count, rows_at_once), batches[0].shape[1])
    np.concatenate(batches, out=inputs[:count])
    inputs[count:] = 0
    return inputs


def _softmax(sums: Floats) -> None:
    """Turn (K, N) sums into probabilities; see ``mlpserve.model.activations.softmax``.

    A class a row, because NumPy is several times faster along few long rows than along many short
    ones.
    """
    sums -= sums.max(axis=0)
    np.exp(sums, out=sums)
    sums /= sums.sum(axis=0)
