"""Batches: which images a step learns from, in which order, and how they look.

All randomness is a function of the seed and the place in the training: an epoch's order of its
number, a warp of the epoch and of where in it. So a run that was stopped can go on anywhere without
having kept a generator, and threads may do their shards in any order.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve.datasets import Split
from mlpserve.model.activations import FloatArray
from mlpserve.model.inputs import InputSpec
from mlpserve.trainer.learning.backprop import Batch, Columns
from mlpserve.trainer.learning.thread_pool import ThreadPool
from mlpserve.trainer.learning.warps import WarpSettings, warp

Order: TypeAlias = npt.NDArray[np.int64]  # indices of images
Pixels: TypeAlias = npt.NDArray[Any]  # (N, ...) uint8 or float32, of N images

# The streams of one seed: which generator draws what. The network's first weights are drawn from
# the seed itself.
_ORDER: Final = 1
_WARPS: Final = 2
_MIX: Final = 3
DROPOUT: Final = 4
VALIDATION: Final = 5

_PIECE_IMAGES: Final = 1024  # are warped by one generator, so by one thread
_WARPED_IMAGES: Final = 4096  # are held at once: a dozen megabytes of MNIST


def stream(seed: int, *place: int) -> np.random.Generator:
    """Return the generator of a place in the training; see above."""
    return np.random.default_rng((seed, *place))


class Batches(Protocol):
    """The batches of each epoch."""

    def __len__(self) -> int:
        """Return how many batches an epoch has."""

    def batch(self, epoch: int, index: int) -> Batch:
        """Return a batch of an epoch, good until the next is asked for; cheapest in their order."""


class WholeBatch:
    """All images, in their given order, as the only batch of each epoch.

    Of a thousand images of MNIST a quarter of the pixels are 0 in all, and left out. Which ones
    is found once, because all epochs ask for the same rows. If images of a class lay together it
    would be a third; but their gradients are alike, and sums of them round worse in float32.
    """

    def __init__(self, images: Split, spec: InputSpec) -> None:
        self._pixels = images.images.reshape(len(images), -1)
        self._labels = images.labels
        self._spec = spec
        self._nonzero: dict[tuple[int, int], tuple[Columns, Pixels]] = {}  # by the rows

    def __len__(self) -> int:
        return 1

    def batch(self, epoch: int, index: int) -> Batch:  # noqa: ARG002 - each is the same
        """See ``Batches.batch``."""

        def fill(rows: slice, out: FloatArray) -> Columns:
            place = rows.start, rows.stop
            if place not in self._nonzero:
                self._nonzero[place] = _nonzero_columns(self._pixels[rows])
            columns, pixels = self._nonzero[place]
            _scale(self._spec, pixels, out)
            return columns

        return Batch(self._labels, fill)


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
    ) -> None:
        """Prepare batches.

        Args:
            images: All images with their classes.
            spec: What the network takes.
            batch_size: How many make a batch.
            seed: The seed of all randomness.
            skips_zero_columns: Whether to leave out pixels that are 0 in all images of a
                batch. Finding them takes time, which pays where the first layer is wide.
        """
        self._pixels = images.images.reshape(len(images), -1)
        self._labels = images.labels
        self._spec = spec
        self._skips_zero_columns = skips_zero_columns
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = -1
        self._order: Order = np.empty(0, np.int64)

    def __len__(self) -> int:
        return math.ceil(len(self._labels) / self._batch_size)

    def batch(self, epoch: int, index: int) -> Batch:
        """See ``Batches.batch``."""
        if epoch != self._epoch:
            self._order = stream(self._seed, _ORDER, epoch).permutation(len(self._labels))
            self._epoch = epoch
        rows_of_batch = self._order[index * self._batch_size : (index + 1) * self._batch_size]

        def fill(rows: slice, out: FloatArray) -> Columns | None:
            pixels = np.take(self._pixels, rows_of_batch[rows], axis=0)
            if not self._skips_zero_columns:
                self._spec.scale(pixels, out.dtype.type, out)
                return None
            columns, pixels = _nonzero_columns(pixels)
            _scale(self._spec, pixels, out)
            return columns

        return Batch(self._labels[rows_of_batch], fill)


class WarpedBatches:
    """As ``ShuffledBatches``, with images distorted anew in each epoch.

    Neighbours in the order share a warp. So some thousand images are distorted at a time, mixed,
    and cut into batches.
    """

    def __init__(
        self,
        images: Split,
        *,
        batch_size: int,
        seed: int,
        settings: Callable[[int], WarpSettings],
        pool: ThreadPool,
    ) -> None:
        """Prepare batches.

        Args:
            images: (N, height, width) images with their classes.
            batch_size: How many make a batch.
            seed: The seed of all randomness.
            settings: Returns how far to distort in an epoch, from 0.
            pool: The threads that distort.
        """
        self._images = images
        self._batch_size = batch_size
        self._seed = seed
        self._settings = settings
        self._pool = pool
        self._batches_held = max(1, _WARPED_IMAGES // batch_size)
        self._held = (-1, -1)  # the epoch, and which part of it
        self._order: Order = np.empty(0, np.int64)  # of the held images
        self._mix: Order = np.empty(0, np.int64)  # where in ``_warped`` each of them is
        rows = min(self._batches_held * batch_size, len(images))
        self._warped = np.empty((rows, images.images[0].size), np.float32)

    def __len__(self) -> int:
        return math.ceil(len(self._images) / self._batch_size)

    def batch(self, epoch: int, index: int) -> Batch:
        """See ``Batches.batch``."""
        part, index_held = divmod(index, self._batches_held)
        if (epoch, part) != self._held:
            self._hold(epoch, part)
        start = index_held * self._batch_size
        rows_of_batch = self._mix[start : start + self._batch_size]

        def fill(rows: slice, out: FloatArray) -> None:
            np.take(self._warped, rows_of_batch[rows], axis=0, out=out, mode="clip")

        return Batch(self._images.labels[self._order[rows_of_batch]], fill)

    def _hold(self, epoch: int, part: int) -> None:
        """Warp a part of an epoch; the pool's threads take its pieces in turn."""
        order = stream(self._seed, _ORDER, epoch).permutation(len(self._images))
        count = len(self._warped)
        self._order = order[part * count : (part + 1) * count]
        self._mix = stream(self._seed, _MIX, epoch, part).permutation(len(self._order))
        starts = range(0, len(self._order), _PIECE_IMAGES)
        settings = self._settings(epoch)

        def warp_pieces(thread: int) -> None:
            for start in starts[thread :: self._pool.size]:
                rows = self._order[start : start + _PIECE_IMAGES]
                images = np.take(self._images.images, rows, axis=0)
                rng = stream(self._seed, _WARPS, epoch, part, start)
                warp(images, settings, rng, out=self._warped[start : start + len(rows)])

        self._pool.run(warp_pieces)
        self._held = (epoch, part)


def _nonzero_columns(pixels: Pixels) -> tuple[Columns, Pixels]:
    """Return which of the (N, D) pixels are not 0 in all images, and the (N, k) that are left."""
    columns = np.flatnonzero(pixels.max(axis=0, initial=0))
    return columns, np.take(pixels, columns, axis=1)


def _scale(spec: InputSpec, pixels: Pixels, out: FloatArray) -> None:
    """Write (N, k) pixels as inputs into the first k columns of ``out``."""
    width = pixels.shape[1]
    replace(spec, shape=(width,)).scale(pixels, out.dtype.type, out[:, :width])
