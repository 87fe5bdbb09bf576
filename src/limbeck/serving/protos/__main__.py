"""Make the descriptor from the definition; needs grpcio-tools."""

from __future__ import annotations

import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2, text_format
from grpc_tools import protoc

HERE = Path(__file__).parent


def compiled() -> str:
    """The descriptor of the definition as text."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        failed = protoc.main(["protoc", f"-I{HERE}", f"--descriptor_set_out={out}", str(HERE / "open_inference.proto")])
        if failed:
            raise SystemExit(failed)
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    return text_format.MessageToString(files.file[0])


if __name__ == "__main__":
    (HERE / "open_inference.txtpb").write_text(compiled(), encoding="utf-8")
