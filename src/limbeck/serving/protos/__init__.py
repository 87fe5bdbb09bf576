"""The messages of the Open Inference Protocol over gRPC.

They are made from a descriptor, `open_inference.txtpb`, which `python -m limbeck.serving.protos` makes from
`open_inference.proto`. The descriptor lies in a pool of its own: other libraries in this process may know messages
of the same names.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

HERE = Path(__file__).parent
PROTO = HERE / "open_inference.proto"
"""The definition."""
DESCRIPTOR = HERE / "open_inference.txtpb"
"""What is made from it."""
SERVICE = "inference.GRPCInferenceService"
"""The full name of the service."""

_file = descriptor_pb2.FileDescriptorProto()
text_format.Parse(DESCRIPTOR.read_text(encoding="utf-8"), _file)
_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file)


@cache
def message(name: str) -> Any:
    """The class of a message of the protocol, by its name."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"inference.{name}"))


@cache
def methods() -> dict[str, tuple[Any, Any]]:
    """Of every call: the classes of its request and response."""
    service = _pool.FindServiceByName(SERVICE)
    return {each.name: (message(each.input_type.name), message(each.output_type.name)) for each in service.methods}
