"""The generated code is that of the .proto beside it, and the .proto says what everything means.

Holds for every version of the generator; `make proto-check` compares the very bytes.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from grpc_tools import protoc

from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc

PROTO_ROOT = Path(__file__).parents[1] / "proto"
PROTO = "mlpserve/v1/prediction.proto"

# The numbers of the fields of descriptor.proto, of which a place in a .proto is made.
MESSAGES = FileDescriptorProto.MESSAGE_TYPE_FIELD_NUMBER
ENUMS = FileDescriptorProto.ENUM_TYPE_FIELD_NUMBER
SERVICES = FileDescriptorProto.SERVICE_FIELD_NUMBER
FIELDS = DescriptorProto.FIELD_FIELD_NUMBER
VALUES = descriptor_pb2.EnumDescriptorProto.VALUE_FIELD_NUMBER
METHODS = descriptor_pb2.ServiceDescriptorProto.METHOD_FIELD_NUMBER

FLOATING = {FieldDescriptorProto.TYPE_FLOAT, FieldDescriptorProto.TYPE_DOUBLE}


def compiled(root: Path, folder: Path) -> FileDescriptorProto:
    """Return what the compiler reads in the .proto below ``root``, with its comments."""
    output = folder / "descriptors"
    command = ["protoc", f"-I{root}", f"-I{well_known_types()}", "--include_source_info"]
    assert protoc.main([*command, f"--descriptor_set_out={output}", PROTO]) == 0
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(output.read_bytes()).file
    return file


def well_known_types() -> Path:
    return Path(protoc.__file__).parent / "_proto"


def comparable(file: FileDescriptorProto) -> FileDescriptorProto:
    """Return a file without what only the compiler, or only the generated code, has."""
    plain = FileDescriptorProto()
    plain.CopyFrom(file)
    plain.ClearField("source_code_info")
    for message in plain.message_type:
        for field in message.field:
            field.ClearField("json_name")
    return plain


def generated() -> FileDescriptorProto:
    file = FileDescriptorProto()
    prediction_pb2.DESCRIPTOR.CopyToProto(file)
    return comparable(file)


def places(file: FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    """Yield the place and the full name of everything that needs a comment."""
    for number, message in enumerate(file.message_type):
        yield (MESSAGES, number), message.name
        for index, field in enumerate(message.field):
            yield (MESSAGES, number, FIELDS, index), f"{message.name}.{field.name}"
    for number, enum in enumerate(file.enum_type):
        yield (ENUMS, number), enum.name
        for index, value in enumerate(enum.value):
            yield (ENUMS, number, VALUES, index), f"{enum.name}.{value.name}"
    for number, service in enumerate(file.service):
        yield (SERVICES, number), service.name
        for index, method in enumerate(service.method):
            yield (SERVICES, number, METHODS, index), f"{service.name}.{method.name}"


def uncommented(file: FileDescriptorProto) -> list[str]:
    commented = {
        tuple(location.path)
        for location in file.source_code_info.location
        if location.leading_comments.strip()
    }
    return [name for place, name in places(file) if place not in commented]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> FileDescriptorProto:
    return compiled(PROTO_ROOT, tmp_path_factory.mktemp("descriptors"))


def test_the_generated_messages_are_those_of_the_proto(source: FileDescriptorProto) -> None:
    assert generated() == comparable(source)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("bytes probabilities = 3;", "bytes probabilities = 9;"),
        ("uint32 count = 1;", "int64 count = 1;"),
        ("string recipe = 1;", "string formula = 1;"),
        ("rpc ListModels(", "rpc ListAllModels("),
    ],
)
def test_a_proto_that_was_changed_alone_is_found_out(
    tmp_path: Path, before: str, after: str
) -> None:
    text = (PROTO_ROOT / PROTO).read_text()
    assert before in text
    (tmp_path / PROTO).parent.mkdir(parents=True)
    (tmp_path / PROTO).write_text(text.replace(before, after, 1))
    assert generated() != comparable(compiled(tmp_path, tmp_path))


def test_the_generated_stub_and_servicer_have_every_rpc(source: FileDescriptorProto) -> None:
    (service,) = source.service
    calls = {method.name for method in service.method}
    servicer = prediction_pb2_grpc.PredictionServiceServicer
    assert {name for name in vars(servicer) if not name.startswith("_")} == calls


def test_everything_in_the_proto_is_commented(source: FileDescriptorProto) -> None:
    assert len(list(places(source))) > 50
    assert uncommented(source) == []


def test_what_is_not_commented_is_found_out(tmp_path: Path) -> None:
    lines = (PROTO_ROOT / PROTO).read_text().splitlines()
    (tmp_path / PROTO).parent.mkdir(parents=True)
    (tmp_path / PROTO).write_text(
        "\n".join(line for line in lines if not line.strip().startswith("//"))
    )
    file = compiled(tmp_path, tmp_path)
    assert uncommented(file) == [name for _, name in places(file)]


def test_arrays_travel_as_bytes_and_never_as_repeated_floats(source: FileDescriptorProto) -> None:
    repeated = [
        f"{message.name}.{field.name}"
        for message in source.message_type
        for field in message.field
        if field.type in FLOATING and field.label == FieldDescriptorProto.LABEL_REPEATED
    ]
    assert repeated == []
    # Those above are all messages there are: none is hidden inside another.
    assert not any(message.nested_type for message in source.message_type)
