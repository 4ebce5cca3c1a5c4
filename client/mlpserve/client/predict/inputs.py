"""Inputs of the command line: files, folders, patterns and pipes, as sources of images."""

import glob
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final, Self

from mlpserve.client.predict.batches import Rows, Source, Wanted
from mlpserve.client.predict.files import ImageFile
from mlpserve.client.predict.pictures import PICTURE_ENDINGS, Look
from mlpserve.client.predict.stores import remote_files
from mlpserve.datasets import DatasetError, Split
from mlpserve.datasets.class_labels import natural_key
from mlpserve.datasets.paths import user_path
from mlpserve.model.sync.urls import is_url

STANDARD_INPUT: Final = "-"
_MAX_START_BYTES: Final = 4096
_TABLE_STARTS: Final = {b"PAR1": ".parquet", b"ARROW1": ".arrow"}


class SplitSource:
    """The test split of a data set, as a source.

    Args:
        name: The data's.
        split: Its images and labels.
    """

    first_row = 0

    def __init__(self, name: str, split: Split) -> None:
        self.name = self.group = name
        self._split = split

    def read(self, wanted: Wanted) -> Iterator[Rows]:
        """See ``Source.read``."""
        labels = self._split.labels
        if labels.max() >= len(wanted.class_labels):
            raise DatasetError(
                f"{self.name}: expected the {len(wanted.class_labels)} classes of the model, "
                f"got a label {labels.max()}"
            )
        yield Rows(self._split.images, [wanted.class_labels[label] for label in labels])

    def count(self) -> int:
        """See ``Source.count``."""
        return len(self._split)

    def fingerprint(self) -> str:
        """See ``Source.fingerprint``."""
        return f"{len(self._split)} images"


class Inputs:
    """The sources that a command line names, and the copies of what came through pipes.

    A context manager: the copies are deleted at its end.

    Args:
        look: How pictures look.
    """

    def __init__(self, look: Look) -> None:
        self._look = look
        self._copies = tempfile.TemporaryDirectory(prefix="mlpserve-predict-")

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Delete the copies."""
        self._copies.cleanup()

    def sources(self, arguments: Sequence[str]) -> list[Source]:
        """Return a source for each file that is named, in the order of the arguments.

        A file is one; a folder is all pictures below it, and a pattern (``scans/*.png``, ``**`` for
        any folders) all files that fit, both in natural order: 2 before 10. ``-`` is standard
        input. A URL (``s3://bucket/scans/*.png``) is any of these in an object store. What is not
        there is a source that fails.

        Raises:
            DatasetError: A folder has no pictures, or no file fits a pattern.
            SyncError: A URL cannot be read by what is installed, or holds credentials.
            StoreError: An object store is away.
        """
        return [source for argument in arguments for source in self._sources(argument)]

    def _sources(self, argument: str) -> Iterator[Source]:
        if is_url(argument):
            yield from remote_files(argument, self._look)
            return
        if argument.startswith("~"):  # of a pattern in quotes, which no shell has expanded
            argument = str(user_path(argument))
        if argument == STANDARD_INPUT:
            yield self._piped(sys.stdin.buffer, "standard input")
        elif os.path.isdir(argument):  # noqa: PTH112 - also of a name that is no text
            yield from self._files(argument, _pictures_below(argument), "no picture is in it")
        elif glob.has_magic(argument) and not os.path.lexists(argument):
            found = [name for name in glob.glob(argument, recursive=True) if Path(name).is_file()]  # noqa: PTH207 - of text
            yield from self._files(argument, found, "no file fits this pattern")
        elif _is_pipe(argument):
            with Path(argument).open("rb") as pipe:
                yield self._piped(pipe, argument)
        else:
            yield ImageFile(Path(argument), argument, argument, self._look)

    def _files(self, group: str, names: list[str], complaint: str) -> Iterator[Source]:
        if not names:
            raise DatasetError(f"{group}: {complaint}")
        for name in sorted(names, key=natural_key):
            yield ImageFile(Path(name), name, group, self._look)

    def _piped(self, pipe: IO[bytes], name: str) -> Source:
        """Return a copy of what comes through a pipe, which can be read only once."""
        descriptor, path = tempfile.mkstemp(dir=self._copies.name)
        with open(descriptor, "wb") as copy:  # noqa: PTH123 - a descriptor
            shutil.copyfileobj(pipe, copy)
        kept = Path(path)
        # Tables are known by the end of their name, and this one has lost it.
        kept = kept.rename(kept.with_suffix(_ending(kept)))
        return PipedFile(kept, name, name, self._look)


class PipedFile(ImageFile):
    """A copy of what came through a pipe: another with each run."""

    def fingerprint(self) -> str:
        """Return its size."""
        return f"{self.path.stat().st_size} bytes"


def _ending(path: Path) -> str:
    """Return how the name of a table would end; "" for what is none."""
    with path.open("rb") as file:
        begin = file.read(_MAX_START_BYTES)
    for start, ending in _TABLE_STARTS.items():
        if begin.startswith(start):
            return ending
    try:
        # A sign of several bytes may be cut.
        text = begin.decode(errors="strict" if len(begin) < _MAX_START_BYTES else "ignore")
    except UnicodeDecodeError:
        return ""
    is_text = "\0" not in text and any(delimiter in text for delimiter in ",;\t")
    return ".csv" if is_text else ""


def _pictures_below(folder: str) -> list[str]:
    return [
        os.path.join(parent, name)  # noqa: PTH118 - of text
        for parent, folders, names in os.walk(folder)
        for name in names
        if name.lower().endswith(PICTURE_ENDINGS) and not name.startswith(".")
    ]


def _is_pipe(argument: str) -> bool:
    try:
        mode = os.stat(argument).st_mode  # noqa: PTH116 - also of a name that is no text
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)
