"""The messages of inference.proto, in a pool of descriptors of their own.

Written by hand, unlike other modules of this name; its types are generated. protobuf's default pool
takes each name once in a process. Code that was generated for `inference` by somebody else, as
tritonclient, kserve and mlserver carry it, claims the same names there, so that whichever was imported
second would fail.
"""

from importlib.resources import files

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message_factory import GetMessageClass

POOL = DescriptorPool()
_SET = FileDescriptorSet.FromString(files(__package__).joinpath("inference.binpb").read_bytes())
(_FILE,) = _SET.file
POOL.AddSerializedFile(_FILE.SerializeToString())
DESCRIPTOR = POOL.FindFileByName(_FILE.name)

for _name, _message in DESCRIPTOR.message_types_by_name.items():
    globals()[_name] = GetMessageClass(_message)
for _name, _enum in DESCRIPTOR.enum_types_by_name.items():
    globals()[_name] = EnumTypeWrapper(_enum)
    for _value in _enum.values:
        globals()[_value.name] = _value.number
