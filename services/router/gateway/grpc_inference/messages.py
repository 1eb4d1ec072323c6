"""The protocol's messages, made of `open_inference.binpb` in a pool of their own.

In the pool that all share they would be taken for another definition of the same names wherever a client of the
protocol lives in the same process. What type checkers see is `messages.pyi`; `compile` makes both.
"""

from __future__ import annotations

from importlib.resources import files

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClassesForFiles

PACKAGE = "inference"
DESCRIPTORS = "open_inference.binpb"


def _classes() -> dict[str, type]:
    pool = DescriptorPool()
    found = FileDescriptorSet.FromString(files(__package__).joinpath(DESCRIPTORS).read_bytes())
    for one in found.file:
        pool.Add(one)
    classes = GetMessageClassesForFiles([one.name for one in found.file], pool)
    return {name.removeprefix(f"{PACKAGE}."): made for name, made in classes.items() if name.count(".") == 1}


globals().update(_classes())
