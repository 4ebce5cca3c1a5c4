"""Results: where rows go, and what is known of a run so far, so that it can be resumed.

A result file is written in a folder beside it, ``FILE.partial``, and gets its name when it is
whole. The folder holds the rows, and ``state.json``, which says how many of them count and which
place in the inputs comes next. The state is replaced, in one step, after the rows that it speaks of
are on disk; rows beyond it are cut off when a run is resumed. So each image has its row exactly
once, whenever the process is killed.

Text is one file that grows; of Parquet, which cannot be added to, each state adds a file, and these
are joined at the end.
"""

import io
import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Protocol, Self, TextIO

from mlpserve.client import Predictions
from mlpserve.client.predict.batches import Batch, Failure, Position
from mlpserve.client.predict.outputs import WRITERS, CsvWriter, Form, JsonLinesWriter, Writer
from mlpserve.client.predict.parquet import batch_table, join_parts, pyarrow, write_part
from mlpserve.client.predict.tally import ResultsError, Tally, writing
from mlpserve.model.atomic_files import atomic_write, sync_file, sync_folder
from mlpserve.model.locks import LockedError, file_lock

PARQUET: Final = "parquet"
FILE_FORMS: Final = ("csv", "jsonl", PARQUET)
_STATE_NAME: Final = "state.json"
_EVERY_S: Final = 1.0
_MAX_KEPT_ROWS: Final = 262_144  # of Parquet, until they are written


class Results(Protocol):
    """Where rows go.

    Attributes:
        tally: What is known so far; not empty at the beginning where a run is resumed.
    """

    tally: Tally

    def write(self, batch: Batch, found: Predictions) -> None:
        """Write the rows of a batch."""

    def fail(self, failure: Failure) -> None:
        """Note that a source has failed."""

    def finish(self) -> None:
        """Write what was kept, and give the file its name."""


class StreamResults:
    """Rows written to a text file that is open, as standard output is.

    Args:
        file: The file.
        kind: A key of ``WRITERS``.
        form: How.
    """

    def __init__(self, file: TextIO, kind: str, form: Form) -> None:
        self.tally = Tally()
        self._form = form
        self._writer: Writer = WRITERS[kind](file, form)

    def write(self, batch: Batch, found: Predictions) -> None:
        """See ``Results.write``."""
        self._writer.write(batch, found)
        self.tally.add(batch, found, self._form.class_labels)

    def fail(self, failure: Failure) -> None:
        """See ``Results.fail``."""
        self.tally.fail(failure)

    def finish(self) -> None:
        """See ``Results.finish``."""
        self._writer.end()


class _TextPart:
    """The rows of a text form: one file, whose size is the mark of what counts."""

    def __init__(self, folder: Path, kind: str, form: Form, mark: int) -> None:
        self._path = folder / f"rows.{kind}"
        self._file = self._path.open("ab")
        if self._file.tell() < mark:
            raise ResultsError(f"{self._path}: is shorter than it was; --overwrite begins anew")
        self._file.truncate(mark)
        self._mark = mark
        self._text = io.StringIO(newline="")
        self._writer: Writer = (
            CsvWriter(self._text, form, is_begun=mark > 0)
            if kind == "csv"
            else JsonLinesWriter(self._text, form)
        )

    def write(self, batch: Batch, found: Predictions) -> int:
        self._writer.write(batch, found)
        # What a name holds that is no text is written as its number.
        content = self._text.getvalue().encode("utf-8", "backslashreplace")
        self._file.write(content)
        self._mark += len(content)
        self._text.seek(0)
        self._text.truncate()
        return 0

    def sync(self) -> int:
        sync_file(self._file)
        return self._mark

    def whole(self) -> Path:
        self._file.write(self._text.getvalue().encode())  # the header, where there are no rows
        self.sync()
        return self._path

    def close(self) -> None:
        self._file.close()


class _ParquetPart:
    """The rows of Parquet: a file for each state; their number is the mark of what counts."""

    def __init__(self, folder: Path, form: Form, mark: int) -> None:
        pyarrow()
        self._folder = folder
        self._form = form
        self._mark = mark
        self._kept: list[Any] = []

    def write(self, batch: Batch, found: Predictions) -> int:
        self._kept.append(batch_table(batch, found, self._form))
        return sum(table.num_rows for table in self._kept)

    def sync(self) -> int:
        if self._kept:
            path = self._part(self._mark)
            write_part(path, self._kept)
            _sync_path(path)
            self._kept = []
            self._mark += 1
        return self._mark

    def whole(self) -> Path:
        self.sync()
        path = self._folder / "rows.parquet"
        join_parts(map(self._part, range(self._mark)), path, self._form)
        _sync_path(path)
        return path

    def close(self) -> None:
        self._kept = []

    def _part(self, number: int) -> Path:
        return self._folder / f"part-{number:06}.parquet"


class FileResults:
    """Rows written to a file that appears under its name when it is whole.

    A context manager: whatever ends it early, what was written so far is kept to be resumed.

    Args:
        path: The file.
        kind: One of ``FILE_FORMS``.
        form: How.
        run: What a run must share with the one that it resumes: names and values.
        resume: Whether to go on with what an earlier run has left.
        overwrite: Whether to replace a file that is there, and what an earlier run has left.
        every_s: Seconds from one state to the next.

    Raises:
        ResultsError: The file is there, or an earlier run's rest, and neither flag says what to do;
            or that rest is of another run; or another process is writing it.
    """

    def __init__(
        self,
        path: Path,
        kind: str,
        form: Form,
        run: Mapping[str, str],
        *,
        resume: bool = False,
        overwrite: bool = False,
        every_s: float = _EVERY_S,
    ) -> None:
        self._path = path
        self._form = form
        self._run = dict(run)
        self._every_s = every_s
        self._folder = path.with_name(f"{path.name}.partial")
        self._open = ExitStack()
        with writing(path), self._open as opened:
            self._begin(resume=resume, overwrite=overwrite)
            mark = self._restored(resume=resume)
            self._part = (
                _ParquetPart(self._folder, form, mark)
                if kind == PARQUET
                else _TextPart(self._folder, kind, form, mark)
            )
            opened.callback(self._part.close)
            self._open = opened.pop_all()
        self._is_whole = True
        self._saved_s = time.monotonic()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Keep what was written so far, unless it is finished."""
        with writing(self._path), self._open:
            if self._is_whole:
                self._save()

    def write(self, batch: Batch, found: Predictions) -> None:
        """See ``Results.write``."""
        with writing(self._path):
            self._is_whole = False  # until rows and tally are of one batch again
            kept = self._part.write(batch, found)
            self.tally.add(batch, found, self._form.class_labels)
            self._is_whole = True
            if time.monotonic() - self._saved_s >= self._every_s or kept >= _MAX_KEPT_ROWS:
                self._save()

    def fail(self, failure: Failure) -> None:
        """See ``Results.fail``."""
        self.tally.fail(failure)

    def finish(self) -> None:
        """See ``Results.finish``."""
        self._is_whole = False
        with writing(self._path):
            self._part.whole().replace(self._path)
            sync_folder(self._path.parent)
            self._part.close()
            shutil.rmtree(self._folder)

    def _begin(self, *, resume: bool, overwrite: bool) -> None:
        if self._path.exists() and not overwrite:
            raise ResultsError(f"{self._path}: is there already; --overwrite replaces it")
        if not self._folder.exists():
            self._folder.mkdir()
        elif not (resume or overwrite):
            raise ResultsError(
                f"{self._folder}: is left of a run that did not end; --resume goes on with it, "
                "--overwrite begins anew"
            )
        try:
            self._open.enter_context(file_lock(self._folder / "lock", wait=False))
        except LockedError as error:
            raise ResultsError(f"{self._path}: another process is writing it") from error

    def _restored(self, *, resume: bool) -> int:
        """Take over what an earlier run has left, where that is wanted; return its mark."""
        state = self._folder / _STATE_NAME
        self.tally = Tally()
        if not resume or not state.exists():
            state.unlink(missing_ok=True)
            return 0
        document = json.loads(state.read_bytes())
        for name, value in self._run.items():
            if document["run"].get(name) != value:
                raise ResultsError(
                    f"{self._folder}: is left of a run with another {name}, "
                    f"{document['run'].get(name)}, not {value}; --overwrite begins anew"
                )
        tally = document["tally"]
        self.tally = Tally(
            **tally
            | {
                "position": Position(*tally["position"]),
                "failures": [tuple(failure) for failure in tally["failures"]],
            }
        )
        return int(document["mark"])

    def _save(self) -> None:
        document = {"run": self._run, "mark": self._part.sync(), "tally": asdict(self.tally)}
        with atomic_write(self._folder / _STATE_NAME) as file:
            file.write(json.dumps(document).encode())
        self._saved_s = time.monotonic()


def _sync_path(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
