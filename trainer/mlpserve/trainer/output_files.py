"""Output files of commands: whole or not at all, and never over another file by mistake."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlpserve.model.atomic_files import atomic_write
from mlpserve.trainer.errors import ExportError


def check_output(path: Path, *, force: bool) -> None:
    """Refuse a path that could not be written to, before there is anything to write.

    Raises:
        ExportError: Something is there that is no file, or not to be replaced; or there is no such
            folder.
    """
    with _writing(path):
        is_there, is_file, has_folder = path.exists(), path.is_file(), path.parent.is_dir()
    if is_there and not is_file:
        raise ExportError(f"{path}: expected a file to write, got a folder, a pipe or a device")
    if is_there and not force:
        raise ExportError(f"{path}: is there already; replace it with --force")
    if not has_folder:
        raise ExportError(f"{path}: expected a folder that exists, but {path.parent} is none")


def write_output(path: Path, content: bytes) -> None:
    """Write a file in one step.

    Raises:
        ExportError: It cannot be written.
    """
    with _writing(path), atomic_write(path) as file:
        file.write(content)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ExportError(f"{path}: cannot be written: {error.strerror}") from error
