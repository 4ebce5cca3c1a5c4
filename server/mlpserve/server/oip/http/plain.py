"""Messages of the protocol as JSON: numbers stay numbers, names are those of the fields."""

from typing import Any

from google.protobuf.message import Message


def plain(message: Message) -> dict[str, Any]:
    """Return all fields of a message; of those with presence, those that are set."""
    return {
        field.name: _plain_field(field, getattr(message, field.name))
        for field in message.DESCRIPTOR.fields
        if not field.has_presence or message.HasField(field.name)
    }


def _plain_field(field: Any, value: Any) -> Any:  # noqa: ANN401 - a descriptor, and any value
    if not field.is_repeated:
        return _plain_value(field, value)
    return [_plain_value(field, each) for each in value]


def _plain_value(field: Any, value: Any) -> Any:  # noqa: ANN401
    if field.message_type is not None:
        return plain(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value
