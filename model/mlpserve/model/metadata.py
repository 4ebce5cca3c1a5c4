"""Metadata of a version, and its JSON form inside the weights file.

Knows the JSON, not the file around it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Final

from mlpserve.model.document import Document, parse_document
from mlpserve.model.errors import ValueRangeError, WeightsFileError
from mlpserve.model.folder import is_model_name
from mlpserve.model.inputs import UINT8_DIVISOR, InputSpec, ValueRange

FORMAT_VERSION: Final = 1
# Of models with a range of values: releases that know no ranges must refuse them, because they
# would scale their images otherwise, and answer wrongly.
RANGE_FORMAT_VERSION: Final = 2


@dataclass(frozen=True)
class Calibration:
    """Calibration: the probabilities were brought in line with how often they are right.

    The last layer's weighted sums were divided by a temperature that was fitted on the validation
    images. The weights that are published contain it; nobody who uses them has to apply it.

    Attributes:
        temperature: The temperature, above 0; above 1 where the network had been too sure.
        expected_calibration_error_before: How far confidence and accuracy were apart on the test
            images, 0 to 1, before the division.
        expected_calibration_error_after: The same of the network as it is published.
    """

    temperature: float
    expected_calibration_error_before: float
    expected_calibration_error_after: float


@dataclass(frozen=True)
class Training:
    """The training of a version, and how good it became.

    Attributes:
        recipe: The recipe's name.
        hyperparameters: The recipe's settings as they were used.
        seed: The seed of all randomness in the training.
        data_name: What the data is called.
        data_digest: The digest of the images and labels, both splits.
        train_accuracy: The share of the training images classified rightly, 0 to 1.
        test_accuracy: The same of the test images.
        created_at: When the training ended; UTC.
        library_versions: The versions of Python, NumPy and mlpserve that trained it.
        validation_accuracy: The share of the validation images classified rightly, 0 to 1; None
            where no images were set aside.
        calibration: How the probabilities were calibrated; None where they were not.
        warnings: What looked like a mistake in the data or the result, a sentence each.
        test_origin: Where the test images are from, if the data came without any, as in "10 % of
            each class, held out (seed 0)"; "" for the data's own.
    """

    recipe: str
    hyperparameters: Mapping[str, str | int | float]
    seed: int
    data_name: str
    data_digest: str
    train_accuracy: float
    test_accuracy: float
    created_at: datetime
    library_versions: Mapping[str, str] = field(default_factory=dict)
    validation_accuracy: float | None = None
    calibration: Calibration | None = None
    warnings: tuple[str, ...] = ()
    test_origin: str = ""


@dataclass(frozen=True)
class Metadata:
    """Metadata of a version: its name, shape, classes and training.

    Attributes:
        name: The model's name; see ``is_model_name``.
        version: The version's number, at least 1; 0 until it is published.
        layer_sizes: The width of each layer, the input first.
        activations: The activation of each layer but the input.
        input: What the network takes.
        class_labels: What each class is called, in the order of the network's outputs.
        training: How the version was made.

    Raises:
        WeightsFileError: Two fields contradict each other.
    """

    name: str
    version: int
    layer_sizes: tuple[int, ...]
    activations: tuple[str, ...]
    input: InputSpec
    class_labels: tuple[str, ...]
    training: Training

    def __post_init__(self) -> None:
        if not is_model_name(self.name):
            raise WeightsFileError(
                f"name: expected 1 to 64 letters, digits, '.', '_' or '-', got {self.name[:80]!r}"
            )
        if self.version < 0:
            raise WeightsFileError(f"version: expected a positive integer, got {self.version}")
        if len(self.activations) != len(self.layer_sizes) - 1 or not self.activations:
            raise WeightsFileError(
                f"activations: expected one for each of the {len(self.layer_sizes) - 1} layers "
                f"of {self.layer_sizes}, got {len(self.activations)}"
            )
        if (
            min(self.input.shape, default=1) < 1
            or self.input.values_per_image != self.layer_sizes[0]
        ):
            raise WeightsFileError(
                f"input shape: expected positive sizes whose product is {self.layer_sizes[0]}, the "
                f"width of the input, got {self.input.shape}"
            )
        if len(self.class_labels) != self.layer_sizes[-1]:
            raise WeightsFileError(
                f"class_labels: expected one for each of the {self.layer_sizes[-1]} outputs, "
                f"got {len(self.class_labels)}"
            )

    def to_json(self) -> str:
        """Return the JSON form."""
        document = {"format_version": FORMAT_VERSION, **asdict(self)}
        if self.input.value_range is None:
            del document["input"]["value_range"]
        else:
            document["format_version"] = RANGE_FORMAT_VERSION
        document["training"]["created_at"] = self.training.created_at.astimezone(UTC).isoformat()
        return json.dumps(document, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> "Metadata":
        """Read the JSON form; fields that it has beyond ours are ignored.

        Raises:
            WeightsFileError: It is not JSON, is of another format version, or a field is missing,
                of the wrong type, or contradicts another.
        """
        document = parse_document(text, "metadata")
        format_version = document.get("format_version", int)
        if format_version not in (FORMAT_VERSION, RANGE_FORMAT_VERSION):
            raise WeightsFileError(
                f"format_version: expected {FORMAT_VERSION} or {RANGE_FORMAT_VERSION}, "
                f"got {format_version}; "
                "use a release of mlpserve that knows this format"
            )
        return _metadata(document)


def _metadata(document: Document) -> Metadata:
    spec = document.get_document("input")
    return Metadata(
        name=document.get("name", str),
        version=document.get("version", int),
        layer_sizes=document.get_tuple("layer_sizes", int),
        activations=document.get_tuple("activations", str),
        input=InputSpec(
            spec.get_tuple("shape", int),
            # A smaller one would scale uint8 values to above 1.
            spec.get_integer("uint8_divisor", UINT8_DIVISOR, 2**31 - 1),
            _value_range(spec.get_document("value_range")) if spec.has("value_range") else None,
        ),
        class_labels=document.get_tuple("class_labels", str),
        training=_training(document.get_document("training")),
    )


def _value_range(document: Document) -> ValueRange:
    try:
        return ValueRange(document.get_number("low"), document.get_number("high"))
    except (ValueRangeError, OverflowError) as error:  # an int may be larger than any float
        raise WeightsFileError(f"metadata.input.value_range: {error}") from error


def _training(document: Document) -> Training:
    return Training(
        recipe=document.get("recipe", str),
        hyperparameters=document.get_settings("hyperparameters"),
        seed=document.get_integer("seed", 0, 2**63 - 1),
        data_name=document.get("data_name", str),
        data_digest=document.get("data_digest", str),
        train_accuracy=document.get_share("train_accuracy"),
        test_accuracy=document.get_share("test_accuracy"),
        created_at=document.get_moment("created_at"),
        library_versions=document.get_mapping("library_versions", str),
        # Files of earlier releases lack these.
        validation_accuracy=(
            document.get_share("validation_accuracy")
            if document.has("validation_accuracy")
            else None
        ),
        calibration=(
            _calibration(document.get_document("calibration"))
            if document.has("calibration")
            else None
        ),
        warnings=document.get_tuple("warnings", str) if document.has("warnings") else (),
        test_origin=document.get("test_origin", str) if document.has("test_origin") else "",
    )


def _calibration(document: Document) -> Calibration:
    return Calibration(
        temperature=document.get_positive("temperature"),
        expected_calibration_error_before=document.get_share("expected_calibration_error_before"),
        expected_calibration_error_after=document.get_share("expected_calibration_error_after"),
    )
