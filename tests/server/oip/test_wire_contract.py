"""Our .proto says the same on the wire as the one that clients were made from."""

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor

from mlpserve.oip import inference_pb2

REASON = "tritonclient is part of the development environment only"
service_pb2 = pytest.importorskip("tritonclient.grpc.service_pb2", reason=REASON)
model_config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason=REASON)

OURS = inference_pb2.DESCRIPTOR
THEIRS = (service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR)


def their(kind: str, name: str) -> Any:
    (found,) = [table[name] for file in THEIRS if name in (table := getattr(file, kind))]
    return found


def all_messages(messages: Any) -> Iterator[Descriptor]:
    for message in messages:
        yield message
        yield from all_messages(message.nested_types)


def their_message(message: Descriptor) -> Any:
    first, *inner = message.full_name.removeprefix("inference.").split(".")
    found = their("message_types_by_name", first)
    for name in inner:
        found = found.nested_types_by_name[name]
    return found


@pytest.mark.parametrize(
    "message",
    list(all_messages(OURS.message_types_by_name.values())),
    ids=lambda message: message.full_name,
)
def test_fields_have_the_numbers_and_types_of_triton(message: Descriptor) -> None:
    fields = their_message(message).fields_by_name
    for field in message.fields:
        same = fields[field.name]
        assert (field.number, field.type) == (same.number, same.type), field.full_name
        assert (field.has_presence, field.is_repeated) == (same.has_presence, same.is_repeated)
        if field.message_type is not None:
            assert field.message_type.full_name == same.message_type.full_name


def test_values_of_enums_have_the_numbers_of_triton() -> None:
    for enum in OURS.enum_types_by_name.values():
        same = their("enum_types_by_name", enum.name).values_by_name
        for value in enum.values:
            assert value.number == same[value.name].number


def test_rpcs_have_the_names_and_messages_of_triton() -> None:
    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    for method in OURS.services_by_name["GRPCInferenceService"].methods:
        same = theirs[method.name]
        assert method.input_type.full_name == same.input_type.full_name
        assert method.output_type.full_name == same.output_type.full_name
