"""A file of a table: what all kinds have in common, read by pyarrow in batches of rows."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlpserve.datasets.dataset import DatasetError


class TableFile(ABC):
    """One file of rows.

    Attributes:
        path: The file.
        names: What its columns are called; "" for all of a CSV file without a header.
        has_header: Whether the names are the file's own.
        rows: How many rows it has; None where only reading tells.
    """

    path: Path
    names: tuple[str, ...]
    has_header: bool = True
    rows: int | None = None

    @abstractmethod
    def types(self) -> list[Any]:
        """Return each column's pyarrow type, as far as the beginning of the file tells."""

    @abstractmethod
    def batches(
        self, columns: list[int], types: dict[int, Any], part: range | None = None
    ) -> Iterator[list[Any]]:
        """Yield the columns, as pyarrow arrays of a bounded number of rows.

        Args:
            columns: Which ones, by their place.
            types: The pyarrow types that the file does not know itself, for CSV.
            part: One of ``parts``; None for all rows.

        Raises:
            DatasetError: The file cannot be read.
        """

    def parts(self, max_rows: int) -> list[range]:  # noqa: ARG002 - as other files have it
        """Return ranges of rows that can be read apart, and together are all rows.

        Args:
            max_rows: The most of one, but where the file itself keeps more together.

        Returns:
            None, if the file is read from its beginning only.
        """
        return []

    def class_names(self, column: int) -> tuple[str, ...] | None:
        """Return what the numbers of a column stand for, if the file says so."""
        del column
        return None

    def decimal_comma(self, column: int) -> str | None:
        """Return a column's first value, where that is a number with a decimal comma."""
        del column
        return None

    @property
    @abstractmethod
    def bytes_read(self) -> int:
        """Return how far into the file its reading has come."""


def pyarrow(path: Path) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return pyarrow, with all of its modules that are needed here.

    Raises:
        DatasetError: It is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        import pyarrow.csv  # noqa: PLC0415
        import pyarrow.parquet  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise DatasetError(
            f"{path}: CSV, Parquet and Arrow need pyarrow: pip install 'mlpserve[tables]'"
        ) from error
    return pa


def decimal_comma_error(path: Path, where: str, found: str) -> DatasetError:
    """Return what is raised of a number with a decimal comma."""
    return DatasetError(
        f"{path}: {where}: expected numbers with a decimal point, got {found!r} with a decimal "
        "comma; write them with points, in pandas by to_csv(decimal='.')"
    )


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what pyarrow and the system raise into one sentence that names the file."""
    try:
        yield
    except DatasetError:
        raise
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from error
    # pyarrow's errors are of half a dozen classes, and of damaged files it promises no list.
    except Exception as error:
        text = " ".join(str(error).split())
        raise DatasetError(f"{path}: cannot be read: {text or type(error).__name__}") from error


def begins_with(path: Path, magic: bytes) -> bool:
    """Return whether a file begins with these bytes."""
    with path.open("rb") as file:
        return file.read(len(magic)) == magic
