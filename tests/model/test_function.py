import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from mlpserve.model import function as module
from mlpserve.model.arrow_columns import image_values
from mlpserve.model.compiled import CompiledModel, Workspace
from mlpserve.model.errors import ImagesError, ModelError, NoVersionError, WeightsFileError
from mlpserve.model.function import ModelFunction
from mlpserve.model.inputs import InputSpec, ValueRange
from mlpserve.model.labels import set_label
from mlpserve.model.versions import publish
from mlpserve.model.weights import Model

PIXELS: npt.NDArray[np.uint8] = np.random.default_rng(5).integers(0, 256, (11, 6), np.uint8)
SHARES = (PIXELS / np.float32(255)).astype(np.float32)


@pytest.fixture
def classify(three: Path) -> ModelFunction:
    return ModelFunction(three)


@pytest.fixture
def expected(model: Model) -> Any:
    return CompiledModel(model, reproducible=True).classify([PIXELS], Workspace())


def lists(values: npt.NDArray[Any], make: Callable[..., Any] = pa.list_) -> Any:
    return pa.array(values.tolist(), make(pa.from_numpy_dtype(values.dtype)))


def fixed(values: npt.NDArray[Any]) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def strings(values: npt.NDArray[Any], kind: Any) -> Any:
    return pa.array([row.tobytes() for row in values], kind)


def tensors(values: npt.NDArray[Any]) -> Any:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(values)


# Two rows that are not asked for stand before and after, as in a slice of a larger array.
AROUND = np.concatenate([PIXELS[:2], PIXELS, PIXELS[:2]])
BYTES = {
    "a list": lists(AROUND),
    "a large list": lists(AROUND, pa.large_list),
    "a fixed-size list": fixed(AROUND),
    "a list of int64": lists(AROUND.astype(np.int64)),
    "a fixed-size list of int16": fixed(AROUND.astype(np.int16)),
    "lists of lists": pa.array(AROUND.reshape(-1, 2, 3).tolist(), pa.list_(pa.list_(pa.uint8()))),
    "fixed-size lists of lists": pa.FixedSizeListArray.from_arrays(fixed(AROUND.reshape(-1, 3)), 2),
    "binary": strings(AROUND, pa.binary()),
    "large binary": strings(AROUND, pa.large_binary()),
    "a view of binary": strings(AROUND, pa.binary_view()),
    "fixed-size binary": strings(AROUND, pa.binary(6)),
    "a tensor": tensors(AROUND.reshape(-1, 2, 3)),
}
FLOATS = (AROUND / np.float32(255)).astype(np.float32)
FLOAT_COLUMNS = {
    "a list of float32": lists(FLOATS),
    "a list of float64": lists(FLOATS.astype(np.float64)),
    "a fixed-size list of float32": fixed(FLOATS),
    "binary of float32": strings(FLOATS, pa.binary()),
    "fixed-size binary of float32": strings(FLOATS, pa.binary(24)),
}


@pytest.mark.parametrize("column", BYTES.values(), ids=BYTES)
def test_bytes_in_a_column_are_answered_as_in_an_array(
    classify: ModelFunction, expected: Any, column: Any
) -> None:
    answers = classify.column(column[2:-2])
    assert answers.field("label").to_pylist() == [
        classify.class_labels[label] for label in expected.labels
    ]
    assert_bits(answers, expected.probabilities)


@pytest.mark.parametrize("column", FLOAT_COLUMNS.values(), ids=FLOAT_COLUMNS)
def test_floats_in_a_column_are_answered_as_in_an_array(
    classify: ModelFunction, column: Any
) -> None:
    assert_bits(classify.column(column[2:-2]), classify.predict(SHARES).probabilities)


def assert_bits(answers: Any, probabilities: npt.NDArray[np.float32]) -> None:
    found = answers.field("probabilities").flatten().to_numpy().reshape(probabilities.shape)
    assert found.tobytes() == probabilities.tobytes()
    highest = answers.field("probability").to_numpy()
    assert highest.tobytes() == probabilities.max(axis=1).tobytes()


@pytest.mark.parametrize(
    "images",
    [
        PIXELS,
        PIXELS.reshape(-1, 2, 3),
        PIXELS.astype(np.int64),
        PIXELS.astype(">i2"),
        np.asfortranarray(PIXELS),
        PIXELS.repeat(2, axis=1)[:, ::2],
    ],
    ids=["bytes", "of two axes", "int64", "big-endian", "Fortran order", "strided"],
)
def test_arrays_of_all_kinds_are_answered(
    classify: ModelFunction, expected: Any, images: npt.NDArray[Any]
) -> None:
    found = classify.predict(images)
    assert found.probabilities.tobytes() == expected.probabilities.tobytes()
    assert found.labels.tolist() == expected.labels.tolist()


def test_an_image_is_answered_alike_in_any_company(classify: ModelFunction, expected: Any) -> None:
    for start in range(len(PIXELS)):
        found = classify.predict(PIXELS[start : start + 3])
        assert found.probabilities.tobytes() == expected.probabilities[start : start + 3].tobytes()


def test_numbers_side_by_side_are_not_copied() -> None:
    for column in (fixed(PIXELS), lists(PIXELS), tensors(PIXELS)):
        values = column.storage if isinstance(column, pa.ExtensionArray) else column
        found = image_values(column[3:], 6)
        assert found.ctypes.data == values.flatten().buffers()[1].address + 3 * 6
    column = strings(PIXELS, pa.binary())
    found = image_values(column[3:], 6)
    assert found.ctypes.data == column.buffers()[2].address + 3 * 6


def test_a_tensor_with_its_axes_in_another_order_is_read_as_it_is_meant() -> None:
    kind = pa.fixed_shape_tensor(pa.uint8(), [3, 2], permutation=[1, 0])
    column = pa.ExtensionArray.from_storage(kind, fixed(AROUND))
    np.testing.assert_array_equal(
        image_values(column[2:-2], 6),
        PIXELS.reshape(-1, 3, 2).transpose(0, 2, 1).reshape(-1, 6),
    )


def test_a_batch_keeps_its_other_columns_and_rows(classify: ModelFunction, expected: Any) -> None:
    table = pa.table({"id": range(11), "image": lists(PIXELS), "note": ["x"] * 11})
    whole = classify(table)
    assert whole.column_names == ["id", "note", "label", "probability", "probabilities"]
    batches = list(map(classify, table.to_batches(max_chunksize=4)))
    assert [batch.num_rows for batch in batches] == [4, 4, 3]
    assert all(isinstance(batch, pa.RecordBatch) for batch in batches)
    assert pa.Table.from_batches(batches, classify.schema(table.schema)) == whole
    assert whole["id"].to_pylist() == list(range(11))
    np.testing.assert_array_equal(
        np.array(whole["probabilities"].to_pylist(), np.float32), expected.probabilities
    )


def test_a_batch_of_images_alone_and_one_without_rows_are_answered(
    classify: ModelFunction,
) -> None:
    for column in (*BYTES.values(), *FLOAT_COLUMNS.values()):
        alone = pa.table({"image": column})
        answered = classify(alone)
        assert answered.num_rows == len(AROUND)
        chunkless = pa.table({"image": pa.chunked_array([], column.type)})
        for nothing in (classify(alone[:0]), classify(chunkless)):
            assert nothing.schema == answered.schema
            assert nothing.num_rows == 0
        assert len(classify.column(column[:0])) == 0
    assert classify.predict(PIXELS[:0]).probabilities.shape == (0, 3)


def test_another_column_may_hold_the_images(three: Path) -> None:
    classify = ModelFunction(three, images="digit")
    assert classify(pa.table({"digit": lists(PIXELS)})).num_rows == 11


def test_a_chunked_column_is_answered_in_chunks(classify: ModelFunction) -> None:
    column = pa.chunked_array([lists(PIXELS), lists(PIXELS)[:2]])
    answers = classify.column(column)
    assert [len(chunk) for chunk in answers.chunks] == [11, 2]
    assert answers[11] == answers[0]


def test_a_series_of_polars_is_a_column(classify: ModelFunction) -> None:
    polars = pytest.importorskip("polars")
    series = polars.Series(PIXELS.tolist(), dtype=polars.Array(polars.UInt8, 6))
    found = polars.Series(classify.column(series)).struct.unnest()
    assert found.columns == ["label", "probability", "probabilities"]
    assert found["label"].to_list() == classify.column(lists(PIXELS)).field("label").to_pylist()


def test_what_was_pickled_answers_with_the_same_version_in_a_process_without_the_folder(
    three: Path, classify: ModelFunction
) -> None:
    pickled = pickle.dumps(classify)
    three.parent.rename(three.parent.with_name("elsewhere"))
    program = (
        "import pickle, sys, numpy\n"
        "classify = pickle.load(sys.stdin.buffer)\n"
        "images = numpy.arange(12, dtype=numpy.uint8).reshape(2, 6)\n"
        "print(classify.version, classify.digest, classify.predict(images).probabilities.tobytes())"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        input=pickled,
        capture_output=True,
        cwd=three.parent.parent,
        timeout=60,
        check=True,
    )
    images = np.arange(12, dtype=np.uint8).reshape(2, 6)
    found = classify.predict(images).probabilities.tobytes()
    assert done.stdout.decode().strip() == f"3 {classify.digest} {found!r}"


def test_the_network_is_prepared_once_in_a_process(
    classify: ModelFunction, monkeypatch: pytest.MonkeyPatch
) -> None:
    module._prepared.cache_clear()  # noqa: SLF001 - as in a new process
    checked: list[Model] = []
    monkeypatch.setattr(module, "check_golden", checked.append)
    for _ in range(3):
        task = pickle.loads(pickle.dumps(classify))  # noqa: S301 - our own
        task.predict(PIXELS)
    assert len(checked) == 1


def test_many_threads_get_the_answers_of_one(classify: ModelFunction, expected: Any) -> None:
    images = np.tile(PIXELS, (300, 1))
    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(classify.predict, [images] * 16):
            assert (found.probabilities.reshape(300, 11, 3) == expected.probabilities).all()


def test_the_reference_says_which_version(three: Path, model: Model) -> None:
    set_label(three.parent, "tiny", "stable", 2)
    assert ModelFunction(f"{three}:1").version == 1
    assert ModelFunction(f"{three}:stable").version == 2
    function = ModelFunction(three)
    assert function.version == 3
    assert (function.model_name, function.input_shape) == ("tiny", (2, 3))
    assert function.class_labels == model.metadata.class_labels
    assert repr(function) == f"<ModelFunction tiny:3, SHA-256 {function.digest}>"
    with pytest.raises(NoVersionError, match="tiny: has no version 9; it has 3, 2, 1"):
        ModelFunction(f"{three}:9")


def test_a_worker_that_finds_another_version_says_so(three: Path, model: Model) -> None:
    driver = ModelFunction(three)
    assert ModelFunction(three, digest=driver.digest.upper()).digest == driver.digest
    publish(three.parent, model)
    with pytest.raises(WeightsFileError) as caught:
        ModelFunction(three, digest=driver.digest)
    assert str(caught.value).startswith(f"{three}/4/weights.npz: expected the SHA-256 ")
    assert "this is not the version that the job was begun with" in str(caught.value)
    assert ModelFunction(f"{three}:3", digest=driver.digest).version == 3


def test_images_in_a_range_of_values_are_scaled_as_the_model_learned_them(
    models: Path, model: Model
) -> None:
    spec = InputSpec((2, 3), value_range=ValueRange(-16, 240))
    ranged = Model(model.network, replace(model.metadata, input=spec))
    publish(models, ranged)
    classify = ModelFunction(models / "tiny")
    values = PIXELS.astype(np.int16) - 16
    expected = classify.predict(values.astype(np.float32)).probabilities
    for column in (lists(values), lists(values.astype(np.float64)), fixed(values)):
        assert_bits(classify.column(column), expected)
    values[10, 3] = 241
    with pytest.raises(ImagesError, match="row 10 of the batch.*from -16 to 240, got"):
        classify.column(lists(values))


def with_gap(values: npt.NDArray[Any]) -> list[Any]:
    rows: list[Any] = values.tolist()
    rows[7] = None
    return rows


def with_inner_gap() -> list[Any]:
    rows: list[Any] = PIXELS.tolist()
    rows[9][5] = None
    return rows


REFUSED = {
    "a missing image": (
        pa.array(with_gap(PIXELS), pa.list_(pa.uint8())),
        "images: row 7 of the batch, from 0: expected a value, got null",
    ),
    "a missing image of bytes": (
        pa.array([None, b"123456"], pa.binary()),
        "images: row 0 of the batch, from 0: expected a value, got null",
    ),
    "a missing tensor": (
        pa.ExtensionArray.from_storage(
            pa.fixed_shape_tensor(pa.uint8(), [2, 3]),
            pa.array([[1] * 6, None], pa.list_(pa.uint8(), 6)),
        ),
        "images: row 1 of the batch, from 0: expected a value, got null",
    ),
    "a missing value": (
        pa.array(with_inner_gap(), pa.list_(pa.uint8())),
        "images: row 9 of the batch, from 0: expected a value, got null",
    ),
    "a missing value in a fixed-size list": (
        pa.array(with_inner_gap(), pa.list_(pa.uint8(), 6)),
        "images: row 9 of the batch, from 0: expected a value, got null",
    ),
    "a missing list in a list": (
        pa.array([[[1] * 3] * 2, [[1] * 3, None]], pa.list_(pa.list_(pa.uint8()))),
        "images: row 1 of the batch, from 0: expected a value, got null",
    ),
    "nothing but nulls": (
        pa.nulls(2),
        "images: expected lists of numbers, or the bytes of uint8 or of little-endian float32 "
        "values, got null",
    ),
    "lists of another length": (
        lists(PIXELS[:, :5]),
        "images: row 0 of the batch, from 0: expected a list of 6 values, got one of 5",
    ),
    "fixed-size lists of another length": (
        fixed(PIXELS[:, :5]),
        "images: expected images of 6 values, got 5 an image",
    ),
    "one list of another length": (
        pa.array([[1] * 6, [1] * 7]),
        "images: row 1 of the batch, from 0: expected a list of 6 values, got one of 7",
    ),
    "lists whose lengths only seem right together": (
        pa.array([[1] * 5, [1] * 7]),
        "images: row 0 of the batch, from 0: expected a list of 6 values, got one of 5",
    ),
    "empty lists": (
        pa.array([[], []], pa.list_(pa.uint8())),
        "images: row 0 of the batch, from 0: expected a list of 6 values, got one of 0",
    ),
    "lists of empty lists": (
        pa.array([[], []], pa.list_(pa.list_(pa.uint8()))),
        "images: expected images of 6 values, got 0 an image",
    ),
    "lists of lists of two lengths": (
        pa.array([[[1] * 3] * 2, [[1] * 3, [1] * 2]]),
        "images: row 1 of the batch, from 0: expected a list of 3 values, got one of 2",
    ),
    "lists of lists that are too long": (
        pa.array([[[1] * 3] * 3]),
        "images: expected images of 6 values, got 9 an image",
    ),
    "tensors of another shape": (
        tensors(np.ones((2, 3, 3), np.uint8)),
        "images: expected images of 6 values, got 9 an image",
    ),
    "too few bytes": (
        pa.array([b"123456", b"12345"]),
        "images: row 1 of the batch, from 0: expected 6 bytes of uint8 values, or 24 of float32 "
        "in all rows, got 5",
    ),
    "bytes of two kinds": (
        pa.array([bytes(24), bytes(6)]),
        "images: row 1 of the batch, from 0: expected 6 bytes of uint8 values, or 24 of float32 "
        "in all rows, got 6",
    ),
    "a picture": (
        pa.array([b"\x89PNG\r\n\x1a\n..."]),
        "images: row 0 of the batch, from 0: expected 6 bytes of uint8 values, or 24 of float32 "
        "in all rows, got those of a PNG or JPEG, which has to be decoded",
    ),
    "texts": (
        pa.array(["123456"]),
        "images: expected lists of numbers, or the bytes of uint8 or of little-endian float32 "
        "values, got string",
    ),
    "lists of texts": (
        pa.array([["1"] * 6]),
        "images: expected lists of numbers, or the bytes of uint8 or of little-endian float32 "
        "values, got list<item: string>",
    ),
    "a number an image": (
        pa.array([1, 2]),
        "images: expected lists of numbers, or the bytes of uint8 or of little-endian float32 "
        "values, got int64",
    ),
    "shares above 1": (
        lists(np.vstack([SHARES, SHARES[:1] + 300])),
        "images: row 11 of the batch, from 0: expected float32 values from 0 to 1, got ",
    ),
    "not a number": (
        lists(np.where(np.arange(6) == 3, np.nan, SHARES.astype(np.float64))),
        "images: row 0 of the batch, from 0: expected float64 values from 0 to 1, got NaN",
    ),
    "integers beyond bytes": (
        lists(np.where(np.arange(66).reshape(11, 6) == 25, 256, PIXELS.astype(np.int32))),
        "images: row 4 of the batch, from 0: expected int32 values from 0 to 255, got ",
    ),
    "bytes with a sign": (
        lists(PIXELS.astype(np.int8)),
        "images: row 0 of the batch, from 0: expected int8 values from 0 to 127, got -",
    ),
    "a list of Python": (PIXELS.tolist(), "images: expected a column of Arrow, got list"),
}


@pytest.mark.parametrize(("column", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_column_of_images_is_refused_in_a_sentence(
    classify: ModelFunction, column: Any, sentence: str
) -> None:
    with pytest.raises(ImagesError) as caught:
        classify.column(column)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        (
            {"picture": lists(PIXELS), "id": range(11)},
            "expected one column 'image' with the images, got the columns picture, id; "
            "ModelFunction(..., images=NAME) names another",
        ),
        (
            {"image": lists(PIXELS), "label": range(11)},
            "column 'label': is there already, but is to be that of the answer; rename it, to "
            "'true_label' for example",
        ),
        (
            {"image": pa.array(with_gap(PIXELS)), "id": range(11)},
            "column 'image': row 7 of the batch, from 0: expected a value, got null",
        ),
    ],
)
def test_a_batch_that_cannot_be_answered_is_refused_in_a_sentence(
    classify: ModelFunction, columns: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ImagesError) as caught:
        classify(pa.table(columns))
    assert str(caught.value) == sentence


@pytest.mark.parametrize("batch", [{"image": PIXELS}, PIXELS], ids=["dict", "ndarray"])
def test_what_is_no_batch_of_arrow_is_refused_in_a_sentence(
    classify: ModelFunction, batch: Any
) -> None:
    with pytest.raises(ImagesError) as caught:
        classify(batch)
    assert str(caught.value) == (
        f"expected a record batch or a table of pyarrow, got {type(batch).__name__}; Ray Data "
        "gives tables with batch_format='pyarrow'"
    )


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (PIXELS[:, :5], "expected (count, ...) images of 2 x 3 values, got (11, 5)"),
        (PIXELS[0], "expected (count, ...) images of 2 x 3 values, got (6,)"),
        ([[1] * 5], "expected (count, ...) images of 2 x 3 values, got (1, 5)"),
        (np.array(5), "expected (count, ...) images of 2 x 3 values, got ()"),
        (
            PIXELS.astype(object),
            "expected integers, floating-point numbers or bools, got object; numpy.stack makes one "
            "array of many",
        ),
        (
            PIXELS.astype(complex),
            "expected integers, floating-point numbers or bools, got complex128",
        ),
        (
            SHARES * 200,
            "row 0 of the batch, from 0: expected float32 values from 0 to 1, got ",
        ),
    ],
)
def test_an_array_that_is_none_of_images_is_refused_in_a_sentence(
    classify: ModelFunction, images: npt.NDArray[Any], sentence: str
) -> None:
    with pytest.raises(ImagesError) as caught:
        classify.predict(images)
    assert str(caught.value).startswith(sentence)


def test_errors_come_back_from_other_processes(classify: ModelFunction) -> None:
    with pytest.raises(ModelError) as caught:
        classify.column(pa.array([None, b"123456"]))
    returned = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
    assert type(returned) is ImagesError
    assert str(returned) == str(caught.value)


def test_a_process_without_the_package_names_it(classify: ModelFunction) -> None:
    program = "import pickle, sys; pickle.load(sys.stdin.buffer)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        input=pickle.dumps(classify),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stderr.decode().endswith("ModuleNotFoundError: No module named 'mlpserve'\n")


def test_arrow_is_needed_only_for_its_columns(classify: ModelFunction, tmp_path: Path) -> None:
    program = (
        "import pickle, sys, numpy\n"
        "sys.modules['pyarrow'] = None\n"
        "classify = pickle.load(sys.stdin.buffer)\n"
        "images = numpy.zeros((2, 6), numpy.uint8)\n"
        "print(len(classify.predict(images).labels))\n"
        "try:\n"
        "    classify.column(images)\n"
        "except ModuleNotFoundError as error:\n"
        "    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        input=pickle.dumps(classify),
        capture_output=True,
        cwd=tmp_path,
        env=os.environ,
        timeout=60,
        check=True,
    )
    assert done.stdout.decode().splitlines() == [
        "2",
        "columns of Arrow need pyarrow: pip install 'mlpserve[tables]'",
    ]
