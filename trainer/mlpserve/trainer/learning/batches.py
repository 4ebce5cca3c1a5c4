"""Batches: which images a step learns from, in which order, and how they look."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, Protocol

import numpy as np

from mlpserve.datasets import Split
from mlpserve.datasets.disk_images import DiskImages
from mlpserve.model.activations import FloatArray
from mlpserve.model.inputs import InputSpec
from mlpserve.trainer.learning.backprop import Batch, Columns, FillInputs, Labels
from mlpserve.trainer.learning.shuffling import (
    MIX,
    SIZES,
    WARPS,
    Order,
    Pixels,
    Shuffled,
    ShuffledImages,
    Sizes,
    stream,
)
from mlpserve.trainer.learning.thread_pool import ThreadPool
from mlpserve.trainer.learning.warps import WarpSettings, warp

_PIECE_IMAGES: Final = 1024  # are warped by one generator, so by one thread
_WARPED_IMAGES: Final = 4096  # are held at once: a dozen megabytes of MNIST


class Batches(Protocol):
    """The batches of each epoch."""

    def __len__(self) -> int:
        """Return how many batches an epoch has."""

    def batch(self, epoch: int, index: int) -> Batch:
        """Return a batch of an epoch, good until the next is asked for; cheapest in their order."""


class Fill(Protocol):
    """Writes shuffled images as inputs, as ``fill_inputs`` does."""

    def __call__(
        self,
        shuffled: Shuffled,
        rows: slice,
        spec: InputSpec,
        out: FloatArray,
        *,
        skips_zero_columns: bool,
    ) -> Columns | None:
        """Write some of the images into ``out``; return which columns, or None for all."""


class SparseInputs(Protocol):
    """The inputs of all images without their zeros; see ``numba_engine.sparse``."""

    def take(self, images: slice | Order, dtype: np.dtype[Any]) -> Any:  # noqa: ANN401 - the engine's
        """Return the inputs of some images, of a dtype."""


class WholeBatch:
    """All images, in their given order, as the only batch of each epoch.

    Of a thousand images of MNIST a quarter of the pixels are 0 in all, and left out. Which ones
    is found once, because all epochs ask for the same rows. If images of a class lay together it
    would be a third; but their gradients are alike, and sums of them round worse in float32.
    Of images on disk nothing is kept: they are read anew in each epoch.
    """

    def __init__(
        self, images: Split, spec: InputSpec, *, sparse: SparseInputs | None = None
    ) -> None:
        self._images = images.images
        self._labels = images.labels
        self._spec = spec
        self._take_sparse = None if sparse is None else sparse.take
        self._nonzero: dict[tuple[int, int], tuple[Columns, Pixels]] = {}  # by the rows

    def __len__(self) -> int:
        return 1

    def batch(self, epoch: int, index: int) -> Batch:  # noqa: ARG002 - each is the same
        """See ``Batches.batch``."""

        def fill(rows: slice, out: FloatArray) -> Columns:
            place = rows.start, rows.stop
            if place in self._nonzero:
                columns, pixels = self._nonzero[place]
            else:
                columns, pixels = _nonzero_columns(flat_pixels(self._images[rows]), self._spec)
                if not isinstance(self._images, DiskImages):
                    self._nonzero[place] = columns, pixels
            _scale(self._spec, pixels, out)
            return columns

        return Batch(self._labels, fill, self._take_sparse)


class ShuffledBatches:
    """All images once an epoch, in a random order, cut into batches; the last may be short."""

    def __init__(
        self,
        images: Split,
        spec: InputSpec,
        *,
        batch_size: int,
        seed: int,
        skips_zero_columns: bool = False,
        sizes: Sizes = SIZES,
        fill: Fill | None = None,
        sparse: SparseInputs | None = None,
    ) -> None:
        """Prepare batches.

        Args:
            images: All images with their classes.
            spec: What the network takes.
            batch_size: How many make a batch.
            seed: The seed of all randomness.
            skips_zero_columns: Whether to leave out pixels that are 0 in all images of a
                batch. Finding them takes time, which pays where the first layer is wide.
            sizes: How much is shuffled at a time.
            fill: Writes their inputs; None for ``fill_inputs``.
            sparse: The same images, all in memory, without zeros; None for without it.
        """
        self._fill = fill or fill_inputs
        self._sparse = sparse
        self._images = ShuffledImages(images, seed=seed, unit=batch_size, sizes=sizes)
        self._spec = spec
        self._skips_zero_columns = skips_zero_columns
        self._batch_size = batch_size
        self._count = math.ceil(len(images) / batch_size)

    def __len__(self) -> int:
        return self._count

    def batch(self, epoch: int, index: int) -> Batch:
        """See ``Batches.batch``."""
        start = index * self._batch_size
        shuffled = self._images.at(epoch, start, start + self._batch_size)

        def fill(rows: slice, out: FloatArray) -> Columns | None:
            skips = self._skips_zero_columns
            return self._fill(shuffled, rows, self._spec, out, skips_zero_columns=skips)

        return _batch(shuffled.labels, fill, self._sparse, shuffled.places)


class WarpedBatches:
    """As ``ShuffledBatches``, with images distorted anew in each epoch.

    Neighbours in the order share a warp. So some thousand images are distorted at a time, mixed,
    and cut into batches.
    """

    def __init__(
        self,
        images: Split,
        spec: InputSpec,
        *,
        batch_size: int,
        seed: int,
        settings: Callable[[int], WarpSettings],
        pool: ThreadPool,
        sizes: Sizes = SIZES,
        sparse_inputs: Callable[[Pixels, InputSpec], SparseInputs | None] = lambda *_: None,
    ) -> None:
        """Prepare batches.

        Args:
            images: (N, height, width) images with their classes.
            spec: What the network takes.
            batch_size: How many make a batch.
            seed: The seed of all randomness.
            settings: Returns how far to distort in an epoch, from 0.
            pool: The threads that distort.
            sizes: How much is shuffled at a time.
            sparse_inputs: Returns distorted images without zeros, where that pays.
        """
        self._count = math.ceil(len(images) / batch_size)
        self._batch_size = batch_size
        self._spec = spec
        self._seed = seed
        self._settings = settings
        self._pool = pool
        self._batches_held = max(1, _WARPED_IMAGES // batch_size)
        self._held = (-1, -1)  # the epoch, and which part of it
        self._labels: Labels = np.empty(0, np.int64)  # of the held images
        self._mix: Order = np.empty(0, np.int64)  # where in ``_warped`` each of them is
        rows = min(self._batches_held * batch_size, len(images))
        self._images = ShuffledImages(images, seed=seed, unit=rows, sizes=sizes)
        self._warped = np.empty((rows, math.prod(images.images.shape[1:])), np.float32)
        self._sparse_inputs = sparse_inputs
        self._sparse: SparseInputs | None = None  # the held images, without zeros

    def __len__(self) -> int:
        return self._count

    def batch(self, epoch: int, index: int) -> Batch:
        """See ``Batches.batch``."""
        part, index_held = divmod(index, self._batches_held)
        if (epoch, part) != self._held:
            self._hold(epoch, part)
        start = index_held * self._batch_size
        rows_of_batch = self._mix[start : start + self._batch_size]

        def fill(rows: slice, out: FloatArray) -> None:
            np.take(self._warped, rows_of_batch[rows], axis=0, out=out, mode="clip")

        return _batch(self._labels[rows_of_batch], fill, self._sparse, rows_of_batch)

    def _hold(self, epoch: int, part: int) -> None:
        """Warp a part of an epoch; the pool's threads take its pieces in turn."""
        count = len(self._warped)
        shuffled = self._images.at(epoch, part * count, (part + 1) * count)
        self._labels = shuffled.labels
        self._mix = stream(self._seed, MIX, epoch, part).permutation(len(self._labels))
        starts = range(0, len(self._labels), _PIECE_IMAGES)
        settings = self._settings(epoch)

        def warp_pieces(thread: int) -> None:
            for start in starts[thread :: self._pool.size]:
                images = shuffled.take(slice(start, start + _PIECE_IMAGES))
                rng = stream(self._seed, WARPS, epoch, part, start)
                out = self._warped[start : start + len(images)]
                warp(images, settings, rng, out=out, spec=self._spec)

        self._pool.run(warp_pieces)
        held = self._warped[: len(self._labels)]
        self._sparse = self._sparse_inputs(held, InputSpec(held.shape[1:]))  # shares by now
        self._held = (epoch, part)


def fill_inputs(
    shuffled: Shuffled, rows: slice, spec: InputSpec, out: FloatArray, *, skips_zero_columns: bool
) -> Columns | None:
    """Write some of the shuffled images as inputs into ``out``; see ``backprop.FillInputs``.

    Args:
        shuffled: The images.
        rows: Which of them.
        spec: What the network takes.
        out: (rows, D) of the network's dtype.
        skips_zero_columns: Whether to write only the columns that are not 0 in all rows.
    """
    pixels = flat_pixels(shuffled.take(rows))
    if not skips_zero_columns:
        spec.scale(pixels, out.dtype.type, out)
        return None
    columns, pixels = _nonzero_columns(pixels, spec)
    _scale(spec, pixels, out)
    return columns


def _batch(labels: Labels, fill: FillInputs, sparse: SparseInputs | None, places: Order) -> Batch:
    """Return a batch of images that are at some places of those without zeros, if there are any."""
    if sparse is None:
        return Batch(labels, fill)
    return Batch(labels, fill, lambda rows, dtype: sparse.take(places[rows], dtype))


def flat_pixels(images: Pixels) -> Pixels:
    """Return images as the rows of a matrix."""
    return images.reshape(len(images), math.prod(images.shape[1:]))


def _nonzero_columns(pixels: Pixels, spec: InputSpec) -> tuple[Columns, Pixels]:
    """Return which of the (N, D) pixels are not black in all images, and the (N, k) that are left.

    Black is the lowest value, which is scaled to 0.
    """
    black = pixels.dtype.type(spec.limits(pixels.dtype)[0])
    highest = pixels.max(axis=0, initial=black)
    columns = np.flatnonzero(highest != black if black else highest)
    return columns, np.take(pixels, columns, axis=1)


def _scale(spec: InputSpec, pixels: Pixels, out: FloatArray) -> None:
    """Write (N, k) pixels as inputs into the first k columns of ``out``."""
    width = pixels.shape[1]
    replace(spec, shape=(width,)).scale(pixels, out.dtype.type, out[:, :width])
