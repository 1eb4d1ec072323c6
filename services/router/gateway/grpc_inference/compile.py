"""`python -m services.router.gateway.grpc_inference.compile [folder]`: what `messages` is made of, from the .proto.

Needs grpcio-tools, which only development has; a test compares what is committed with what this makes.
"""

from __future__ import annotations

import sys
from pathlib import Path

PROTO = Path(__file__).with_name("open_inference.proto")
HEAD = (
    "# Made by compile.py of open_inference.proto; ruff and people leave it alone.\n"
    '# ruff: noqa\n# mypy: disable-error-code="type-arg"\n'
)


def compile_into(folder: Path) -> None:
    """Write `open_inference.binpb` and `messages.pyi`. Raises OSError, RuntimeError when the .proto is refused."""
    from grpc_tools import protoc

    options = [f"--proto_path={PROTO.parent}", f"--descriptor_set_out={folder / 'open_inference.binpb'}"]
    if protoc.main(["protoc", *options, f"--pyi_out={folder}", PROTO.name]):
        raise RuntimeError(f"{PROTO} cannot be compiled")
    made = folder / "open_inference_pb2.pyi"
    folder.joinpath("messages.pyi").write_text(HEAD + made.read_text())
    made.unlink()


if __name__ == "__main__":
    compile_into(Path(sys.argv[1]) if len(sys.argv) > 1 else PROTO.parent)
