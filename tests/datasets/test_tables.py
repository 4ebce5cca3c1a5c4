import gzip
import io
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mlpserve.datasets import DatasetError
from mlpserve.datasets.tables import Chunk, open_table

Array = npt.NDArray[Any]
IMAGES = np.arange(5 * 4).reshape(5, 4) * 12  # five of 2 x 2 pixels
LABELS = ["3", "1", "0", "2", "1"]
PIXELS = [f"pixel{index}" for index in range(4)]


def write(path: Path, *rows: str | Iterable[object]) -> Path:
    text = "\n".join(
        row if isinstance(row, str) else ",".join(str(cell) for cell in row) for row in rows
    )
    content = f"{text}\n".encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def labelled_rows() -> list[list[object]]:
    return [[label, *image] for label, image in zip(LABELS, IMAGES.tolist(), strict=True)]


def whole(path: Path, **options: Any) -> Chunk:
    """Return all rows of a table as one chunk."""
    chunks = list(open_table(path, **options).chunks())
    images = np.concatenate([chunk.images for chunk in chunks])
    columns = [
        None if column[0] is None else np.concatenate([part for part in column if part is not None])
        for column in ([chunk.labels for chunk in chunks], [chunk.ids for chunk in chunks])
    ]
    return Chunk(images, *columns)


def check(chunk: Chunk, images: Array = IMAGES, labels: list[str] | None = LABELS) -> None:
    np.testing.assert_array_equal(chunk.images, images)
    assert (None if chunk.labels is None else chunk.labels.tolist()) == labels


def png(pixels: Array, mode: str | None = None) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("name", ["label", "Label", "CLASS", "target", "y", "digit"])
def test_label_column_is_found_by_its_name(name: str, tmp_path: Path) -> None:
    path = write(
        tmp_path / "train.csv", [*PIXELS, name], *(row[1:] + row[:1] for row in labelled_rows())
    )
    chunk = whole(path, needs_label=True)
    check(chunk)
    assert chunk.images.dtype == np.uint8
    assert chunk.ids is None


def test_label_column_may_be_given(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", ["emotion", *PIXELS], *labelled_rows())
    check(whole(path, label_column="emotion"))
    with pytest.raises(DatasetError) as caught:
        open_table(path, label_column="emotions")
    assert str(caught.value) == (
        f"{path}: --label-column: expected one of the columns, emotion, pixel0, pixel1, pixel2, "
        "pixel3, got 'emotions'"
    )


def test_missing_label_says_which_flag_names_it(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", ["emotion", *PIXELS], *labelled_rows())
    with pytest.raises(DatasetError) as caught:
        open_table(path, needs_label=True)
    assert str(caught.value) == (
        f"{path}: expected a column with the label, called label, class, target, y or digit, got "
        "the columns emotion, pixel0, pixel1, pixel2, pixel3; name it with --label-column"
    )


def test_table_without_a_header_begins_with_the_label(tmp_path: Path) -> None:
    path = write(tmp_path / "mnist_train.csv", *labelled_rows())
    check(whole(path, needs_label=True))
    check(whole(path))
    check(whole(path, values=4))
    check(whole(path, label_column="0"))


def test_table_without_a_header_and_without_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "test.csv", *IMAGES.tolist())
    check(whole(path), labels=None)
    check(whole(path, values=4), labels=None)
    last = write(tmp_path / "last.csv", *(row[1:] + row[:1] for row in labelled_rows()))
    check(whole(last, label_column="-1"))


def test_data_frame_whose_columns_are_numbers_has_a_header(tmp_path: Path) -> None:
    check(whole(write(tmp_path / "a.csv", range(4), *IMAGES.tolist())), labels=None)
    check(whole(write(tmp_path / "b.csv", ["label", *range(4)], *labelled_rows())))


def test_index_column_of_a_data_frame_is_no_pixel(tmp_path: Path) -> None:
    rows = ([number, *row] for number, row in enumerate(labelled_rows(), 100))
    chunk = whole(write(tmp_path / "train.csv", ["", "label", *PIXELS], *rows))
    check(chunk)
    assert chunk.ids is not None
    assert chunk.ids.tolist() == ["100", "101", "102", "103", "104"]


def test_column_of_text_that_is_neither_is_ignored(tmp_path: Path) -> None:
    rows = ([*row, "train set"] for row in labelled_rows())
    path = write(tmp_path / "train.csv", ["label", *PIXELS, "Usage"], *rows)
    check(whole(path))
    assert open_table(path).columns.ignored == ("Usage",)


@pytest.mark.parametrize("name", ["train.csv.gz", "train.tsv", "train.CSV"])
def test_spellings_of_csv(name: str, tmp_path: Path) -> None:
    rows: list[list[object]] = [["label", *PIXELS], *labelled_rows()]
    delimiter = "\t" if "tsv" in name else ";"
    lines = ["", *(delimiter.join(str(cell) for cell in row) for row in rows)]
    check(whole(write(tmp_path / name, *lines)))


def test_byte_order_mark_and_quotes_and_windows_lines(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    rows: list[list[object]] = [["label", *PIXELS], *labelled_rows()]
    lines = (",".join(f'"{cell}"' for cell in row) for row in rows)
    path.write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    check(whole(path))


def test_fractions_after_many_integers_make_floats(tmp_path: Path) -> None:
    # Far enough into the file that pyarrow has taken the columns for integers.
    images = np.zeros((30_000, 4))
    images[-1] = [0.25, 0.5, 0.75, 1]
    path = tmp_path / "train.csv"
    with path.open("w") as file:
        file.write("label,a0,a1,a2,a3\n")
        file.writelines("0," + ",".join(f"{v:0100g}" for v in row) + "\n" for row in images)
    table = open_table(path)
    chunks = list(table.chunks())
    assert len(chunks) > 2
    assert chunks[0].images.dtype == np.uint8
    assert chunks[-1].images.dtype == np.float32
    np.testing.assert_array_equal(np.concatenate([chunk.images for chunk in chunks]), images)
    assert table.fraction_read == 1
    assert [len(chunk.images) for chunk in table.chunks()] == [len(c.images) for c in chunks]


def test_row_longer_than_a_block_is_read(tmp_path: Path) -> None:
    row = np.arange(2500) % 2 / 2
    lines = [",".join(f"{value:.{digits}f}" for value in row) for digits in (400, 2000, 2800)]
    path = write(tmp_path / "large.csv", *lines)
    images = np.concatenate([chunk.images for chunk in open_table(path, values=2500).chunks()])
    np.testing.assert_array_equal(images, [row, row, row])


def test_values_keep_their_range(tmp_path: Path) -> None:
    floats = IMAGES / 1000
    rows = ([*image, "a"] for image in floats.tolist())
    chunk = whole(write(tmp_path / "floats.csv", [*PIXELS, "label"], *rows))
    assert chunk.images.dtype == np.float32
    np.testing.assert_array_equal(chunk.images, floats.astype(np.float32))
    chunk = whole(write(tmp_path / "signed.csv", PIXELS, *(IMAGES - 5).tolist()))
    assert chunk.images.dtype == np.int32
    check(chunk, IMAGES - 5, None)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["label;a;b;c;d", "1;0,5;1;0;0,25"], "column a: expected numbers with a decimal point, g"),
        (["label;a;b;c;d", "1;1;0;0,25;,5"], "column c: .* got '0,25' with a decimal comma; write"),
        (["label;a;b;c;d", "one;1,0e-3;0,0;0,25;0,5"], "column a: .* got '1,0e-3' with a decimal"),
        (["label\ta\tb\tc\td", "1\t0,5\t1\t0\t0"], "column a: .* got '0,5' with a decimal"),
        (["1;0,5;1;0;0,25"], "row 1: .* got '0,5' with a decimal comma"),
        (["1;0;0;0;-0,25"], "row 1: .* got '-0,25' with a decimal comma"),
    ],
    ids=str,
)
def test_decimal_commas_are_named(tmp_path: Path, rows: list[str], message: str) -> None:
    path = tmp_path / "europe.csv"
    path.write_text("\n".join(rows) + "\n")
    with pytest.raises(DatasetError, match=f"europe.csv: {message}"):
        whole(path)


def test_damaged_rows_are_named(tmp_path: Path) -> None:
    header = ["label", *PIXELS]
    short = write(tmp_path / "short.csv", header, *labelled_rows()[:2], "1,2,3")
    with pytest.raises(DatasetError, match="short.csv.*Expected 5 columns, got 3"):
        whole(short)
    gap = write(tmp_path / "gap.csv", header, *labelled_rows()[:2], "1,2,3,,4")
    with pytest.raises(DatasetError, match="gap.csv: row 3: column pixel2: expected a value, got"):
        whole(gap)
    unlabelled = write(tmp_path / "unlabelled.csv", header, *labelled_rows()[:2], ",2,3,4,4")
    with pytest.raises(DatasetError, match="row 3: column label: expected a value, got none"):
        whole(unlabelled)
    text = write(tmp_path / "text.csv", header, *labelled_rows()[:2], "1,2,3,four,4")
    with pytest.raises(DatasetError, match="text.csv: column pixel2: expected numbers, got text"):
        whole(text)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"label,pixel0\n"])
def test_table_without_rows(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="train.csv: expected rows, got none"):
        whole(path)


@pytest.mark.parametrize("kind", ["uint8", "int64", "float64"])
def test_parquet_with_a_column_a_pixel(kind: str, tmp_path: Path) -> None:
    columns = {name: pa.array(IMAGES[:, i].astype(kind)) for i, name in enumerate(PIXELS)}
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"label": [int(label) for label in LABELS], **columns}), path)
    chunk = whole(path, needs_label=True)
    check(chunk)
    assert chunk.images.dtype == (np.float32 if kind == "float64" else np.uint8)
    assert open_table(path).rows == 5


def test_parquet_is_read_in_parts_of_bounded_size(tmp_path: Path) -> None:
    images = np.arange(50_000 * 100).reshape(50_000, 100) % 251
    path = tmp_path / "train.parquet"
    pq.write_table(
        pa.table({f"p{index}": images[:, index] for index in range(100)}), path, row_group_size=8000
    )
    chunks = list(open_table(path).chunks())
    assert max(chunk.images.nbytes for chunk in chunks) < 4 * 1024**2
    np.testing.assert_array_equal(np.concatenate([chunk.images for chunk in chunks]), images)


def test_shards_follow_each_other(tmp_path: Path) -> None:
    header = ["label", *PIXELS]
    first = write(tmp_path / "1.csv", header, *labelled_rows()[:2])
    second = write(tmp_path / "2.csv", header, *labelled_rows()[2:])
    chunks = list(open_table([first, second]).chunks())
    np.testing.assert_array_equal(np.concatenate([chunk.images for chunk in chunks]), IMAGES)
    other = write(tmp_path / "3.csv", ["label", *PIXELS[:3]], "0,1,2,3")
    with pytest.raises(DatasetError, match="3.csv: expected the columns of .*1.csv, got others"):
        open_table([first, other])


def huggingface_table(pictures: list[bytes], labels: list[int], names: list[str]) -> pa.Table:
    """Return what the library datasets has in its files: pictures, and classes with names."""
    images = [{"bytes": content, "path": None} for content in pictures]
    features = {
        "image": {"_type": "Image"},
        "label": {"names": names, "_type": "ClassLabel"},
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.table({"image": images, "label": labels}).replace_schema_metadata(metadata)


@pytest.mark.parametrize("kind", ["parquet", "stream", "file"])
def test_encoded_pictures_and_class_names_of_huggingface(kind: str, tmp_path: Path) -> None:
    pixels = IMAGES.reshape(5, 2, 2).astype(np.uint8)
    found = huggingface_table([png(image) for image in pixels], [1, 0, 1, 0, 1], ["cat", "dog"])
    path = tmp_path / ("train.parquet" if kind == "parquet" else "data-00000-of-00001.arrow")
    if kind == "parquet":
        pq.write_table(found, path)
    else:
        new = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
        with new(str(path), found.schema) as writer:
            writer.write_table(found)
    table = open_table(path, needs_label=True)
    assert (table.shape, table.class_names) == ((2, 2), ("cat", "dog"))
    check(whole(path), labels=["dog", "cat", "dog", "cat", "dog"])
    assert whole(path, shape=(4, 4)).images.shape == (5, 16)
    assert whole(path, shape=(2, 2, 3)).images.shape == (5, 12)


def test_picture_that_is_damaged_names_its_row(tmp_path: Path) -> None:
    good = png(IMAGES[:4].astype(np.uint8))
    path = tmp_path / "train.parquet"
    pq.write_table(huggingface_table([good, good[:-30]], [0, 0], ["cat"]), path)
    with pytest.raises(DatasetError, match="train.parquet: row 2: expected a picture, but"):
        whole(path)


def test_lists_nested_or_not_are_images(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    nested = pa.table({"image": IMAGES.reshape(5, 2, 2).tolist(), "label": LABELS})
    pq.write_table(nested, path)
    check(whole(path))
    ragged = pa.table({"image": [[1, 2], [1, 2, 3]], "label": ["a", "b"]})
    pq.write_table(ragged, path)
    with pytest.raises(DatasetError, match="expected lists of one length, got 2 to 3"):
        whole(path)


def test_damaged_parquet_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    path.write_bytes(b"PAR1 no more")
    with pytest.raises(DatasetError, match="train.parquet: cannot be read: "):
        open_table(path)


def test_missing_pyarrow_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = write(tmp_path / "train.csv", *labelled_rows())
    with pytest.raises(DatasetError) as caught:
        open_table(path)
    assert str(caught.value) == (
        f"{path}: CSV, Parquet and Arrow need pyarrow: pip install 'mlpserve[tables]'"
    )
