"""Shards: the work of a job, cut so that machines can do it apart, and no part of it twice.

A shard is a range of one file's rows, or some pictures that follow each other. It has the same name
wherever and whenever the same inputs are cut, and a file of the output is called after it.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from mlpserve.client.predict.files import ImageFile

DEFAULT_ROWS: Final = 262_144  # some seconds of work, and 10 MB of output
MIN_ROWS: Final = 1024
_PICTURE_ROWS: Final = 64  # a picture takes the time of so many rows, at least
_DIGEST_DIGITS: Final = 12


@dataclass(frozen=True)
class Shard:
    """A part of the inputs.

    Attributes:
        number: The place of its first source in all inputs.
        sources: What is read: one file, or a range of its rows, or several pictures.
        fingerprints: Of each source, what tells it from a later one of its name.
    """

    number: int
    sources: tuple[ImageFile, ...]
    fingerprints: tuple[str, ...]

    @property
    def first_row(self) -> int:
        """Return the place of its first row in its file."""
        return self.sources[0].first_row

    @property
    def name(self) -> str:
        """Return the name of its file of the output.

        Names sort as the inputs are ordered. The digest is of the sources' names, fingerprints and
        rows.
        """
        digest = hashlib.sha256()
        for source, fingerprint in zip(self.sources, self.fingerprints, strict=True):
            fact = f"{source.name}\0{fingerprint}\0{source.part}\0"
            digest.update(fact.encode(errors="surrogateescape"))
        shown = digest.hexdigest()[:_DIGEST_DIGITS]
        return f"part-{self.number:07}-{self.first_row:012}-{shown}.parquet"

    def changed(self) -> Iterator[ImageFile]:
        """Yield the sources that are not what they were when the inputs were cut."""
        for source, fingerprint in zip(self.sources, self.fingerprints, strict=True):
            if source.fingerprint() != fingerprint:
                yield source


def cut(sources: Sequence[ImageFile], max_rows: int = DEFAULT_ROWS) -> list[Shard]:
    """Return the shards of some sources, in their order; each image is in one of them.

    Args:
        sources: The inputs.
        max_rows: The most rows of a shard, but of files that are read from their beginning only,
            and of Parquet, whose row groups stay whole.
    """
    return list(_shards(sources, max_rows))


def _shards(sources: Sequence[ImageFile], max_rows: int) -> Iterator[Shard]:
    pictures: list[ImageFile] = []
    max_pictures = max(1, max_rows // _PICTURE_ROWS)
    for number, source in enumerate(sources):
        if source.is_picture:
            pictures.append(source)
        if pictures and (not source.is_picture or len(pictures) == max_pictures):
            yield _shard(number + source.is_picture - len(pictures), pictures)
            pictures = []
        if not source.is_picture:
            for part in source.parts(max_rows):
                yield _shard(number, [part])
    if pictures:
        yield _shard(len(sources) - len(pictures), pictures)


def _shard(number: int, sources: Sequence[ImageFile]) -> Shard:
    return Shard(number, tuple(sources), tuple(source.fingerprint() for source in sources))
