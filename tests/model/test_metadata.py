import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlpserve.model.errors import WeightsFileError
from mlpserve.model.folder import is_model_name
from mlpserve.model.inputs import InputSpec
from mlpserve.model.metadata import Calibration, Metadata

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
TOP_FIELDS = (
    "format_version",
    "name",
    "version",
    "layer_sizes",
    "activations",
    "input",
    "class_labels",
    "training",
)
TRAINING_FIELDS = (
    "recipe",
    "hyperparameters",
    "seed",
    "data_name",
    "data_digest",
    "train_accuracy",
    "test_accuracy",
    "created_at",
    "library_versions",
)
OPTIONAL_TRAINING_FIELDS = ("validation_accuracy", "calibration", "warnings", "test_origin")
CALIBRATION_FIELDS = (
    "temperature",
    "expected_calibration_error_before",
    "expected_calibration_error_after",
)
INPUT_SHAPE = "input shape: expected positive sizes whose product is 6, the width of the input"
FIELDS = (
    *((field,) for field in TOP_FIELDS),
    *(("training", field) for field in TRAINING_FIELDS),
    ("input", "shape"),
    ("input", "uint8_divisor"),
    *(("training", "calibration", field) for field in CALIBRATION_FIELDS),
)
OPTIONAL_FIELDS = tuple(("training", field) for field in OPTIONAL_TRAINING_FIELDS)


def changed(metadata: Metadata, path: tuple[str, ...], value: object) -> str:
    """Return the JSON form with another value in one field."""
    document = json.loads(metadata.to_json())
    *parents, field = path
    place = document
    for parent in parents:
        place = place[parent]
    place[field] = value
    return json.dumps(document)


def without_optional_fields(metadata: Metadata) -> Metadata:
    bare = replace(metadata.training, validation_accuracy=None, calibration=None)
    return replace(metadata, training=bare)


def refusal(text: str) -> str:
    with pytest.raises(WeightsFileError) as refused:
        Metadata.from_json(text)
    return str(refused.value)


def assert_read_or_refused(text: str) -> None:
    with contextlib.suppress(WeightsFileError):  # any other exception fails the test
        Metadata.from_json(text)


def test_json_form_reads_back_as_the_same(metadata: Metadata) -> None:
    assert Metadata.from_json(metadata.to_json()) == metadata


def test_json_form_has_the_documented_fields(metadata: Metadata) -> None:
    document = json.loads(metadata.to_json())
    assert set(document) == set(TOP_FIELDS)
    assert set(document["training"]) == {*TRAINING_FIELDS, *OPTIONAL_TRAINING_FIELDS}
    assert set(document["training"]["calibration"]) == set(CALIBRATION_FIELDS)
    assert document["format_version"] == 1
    assert document["input"] == {"shape": [2, 3], "uint8_divisor": 255}
    assert document["training"]["created_at"] == "2024-02-29T23:59:59.123456+00:00"


def test_creation_time_is_written_in_utc_whatever_its_zone(metadata: Metadata) -> None:
    berlin = datetime(2024, 7, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    elsewhere = replace(metadata, training=replace(metadata.training, created_at=berlin))
    document = json.loads(elsewhere.to_json())
    assert document["training"]["created_at"] == "2024-06-30T23:30:00+00:00"
    assert Metadata.from_json(elsewhere.to_json()).training.created_at.tzinfo == UTC


def test_fields_that_are_unknown_are_ignored(metadata: Metadata) -> None:
    document = json.loads(metadata.to_json())
    document["licence"] = {"of": "the data"}
    document["training"]["machine"] = "fast"
    document["input"]["mean"] = 0.13
    assert Metadata.from_json(json.dumps(document)) == metadata


def test_file_of_an_earlier_release_has_neither_validation_nor_calibration(
    metadata: Metadata,
) -> None:
    document = json.loads(metadata.to_json())
    for field in OPTIONAL_TRAINING_FIELDS:
        del document["training"][field]
    earlier = Metadata.from_json(json.dumps(document))
    assert earlier == without_optional_fields(metadata)
    assert (earlier.training.validation_accuracy, earlier.training.calibration) == (None, None)


def test_version_without_validation_and_calibration_reads_back_as_the_same(
    metadata: Metadata,
) -> None:
    bare = without_optional_fields(metadata)
    assert Metadata.from_json(bare.to_json()) == bare


def test_number_written_as_an_integer_is_read(metadata: Metadata) -> None:
    path = ("training", "calibration", "temperature")
    calibration = Metadata.from_json(changed(metadata, path, 2)).training.calibration
    assert calibration == Calibration(2.0, 0.0625, 0.03125)
    assert isinstance(calibration.temperature, float)


def test_share_written_as_an_integer_is_read(metadata: Metadata) -> None:
    accuracy = Metadata.from_json(changed(metadata, ("training", "test_accuracy"), 1))
    assert accuracy.training.test_accuracy == 1.0
    assert isinstance(accuracy.training.test_accuracy, float)


@pytest.mark.parametrize("format_version", [0, 3, 99])
def test_other_format_version_says_what_to_do(metadata: Metadata, format_version: int) -> None:
    assert refusal(changed(metadata, ("format_version",), format_version)) == (
        f"format_version: expected 1 or 2, got {format_version}; "
        "use a release of mlpserve that knows this format"
    )


@pytest.mark.parametrize("path", FIELDS, ids=".".join)
def test_missing_field_is_named(metadata: Metadata, path: tuple[str, ...]) -> None:
    document = json.loads(metadata.to_json())
    *parents, field = path
    place = document
    for parent in parents:
        place = place[parent]
    del place[field]
    assert refusal(json.dumps(document)).endswith(f": the field '{field}' is missing")


@pytest.mark.parametrize("path", FIELDS, ids=".".join)
@pytest.mark.parametrize("value", [None, True], ids=["null", "bool"])
def test_null_and_bool_fit_no_field(
    metadata: Metadata, path: tuple[str, ...], value: object
) -> None:
    message = refusal(changed(metadata, path, value))
    assert message.startswith(f"metadata.{'.'.join(path)}: expected ")
    assert message.endswith("got null" if value is None else "got bool")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("version",), -1, "version: expected a positive integer, got -1"),
        (("version",), "1", "metadata.version: expected int, got str"),
        (("version",), 1.0, "metadata.version: expected int, got float"),
        (("name",), "../x", "name: expected 1 to 64 letters, digits, '.', '_' or '-', got '../x'"),
        (("layer_sizes",), [6, True, 3], "metadata.layer_sizes: expected int, got bool"),
        (("layer_sizes",), [6, 4.0, 3], "metadata.layer_sizes: expected int, got float"),
        (
            ("layer_sizes",),
            [6, 3],
            "activations: expected one for each of the 1 layers of (6, 3), got 2",
        ),
        (
            ("activations",),
            ["softmax"],
            "activations: expected one for each of the 2 layers of (6, 4, 3), got 1",
        ),
        (
            ("class_labels",),
            ["cat", "dog"],
            "class_labels: expected one for each of the 3 outputs, got 2",
        ),
        (("input", "shape"), [5], f"{INPUT_SHAPE}, got (5,)"),
        (("input", "shape"), [-2, -3], f"{INPUT_SHAPE}, got (-2, -3)"),
        (
            ("input", "uint8_divisor"),
            254,
            "metadata.input.uint8_divisor: expected from 255 to 2147483647, got 254",
        ),
        (
            ("training", "seed"),
            2**63,
            "metadata.training.seed: expected from 0 to 9223372036854775807, "
            "got 9223372036854775808",
        ),
        (
            ("training", "hyperparameters"),
            {"epochs": [1]},
            "metadata.training.hyperparameters.epochs: expected a string or a finite number, "
            "got list",
        ),
        (
            ("training", "library_versions"),
            {"numpy": 2},
            "metadata.training.library_versions.numpy: expected str, got int",
        ),
        (
            ("training", "test_accuracy"),
            97.5,
            "metadata.training.test_accuracy: expected 0 to 1, got 97.5",
        ),
        (
            ("training", "train_accuracy"),
            float("nan"),
            "metadata.training.train_accuracy: expected 0 to 1, got nan",
        ),
        (
            ("training", "created_at"),
            "yesterday",
            "metadata.training.created_at: expected a time in ISO 8601, got 'yesterday'",
        ),
        (
            ("training", "created_at"),
            "2024-02-29T23:59:59",
            "metadata.training.created_at: expected a time zone, got '2024-02-29T23:59:59'",
        ),
        (
            ("training", "validation_accuracy"),
            -0.1,
            "metadata.training.validation_accuracy: expected 0 to 1, got -0.1",
        ),
        (
            ("training", "calibration"),
            1.5,
            "metadata.training.calibration: expected dict, got float",
        ),
        (
            ("training", "calibration", "temperature"),
            0,
            "metadata.training.calibration.temperature: expected a finite number above 0, got 0",
        ),
        (
            ("training", "calibration", "temperature"),
            float("inf"),
            "metadata.training.calibration.temperature: expected a finite number above 0, got inf",
        ),
        (
            ("training", "calibration", "temperature"),
            float("nan"),
            "metadata.training.calibration.temperature: expected a finite number above 0, got nan",
        ),
        (
            ("training", "calibration", "expected_calibration_error_after"),
            1.5,
            "metadata.training.calibration.expected_calibration_error_after: expected 0 to 1, "
            "got 1.5",
        ),
        (("training",), [], "metadata.training: expected dict, got list"),
    ],
)
def test_wrong_field_is_refused_by_name(
    metadata: Metadata, path: tuple[str, ...], value: object, message: str
) -> None:
    assert refusal(changed(metadata, path, value)) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "metadata: expected JSON, but "),
        ("{", "metadata: expected JSON, but "),
        ("[" * 100_000, "metadata: expected JSON, but "),
        ("9" * 5000, "metadata: expected JSON, but "),
        ("null", "metadata: expected an object, got null"),
        ("[]", "metadata: expected an object, got list"),
        ("{}", "metadata: the field 'format_version' is missing"),
    ],
    ids=["empty", "cut", "deep", "long number", "null", "list", "no field"],
)
def test_what_is_no_metadata_is_refused(text: str, message: str) -> None:
    assert refusal(text).startswith(message)


@given(text=st.text() | JSON_VALUES.map(json.dumps))
def test_arbitrary_text_is_refused(text: str) -> None:
    assert refusal(text)


@given(path=st.sampled_from(FIELDS + OPTIONAL_FIELDS), value=JSON_VALUES)
@example(path=("training", "test_accuracy"), value=10**400)
@example(path=("training", "created_at"), value="0001-01-01T00:00:00+23:59")
@example(path=("training", "created_at"), value="9999-12-31T23:59:59-23:59")
@example(path=("training", "created_at"), value="\ud800")
@example(path=("input", "shape"), value=[10**400, 0])
@example(path=("training", "calibration", "temperature"), value=10**400)
def test_any_value_in_any_field_is_read_or_refused(
    metadata: Metadata, path: tuple[str, ...], value: object
) -> None:
    assert_read_or_refused(changed(metadata, path, value))


@given(data=st.data())
def test_document_with_a_part_cut_out_or_doubled_is_read_or_refused(
    metadata: Metadata, data: st.DataObject
) -> None:
    text = metadata.to_json()
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    count = data.draw(st.sampled_from([0, 2]))
    assert_read_or_refused(text[:start] + text[start:end] * count + text[end:])


@pytest.mark.parametrize(
    "change",
    [
        lambda metadata: replace(metadata, name="a b"),
        lambda metadata: replace(metadata, version=-1),
        lambda metadata: replace(metadata, layer_sizes=(3,), activations=()),
        lambda metadata: replace(metadata, input=InputSpec((4,))),
        lambda metadata: replace(metadata, class_labels=()),
    ],
    ids=["name", "version", "no layers", "input", "class labels"],
)
def test_contradiction_is_refused_when_it_is_made(
    metadata: Metadata, change: Callable[[Metadata], Any]
) -> None:
    with pytest.raises(WeightsFileError):
        change(metadata)


@pytest.mark.parametrize("name", ["a", "7", "digits", "MNIST-fast_2.1", "a" * 64])
def test_model_may_be_called(name: str) -> None:
    assert is_model_name(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "-x", "_x", "a/b", "a\\b", "a b", "a\n", "ä", "a\0", "a" * 65],
)
def test_model_may_not_be_called(name: str) -> None:
    assert not is_model_name(name)
