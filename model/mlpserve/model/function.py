"""Model function: one version of a model, called by the pipelines of others with their batches.

Whatever runs the pipeline (Spark, Ray Data, polars, DuckDB, pyarrow, a loop) also pickles the
function and calls it in the processes that it likes; docs/batch.md shows how.
"""

import hashlib
import math
import threading
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.model.arrow_columns import (
    answer_column,
    answer_type,
    arrow_column,
    image_values,
    pyarrow,
)
from mlpserve.model.compiled import Classified, CompiledModel, Images, Workspace
from mlpserve.model.errors import ImagesError, ModelsFolderError, WeightsFileError
from mlpserve.model.folder import weights_path
from mlpserve.model.inputs import InputSpec
from mlpserve.model.references import find_version, parse_reference
from mlpserve.model.versions import load_checked
from mlpserve.model.weights import check_golden, read_model

_MAX_PREPARED: Final = 8


class ModelFunction:
    """A version of a model as a function of batches of images.

    It carries the weights, so whoever unpickles it elsewhere answers with the same version, needs
    no models folder, and sees nothing of what happens to that meanwhile. The network is prepared
    once in each process, when the first batch comes. An image's answer is, to the bit, what
    ``mlpserve-predict --models`` gives for it on such a machine, whoever shares its batch.

    Safe to use from many threads.

    Args:
        model: ``MODELS/NAME:VERSION`` or ``MODELS/NAME:LABEL``, or ``MODELS/NAME`` for the newest.
        digest: The SHA-256 that the version's weights file must have, where this is called on
            several machines that each have the folder. The attribute ``digest`` says it.
        images: The column with the images, where the function is called with whole batches.

    Attributes:
        model_name: The model.
        version: The version of it.
        digest: The SHA-256 of its weights file, in hexadecimal digits.
        input_shape: The shape of one image.
        class_labels: What each class is called.

    Raises:
        NoVersionError: There is no such model, version or label.
        ModelsFolderError: The folder cannot be read.
        LabelsFileError: A label was named, and the labels cannot be read.
        WeightsFileError: The version's file cannot be used, or has another digest.
    """

    def __init__(
        self, model: str | Path, *, digest: str | None = None, images: str = "image"
    ) -> None:
        reference = parse_reference(str(model))
        version = find_version(reference)
        metadata = load_checked(reference.models, reference.name, version).metadata
        path = weights_path(reference.models, reference.name, version)
        self._weights: Final[bytes] = _content(path)
        self._images: Final[str] = images
        self.digest: Final[str] = hashlib.sha256(self._weights).hexdigest()
        self.model_name: Final[str] = reference.name
        self.version: Final[int] = version
        self.input_shape: Final[tuple[int, ...]] = metadata.input.shape
        self.class_labels: Final[tuple[str, ...]] = metadata.class_labels
        if digest is not None and self.digest != digest.lower():
            raise WeightsFileError(
                f"{path}: expected the SHA-256 {digest}, got {self.digest}: this is not the "
                "version that the job was begun with; name its number, and copy it to all machines"
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.model_name}:{self.version}, SHA-256 {self.digest}>"

    def predict(self, images: npt.NDArray[Any]) -> Classified:
        """Classify images.

        Args:
            images: (N, ...) integers, floating-point numbers or bools, in the model's range of
                values; without one, integers are from 0 to 255, and others from 0 to 1. C-ordered
                uint8 and float32 are not copied.

        Raises:
            ImagesError: They are not what the model takes.
            WeightsFileError: The network answers something else on this machine.
        """
        prepared = _prepared(self._weights)
        values = _network_values(np.asarray(images), prepared.compiled.metadata.input)
        return prepared.compiled.classify([values], prepared.workspace)

    def column(self, images: Any) -> Any:  # noqa: ANN401 - pyarrow has no types
        """Classify the images of a column of Arrow.

        Args:
            images: An array or a chunked array of pyarrow, or what becomes one, as a Series of
                polars does: lists of numbers, nested or not, tensors, or bytes of uint8 or
                little-endian float32 values.

        Returns:
            As many structs of ``label``, its ``probability`` and the ``probabilities`` of all
            classes in their order: an array, or a chunked one where that was given.

        Raises:
            ImagesError: They are not what the model takes; a missing value is not, either.
            ModuleNotFoundError: pyarrow is not installed.
        """
        return self._answers(images, "images")

    def __call__(self, batch: Any) -> Any:  # noqa: ANN401 - pyarrow has no types
        """Classify the images of a record batch or a table of pyarrow.

        Returns:
            The same rows, with the columns ``label``, ``probability`` and ``probabilities`` at the
            end in place of the images; see ``column``.

        Raises:
            ImagesError: The images are not what the model takes, there is no such column, or one
                of those at the end is there already.
            ModuleNotFoundError: pyarrow is not installed.
        """
        arrow = pyarrow()
        if not isinstance(batch, arrow.RecordBatch | arrow.Table):
            raise ImagesError(
                f"expected a record batch or a table of pyarrow, got {type(batch).__name__}; Ray "
                "Data gives tables with batch_format='pyarrow'"
            )
        schema = self.schema(batch.schema)
        answers = self._answers(batch.column(self._images), f"column {self._images!r}")
        columns = zip(batch.schema.names, batch.columns, strict=True)
        kept = [column for name, column in columns if name != self._images]
        return type(batch).from_arrays([*kept, *answers.flatten()], schema=schema)

    def schema(self, batches: Any) -> Any:  # noqa: ANN401 - pyarrow has no types
        """Return the schema of what a call returns for batches of a schema of pyarrow.

        Raises:
            ImagesError: There is no such column, or one of those that are added is there already.
        """
        names = batches.names
        if names.count(self._images) != 1:
            raise ImagesError(
                f"expected one column {self._images!r} with the images, got the columns "
                f"{', '.join(names)}; ModelFunction(..., images=NAME) names another"
            )
        kept = [field for field in batches if field.name != self._images]
        added = list(answer_type())
        taken = {field.name for field in kept} & {field.name for field in added}
        if taken:
            raise ImagesError(
                f"column {min(taken)!r}: is there already, but is to be that of the answer; rename "
                f"it, to 'true_{min(taken)}' for example"
            )
        return pyarrow().schema([*kept, *added], metadata=batches.metadata)

    def _answers(self, images: Any, where: str) -> Any:  # noqa: ANN401 - pyarrow has no types
        try:
            column = arrow_column(images)
            if isinstance(column, pyarrow().ChunkedArray):
                answers: Iterable[Any] = map(self._answer, column.chunks)
                return pyarrow().chunked_array(answers, answer_type())
            return self._answer(column)
        except ImagesError as error:
            raise ImagesError(f"{where}: {error}") from error

    def _answer(self, column: Any) -> Any:  # noqa: ANN401 - pyarrow has no types
        found = self.predict(image_values(column, math.prod(self.input_shape)))
        return answer_column(found, self.class_labels)


class _Prepared(threading.local):
    """A network that is ready, with a workspace for each thread."""

    def __init__(self, compiled: CompiledModel) -> None:
        self.compiled = compiled
        self.workspace = Workspace()


@lru_cache(maxsize=_MAX_PREPARED)
def _prepared(weights: bytes) -> _Prepared:
    """Return the network of a weights file, prepared once in a process."""
    with TemporaryFile() as file:  # which is mapped into memory, as the arrays are
        file.write(weights)
        file.flush()
        model = read_model(file)
    check_golden(model)
    return _Prepared(CompiledModel(model, reproducible=True))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelsFolderError(f"{path}: cannot be read: {error.strerror}") from error


def _network_values(images: npt.NDArray[Any], spec: InputSpec) -> Images:
    """Return (N, ...) numbers as (N, D) uint8 or float32 of the same values."""
    if not images.ndim or math.prod(images.shape[1:]) != spec.values_per_image:
        described = " x ".join(map(str, spec.shape))
        raise ImagesError(f"expected (count, ...) images of {described} values, got {images.shape}")
    if images.dtype.kind not in "biuf":
        advice = "; numpy.stack makes one array of many" if images.dtype.kind == "O" else ""
        raise ImagesError(
            f"expected integers, floating-point numbers or bools, got {images.dtype}{advice}"
        )
    name = images.dtype.name
    flat = images.reshape(len(images), spec.values_per_image)
    if flat.dtype.kind not in "iu":
        # What float32 cannot hold becomes infinite, and infinity is refused.
        with np.errstate(over="ignore"):
            flat = flat.astype(np.float32, copy=False)
    if flat.size and spec.problem(flat, name) is not None:
        low, high = spec.limits(flat.dtype)
        is_good = (flat.min(axis=1) >= low) & (flat.max(axis=1) <= high)
        row = int(is_good.argmin())
        raise ImagesError(f"row {row} of the batch, from 0: {spec.problem(flat[[row]], name)}")
    if spec.value_range is None and flat.dtype.kind in "iu":
        return flat.astype(np.uint8, copy=False)
    return flat if flat.dtype == np.uint8 else flat.astype(np.float32, copy=False)
