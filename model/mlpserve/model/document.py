"""A JSON object whose fields are checked as they are taken.

Each refusal names the field by its path, as in ``metadata.training.seed``. Knows no field itself.
"""

import json
import math
import sys
from datetime import UTC, datetime
from typing import Any, TypeVar

from mlpserve.model.errors import WeightsFileError

_Value = TypeVar("_Value")


def parse_document(text: str, name: str) -> "Document":
    """Read a JSON object.

    Args:
        text: The JSON.
        name: What messages call it.

    Raises:
        WeightsFileError: It is not JSON, or not an object.
    """
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WeightsFileError(f"{name}: expected JSON, but {error}") from error
    return Document(parsed, name)


class Document:
    """A JSON object; see ``parse_document``.

    Each method takes one field, and raises WeightsFileError where it is missing or something else.

    Raises:
        WeightsFileError: The value is not an object.
    """

    def __init__(self, value: object, name: str) -> None:
        if not isinstance(value, dict):
            raise WeightsFileError(f"{name}: expected an object, got {_kind(value)}")
        self._value: dict[str, Any] = value
        self._name = name

    def get(self, key: str, kind: type[_Value]) -> _Value:
        """Return a value of one kind; neither null nor a bool is of any."""
        if key not in self._value:
            raise WeightsFileError(f"{self._name}: the field {key!r} is missing")
        return _checked(self._value[key], kind, f"{self._name}.{key}")

    def has(self, key: str) -> bool:
        """Return whether the field is there; null is taken for its absence."""
        return self._value.get(key) is not None

    def get_share(self, key: str) -> float:
        """Return a number from 0 to 1."""
        share = self.get_number(key)
        # Written so that a NaN, which compares false, is refused as well.
        if not 0 <= share <= 1:
            raise WeightsFileError(f"{self._name}.{key}: expected 0 to 1, got {share}")
        return float(share)

    def get_positive(self, key: str) -> float:
        """Return a finite number above 0."""
        value = self.get_number(key)
        if not 0 < value <= sys.float_info.max:  # an int may be larger than any float
            raise WeightsFileError(
                f"{self._name}.{key}: expected a finite number above 0, got {str(value)[:40]}"
            )
        return float(value)

    def get_number(self, key: str) -> int | float:
        """Return a number, which JSON as Python reads it may have as NaN or infinite."""
        # A program other than ours may write 1.0 as 1. A bool is left to ``get``, which refuses it.
        return self.get(key, int if type(self._value.get(key)) is int else float)

    def get_integer(self, key: str, lowest: int, highest: int) -> int:
        """Return an integer from ``lowest`` to ``highest``."""
        value = self.get(key, int)
        if not lowest <= value <= highest:
            raise WeightsFileError(
                f"{self._name}.{key}: expected from {lowest} to {highest}, got {str(value)[:40]}"
            )
        return value

    def get_tuple(self, key: str, kind: type[_Value]) -> tuple[_Value, ...]:
        """Return a list of values of one kind."""
        values = self.get(key, list)
        return tuple(_checked(value, kind, f"{self._name}.{key}") for value in values)

    def get_mapping(self, key: str, kind: type[_Value]) -> dict[str, _Value]:
        """Return an object of values of one kind."""
        values = self.get(key, dict)
        return {name: _checked(values[name], kind, f"{self._name}.{key}.{name}") for name in values}

    def get_document(self, key: str) -> "Document":
        """Return an object, to take its fields in turn."""
        return Document(self.get(key, dict), f"{self._name}.{key}")

    def get_settings(self, key: str) -> dict[str, str | int | float]:
        """Return an object of strings and finite numbers."""
        settings: dict[str, str | int | float] = {}
        for name, value in self.get(key, dict).items():
            is_finite = not isinstance(value, float) or math.isfinite(value)
            if not isinstance(value, str | int | float) or not is_finite:
                raise WeightsFileError(
                    f"{self._name}.{key}.{name}: expected a string or a finite number, "
                    f"got {_kind(value)}"
                )
            settings[name] = value
        return settings

    def get_moment(self, key: str) -> datetime:
        """Return a time, in UTC; it is written in ISO 8601 with its zone."""
        text = self.get(key, str)
        try:
            moment = datetime.fromisoformat(text)
            in_utc = moment.astimezone(UTC)
        except (ValueError, OverflowError) as error:  # in UTC, the year may be 0 or 10000
            raise WeightsFileError(
                f"{self._name}.{key}: expected a time in ISO 8601, got {text[:40]!r}"
            ) from error
        if moment.tzinfo is None:
            raise WeightsFileError(f"{self._name}.{key}: expected a time zone, got {text[:40]!r}")
        return in_utc


def _checked(value: object, kind: type[_Value], name: str) -> _Value:
    # Python's bool is an int, JSON's is not.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise WeightsFileError(f"{name}: expected {kind.__name__}, got {_kind(value)}")
    if isinstance(value, str):
        _check_text(value, name)
    return value


def _check_text(text: str, name: str) -> None:
    # JSON can hold halves of characters; protobuf, and a terminal, cannot.
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise WeightsFileError(f"{name}: expected valid Unicode text, got {text[:40]!r}") from error


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__
