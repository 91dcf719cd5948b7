"""The wire's definition: generated code is current, and every RPC is the one in the proto files."""

from __future__ import annotations

from pathlib import Path

import grpc_tools
import pytest
from grpc_tools import protoc

from ps.v1 import control_pb2, embedding_pb2
from ps.wire.methods import METHODS, Method, Shape

ROOT = Path(__file__).parents[2]
FILES = ["embedding", "control"]


def test_generated_code_is_what_the_compiler_makes_of_the_proto_files(tmp_path: Path) -> None:
    """If this fails, run `make proto`."""
    sources = [str(ROOT / "proto" / "ps" / "v1" / f"{name}.proto") for name in FILES]
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    includes = [f"-I{ROOT / 'proto'}", f"-I{well_known}"]
    assert protoc.main(["protoc", *includes, f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", *sources]) == 0
    made = {path.name: path.read_bytes() for path in (tmp_path / "ps" / "v1").iterdir()}
    assert set(made) == {f"{name}_pb2.{kind}" for name in FILES for kind in ("py", "pyi")}
    for name, content in made.items():
        assert (ROOT / "ps" / "v1" / name).read_bytes() == content, name


def test_every_proto_file_is_compiled() -> None:
    assert {path.stem for path in (ROOT / "proto").rglob("*.proto")} == set(FILES)
    assert not list((ROOT / "proto").rglob("__init__.py")), "it would shadow proto-plus"


SHAPES = {(False, False): Shape.UNARY, (True, False): Shape.STREAM_IN, (False, True): Shape.STREAM_OUT}
DECLARED = {
    f"/{service.full_name}/{rpc.name}": rpc
    for module in (embedding_pb2, control_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for rpc in service.methods
}


def test_the_table_of_methods_has_every_rpc_once() -> None:
    assert sorted(method.path for method in METHODS) == sorted(DECLARED)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_method_streams_as_declared(method: Method) -> None:
    rpc = DECLARED[method.path]
    assert SHAPES[rpc.client_streaming, rpc.server_streaming] is method.shape


@pytest.mark.parametrize("name", ["PullChunk", "PushChunk", "WriteChunk", "ExportChunk"])
def test_a_streamed_message_is_head_and_payload_as_the_codec_frames_it(name: str) -> None:
    fields = embedding_pb2.DESCRIPTOR.message_types_by_name[name].fields_by_name
    parts = {"parts": 2} if name == "PullChunk" else {}
    assert {field.name: field.number for field in fields.values()} == {"head": 1, **parts, "payload": 15}
    assert fields["payload"].type == fields["payload"].TYPE_BYTES
