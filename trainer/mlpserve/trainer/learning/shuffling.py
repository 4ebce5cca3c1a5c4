"""Shuffling: the order in which an epoch shows the images, and the generators of all randomness.

All randomness is a function of the seed and the place in the training: an epoch's order of its
number, a warp of the epoch and of where in it. So a run that was stopped can go on anywhere without
having kept a generator, and threads may do their shards in any order.

A set of up to 512 MiB is shuffled whole. A larger one is shuffled in windows, whether it is in
memory or on disk, so that both learn the same:

    blocks, some hundred neighbours each -> in random order -> cut into windows -> each shuffled

A window, 128 MiB, is of some five hundred blocks from all over the set, so it is much like all of
it even where the set is sorted by class. It is read block by block into one of two buffers, while
the images of the other are learned from.
"""

import math
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve.datasets import Split
from mlpserve.datasets.disk_images import READ_BYTES, SMALL_BYTES, DiskImages

Order: TypeAlias = npt.NDArray[np.int64]  # indices of images
Pixels: TypeAlias = npt.NDArray[Any]  # (N, ...) uint8 or float32, of N images
Ranges: TypeAlias = tuple[tuple[int, int], ...]  # of images: each start and what is after its last

# The streams of one seed: which generator draws what. The network's first weights are drawn from
# the seed itself.
_ORDER: Final = 1
WARPS: Final = 2
MIX: Final = 3
DROPOUT: Final = 4
VALIDATION: Final = 5
_BLOCKS: Final = 6
OUT_OF_DISTRIBUTION: Final = 7
SWEEP: Final = 8


def stream(seed: int, *place: int) -> np.random.Generator:
    """Return the generator of a place in the training; see above."""
    return np.random.default_rng((seed, *place))


@dataclass(frozen=True)
class Sizes:
    """Sizes by which a set is shuffled, in bytes of images.

    Attributes:
        whole: Up to which a set is shuffled whole.
        window: What is shuffled at a time of a larger one.
        block: What stays together until then.
    """

    whole: int = SMALL_BYTES
    window: int = 128 * 1024**2
    block: int = READ_BYTES


SIZES: Final = Sizes()


@dataclass(frozen=True, eq=False)
class Shuffled:
    """Images that follow each other in the order of an epoch, good until the next are asked for.

    Attributes:
        labels: (N,) their classes.
        pixels: (M, ...) images, these among them.
        places: (N,) which of ``pixels`` each is.
    """

    labels: npt.NDArray[np.int64]
    pixels: Pixels
    places: Order

    def take(self, rows: slice | Order) -> Pixels:
        """Return some of the images, as a copy; threads may do so at once."""
        return np.take(self.pixels, self.places[rows], axis=0)


class ShuffledImages:
    """All images of a split in a random order, another in each epoch."""

    def __init__(self, split: Split, *, seed: int, unit: int, sizes: Sizes = SIZES) -> None:
        """Prepare the orders.

        Args:
            split: The images, in memory or on disk.
            seed: The seed of the orders.
            unit: How many images are asked for at a time; a window has a multiple of it.
            sizes: How much is shuffled at a time.
        """
        images = split.images
        image_bytes = math.prod(images.shape[1:]) * images.dtype.itemsize
        self._split = split
        self._seed = seed
        self._is_whole = len(split) * image_bytes <= sizes.whole
        window = max(1, sizes.window // image_bytes // unit) * unit
        self._window = len(split) if self._is_whole else window
        self._block = max(1, sizes.block // image_bytes)
        self._held = (-1, -1)  # the epoch, and which window of it
        self._rows: Order = np.empty(0, np.int64)  # of the window's images, in their order
        self._places: Order = np.empty(0, np.int64)
        self._reader: _Reader | None = None
        self._pixels: Pixels = np.empty(0)
        if isinstance(images, DiskImages):
            self._reader = _Reader(images, self._window)
        else:
            self._pixels = images

    def at(self, epoch: int, start: int, stop: int) -> Shuffled:
        """Return the images from ``start`` to before ``stop`` of an epoch, or to its end.

        Args:
            epoch: The epoch, from 0.
            start: A multiple of the unit.
            stop: At most one unit later.

        Raises:
            DatasetError: A file cannot be read.
        """
        window, first = divmod(start, self._window)
        if (epoch, window) != self._held:
            self._hold(epoch, window)
        part = slice(first, first + stop - start)
        return Shuffled(self._split.labels[self._rows[part]], self._pixels, self._places[part])

    def _hold(self, epoch: int, window: int) -> None:
        ranges = self._ranges(epoch, window)
        rows = np.concatenate([np.arange(start, stop) for start, stop in ranges])
        place = (epoch,) if self._is_whole else (epoch, window)
        mix = stream(self._seed, _ORDER, *place).permutation(len(rows))
        self._rows = rows[mix]
        if self._reader is None:
            self._places = self._rows
        else:
            self._pixels = self._reader.read(ranges, then=self._ranges(epoch, window + 1))
            self._places = mix
        self._held = (epoch, window)

    def _ranges(self, epoch: int, window: int) -> Ranges:
        """Return which images a window has, before it is shuffled; none after the last window."""
        count = len(self._split)
        first, last = window * self._window, min((window + 1) * self._window, count)
        if first >= count:
            return ()
        if self._is_whole:
            return ((0, count),)
        blocks = stream(self._seed, _BLOCKS, epoch).permutation(-(-count // self._block))
        blocks *= self._block  # where each begins in the set
        sizes = np.minimum(self._block, count - blocks)
        ends = np.cumsum(sizes)  # in the order of the epoch
        begins = blocks + np.maximum(0, first - (ends - sizes))
        stops = blocks + sizes - np.maximum(0, ends - last)
        has_some = begins < stops
        # In the order of the file, which a disk likes; the window is shuffled anyway.
        pairs = zip(begins[has_some].tolist(), stops[has_some].tolist(), strict=True)
        return tuple(sorted(pairs))


class _Reader:
    """Reads windows from disk into two buffers, one of them ahead of time."""

    def __init__(self, images: DiskImages, count: int) -> None:
        """Prepare for windows of up to ``count`` images; memory is taken as it is filled."""
        self._images = images
        self._free, self._used = (
            np.empty((count, *images.shape[1:]), images.dtype) for _ in range(2)
        )
        self._executor = ThreadPoolExecutor(1, "reader")  # ends when nobody has it any more
        self._ahead: tuple[Ranges, Future[None]] | None = None  # what is read into the free buffer

    def read(self, ranges: Ranges, *, then: Ranges) -> Pixels:
        """Return the images of some ranges, good until the next call, and begin to read others.

        Raises:
            DatasetError: The file cannot be read.
        """
        if self._ahead is not None:
            wait([self._ahead[1]])
        if self._ahead is not None and self._ahead[0] == ranges:
            self._ahead[1].result()
        else:
            self._fill(ranges)
        self._free, self._used = self._used, self._free
        self._ahead = (then, self._executor.submit(self._fill, then)) if then else None
        return self._used

    def _fill(self, ranges: Ranges) -> None:
        filled = 0
        for start, stop in ranges:
            part = self._free[filled : filled + stop - start]
            self._images.read_into(part, start)
            filled += stop - start
