"""Batches of images, and the sources that they are read from, one after the other.

Knows no file format and no server.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mlpserve.datasets import DatasetError

MAX_ROWS: Final = 1024
"""So many images are computed at once: enough that what a request costs does not count."""


class Position(NamedTuple):
    """A place in the inputs: all before it are done.

    Attributes:
        source: The number of a source, from 0.
        row: How many rows of it are done.
    """

    source: int = 0
    row: int = 0


@dataclass(frozen=True, eq=False)
class Rows:
    """Images that follow each other in one source.

    Attributes:
        images: (N, ...) in a dtype and a shape that the model may take.
        true_labels: The class label of each, where they are known.
        ids: What identifies each, where the source says so.
        warnings: What may be wrong with each; "" for nothing. Empty where nothing is looked for.
        is_picture: Whether it is one picture, which may share a batch with others.
    """

    images: npt.NDArray[Any]
    true_labels: Sequence[str] | None = None
    ids: Sequence[str] | None = None
    warnings: Sequence[str] = ()
    is_picture: bool = False


@dataclass(frozen=True)
class Wanted:
    """What the model that answers takes.

    Attributes:
        shape: The shape of one image.
        class_labels: What each class is called.
        label_column: Of a table, what each image is; None where that is found by its name.
        id_column: Of a table, what identifies a row; None where that is of no interest.
        value_range: The lowest and the highest value; None for bytes, and floats from 0 to 1.
    """

    shape: tuple[int, ...]
    class_labels: tuple[str, ...]
    label_column: str | None = None
    id_column: str | None = None
    value_range: tuple[float, float] | None = None


START: Final = Position()


class Source(Protocol):
    """Something that images are read from.

    Attributes:
        name: What its rows are said to be from.
        group: What it was named by, alone or with others: a folder, or itself.
        first_row: The place of its first image; not 0 where it is a part of a file.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def group(self) -> str: ...  # noqa: D102
    @property
    def first_row(self) -> int: ...  # noqa: D102

    def read(self, wanted: Wanted) -> Iterator[Rows]:
        """Yield its images in order, a bounded number at a time.

        Raises:
            DatasetError: They cannot be read.
        """

    def count(self) -> int | None:
        """Return how many images there are, or may be; None where that is not known yet."""

    def fingerprint(self) -> str:
        """Return what tells it from another of its name, or an earlier one."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Images that are classified at once, of one source, or pictures of several.

    Attributes:
        images: (N, ...).
        sources: (N,) which each is from.
        indices: (N,) the place of each in its source.
        true_labels: (N,) or None; see ``Rows``.
        ids: (N,) or None; see ``Rows``.
        warnings: (N,) or empty; see ``Rows``.
        end: The position after the last.
    """

    images: npt.NDArray[Any]
    sources: Sequence[Source]
    indices: Sequence[int]
    true_labels: Sequence[str] | None
    ids: Sequence[str] | None
    warnings: Sequence[str]
    end: Position

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)


@dataclass(frozen=True)
class Failure:
    """A source that could not be read, or not to its end.

    Attributes:
        source: Its name.
        message: Why, in a sentence that names it.
        end: The position after it.
    """

    source: str
    message: str
    end: Position


def read_batches(
    sources: Sequence[Source],
    wanted: Wanted,
    *,
    start: Position = START,
    max_rows: int = MAX_ROWS,
) -> Iterator[Batch | Failure]:
    """Yield the images of all sources in order, and in their place the sources that fail.

    Args:
        sources: Where they are from.
        wanted: What the model takes.
        start: Where to begin.
        max_rows: The most images of a batch.
    """
    pictures: list[tuple[int, Rows]] = []
    for number in range(start.source, len(sources)):
        source = sources[number]
        done = start.row if number == start.source else 0
        try:
            for first, rows in _cut(source.read(wanted), done, max_rows):
                if rows.is_picture:
                    pictures.append((number, rows))
                if pictures and (not rows.is_picture or len(pictures) >= max_rows):
                    yield _of_pictures(sources, pictures)
                    pictures = []
                if not rows.is_picture:
                    yield _of_rows(source, rows, first, number)
        except DatasetError as error:
            if pictures:
                yield _of_pictures(sources, pictures)
                pictures = []
            yield Failure(source.name, str(error), Position(number + 1))
    if pictures:
        yield _of_pictures(sources, pictures)


def _cut(parts: Iterator[Rows], done: int, max_rows: int) -> Iterator[tuple[int, Rows]]:
    """Yield parts of at most ``max_rows``, without the first ``done`` of all, and where each is."""
    first = 0
    for part in parts:
        count = len(part.images)
        for start in range(min(max(done - first, 0), count), count, max_rows):
            yield first + start, _slice(part, slice(start, start + max_rows))
        first += count


def _slice(rows: Rows, wanted: slice) -> Rows:
    return Rows(
        rows.images[wanted],
        None if rows.true_labels is None else rows.true_labels[wanted],
        None if rows.ids is None else rows.ids[wanted],
        rows.warnings[wanted],
        rows.is_picture,
    )


def _of_rows(source: Source, rows: Rows, first: int, number: int) -> Batch:
    count = len(rows.images)
    return Batch(
        images=rows.images,
        sources=[source] * count,
        indices=range(source.first_row + first, source.first_row + first + count),
        true_labels=rows.true_labels,
        ids=rows.ids,
        warnings=rows.warnings,
        end=Position(number, first + count),
    )


def _of_pictures(sources: Sequence[Source], pictures: Sequence[tuple[int, Rows]]) -> Batch:
    return Batch(
        images=np.concatenate([rows.images for _, rows in pictures]),
        sources=[sources[number] for number, _ in pictures],
        indices=[0] * len(pictures),
        true_labels=None,
        ids=None,
        warnings=[warning for _, rows in pictures for warning in rows.warnings],
        end=Position(pictures[-1][0] + 1),
    )
