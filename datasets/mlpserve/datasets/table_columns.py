"""Columns of a table: which of them are the pixels, the label and the id."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from mlpserve.datasets.dataset import DatasetError
from mlpserve.datasets.table_file import TableFile, decimal_comma_error

LABEL_NAMES: Final = ("label", "class", "target", "y", "digit")
ID_NAMES: Final = (
    "id", "image_id", "imageid", "index", "idx", "row_id", "rowid", "key", "uuid",
    "filename", "file_name", "unnamed: 0", "__index_level_0__", "",
)  # fmt: skip
IMAGE_NAMES: Final = ("image", "img", "images", "pixels", "picture", "x")

_MAX_NAMES_SHOWN: Final = 8


@dataclass(frozen=True)
class Columns:
    """The columns of a table that are read, by their place.

    Attributes:
        images: One for each value of an image, or a single one with lists or encoded pictures.
        label: The one with the labels; None if there are none.
        id: The one that identifies a row; None if there is none.
        ignored: Names of all others.
    """

    images: tuple[int, ...]
    label: int | None
    id: int | None
    ignored: tuple[str, ...]


def find_label_column(file: TableFile, wanted: str | None, *, values: int | None) -> int | None:
    """Return the place of the label's column, or None if there is none.

    Args:
        file: The table.
        wanted: What ``--label-column`` says: a name, or a place where there are no names.
        values: How many values an image has, if that is known.

    Raises:
        DatasetError: There is no column that is called as wanted.
    """
    count = len(file.names)
    if wanted is not None:
        if file.has_header and wanted in file.names:
            return file.names.index(wanted)
        if not file.has_header and re.fullmatch(r"-?\d+", wanted) and -count <= int(wanted) < count:
            return int(wanted) % count
        known = shown(file.names) if file.has_header else f"{count} without names (from 0)"
        raise DatasetError(
            f"{file.path}: --label-column: expected one of the columns, {known}, got {wanted!r}"
        )
    if not file.has_header:
        is_image = count == values if values is not None else _is_square(count)
        return None if is_image or count == 1 else 0
    names = [name.lower() for name in file.names]
    found = [names.index(name) for name in LABEL_NAMES if name in names]
    return found[0] if found else None


def find_columns(
    file: TableFile, types: list[Any], label: int | None, id_name: str | None = None
) -> Columns:
    """Return what the columns of a table are.

    Args:
        file: The table.
        types: The pyarrow type of each column.
        label: The label's column.
        id_name: The name of the column that identifies a row, where it is given.

    Raises:
        DatasetError: No column has that name; or none, or more than one, may be the image.
    """
    id_column = _id_column(file, label, id_name)
    rest = _neither_label_nor_id(file, label, id_column)
    single = _image_column(file, types, rest)
    images = single or [index for index in rest if is_number(types[index])]
    are_images = set(images)
    texts = [index for index in rest if index not in are_images]
    if not single:
        _refuse_decimal_commas(file, texts)
    if not images:
        raise DatasetError(
            f"{file.path}: expected columns of numbers, one for each pixel, or one column of "
            f"pictures or lists, got the columns {shown(file.names)}"
        )
    _refuse_text_among_pixels(file, images, texts)
    ignored = tuple(file.names[index] or str(index) for index in texts)
    return Columns(tuple(images), label, id_column, ignored)


def _id_column(file: TableFile, label: int | None, id_name: str | None) -> int | None:
    if id_name is not None:
        if id_name not in file.names:
            raise DatasetError(
                f"{file.path}: --id-column: expected one of the columns, {shown(file.names)}, "
                f"got {id_name!r}"
            )
        return file.names.index(id_name)
    if not file.has_header:
        return None
    names = [name.lower() for name in file.names]
    ids = (names.index(name) for name in ID_NAMES if name in names)
    return next((index for index in ids if index != label), None)


def _neither_label_nor_id(file: TableFile, label: int | None, id_column: int | None) -> list[int]:
    """Return the other columns: two that are called like labels mean the same, and no pixels."""
    names = [name.lower() for name in file.names]
    skipped = {label, id_column}
    if file.has_header:
        skipped |= {i for i, name in enumerate(names) if name in (*LABEL_NAMES, *ID_NAMES)}
        if label is not None and names[label] not in LABEL_NAMES:
            skipped -= {i for i, name in enumerate(names) if name == "y"}
    return [index for index in range(len(names)) if index not in skipped]


def _image_column(file: TableFile, types: list[Any], rest: list[int]) -> list[int]:
    """Return the one column that holds whole images; none where there is no such."""
    found = [index for index in rest if is_picture(types[index]) or is_list(types[index])]
    named = ([i] for name in IMAGE_NAMES for i in found if file.names[i].lower() == name)
    found = next(named, found)
    if len(found) > 1:
        raise DatasetError(
            f"{file.path}: expected one column with images, got "
            f"{', '.join(file.names[index] for index in found)}; rename the right one to image"
        )
    return found


def _refuse_text_among_pixels(file: TableFile, images: list[int], texts: list[int]) -> None:
    """Refuse a column of text that is called like the pixels, for it would be missed."""
    stems = {re.sub(r"\d+", "#", file.names[index]) for index in images}
    for index in texts:
        if re.sub(r"\d+", "#", file.names[index]) in stems:
            raise DatasetError(f"{file.path}: {_column(file, index)}: expected numbers, got text")


def _refuse_decimal_commas(file: TableFile, texts: list[int]) -> None:
    """Refuse numbers that are taken for text, for they would be missed."""
    for index in texts:
        if found := file.decimal_comma(index):
            raise decimal_comma_error(file.path, _column(file, index), found)


def _column(file: TableFile, index: int) -> str:
    return f"column {file.names[index] or index + 1}"


def _is_square(count: int) -> bool:
    return math.isqrt(count) ** 2 == count


def is_number(kind: Any) -> bool:  # noqa: ANN401 - pyarrow has no types
    """Return whether a pyarrow type is that of one pixel."""
    types = arrow_types()
    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_null(kind)
    )


def is_list(kind: Any) -> bool:  # noqa: ANN401 - pyarrow has no types
    """Return whether a pyarrow type is that of an image as a list, nested or not."""
    types = arrow_types()
    kind = getattr(kind, "storage_type", kind)
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def is_picture(kind: Any) -> bool:  # noqa: ANN401 - pyarrow has no types
    """Return whether a pyarrow type is that of an encoded picture, alone or beside its path."""
    types = arrow_types()
    if types.is_struct(kind):
        return any(kind.field(index).name == "bytes" for index in range(kind.num_fields))
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def arrow_types() -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return the module that tells types of pyarrow apart; pyarrow is installed by then."""
    import pyarrow  # noqa: ICN001, PLC0415 - an extra, which is installed where a table is open

    return pyarrow.types


def shown(names: Sequence[str]) -> str:
    """Return names for a message: all if they are few, else how a run of them begins and ends."""
    if len(names) <= _MAX_NAMES_SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[:4])}, ..., {names[-1]} ({len(names)} in all)"
