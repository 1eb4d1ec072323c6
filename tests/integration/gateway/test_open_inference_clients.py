"""The official clients of the Open Inference Protocol, tritonclient over HTTP and gRPC: every datatype, as bytes and as
values, champion and challenger, and a row for every call, also for each that failed."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import orjson
import pytest
import tritonclient.grpc.aio as triton_grpc
import tritonclient.http.aio as triton_http
from tritonclient.grpc import service_pb2 as official
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from services.router.domain import weigh
from services.router.gateway.grpc_inference import messages
from services.router.gateway.grpc_inference.compile import PROTO, compile_into

from .world import World, a_version

Arrays = dict[str, np.ndarray[Any, Any]]
EVERY: Arrays = {
    "flags": np.array([True, False, True]),
    "i8": np.array([-128, 0, 127], np.int8),
    "i16": np.array([-32768, 32767], np.int16),
    "i32": np.array([[-(2**31)], [2**31 - 1]], np.int32),
    "i64": np.array([-(2**63), 2**63 - 1], np.int64),
    "u8": np.array([0, 255], np.uint8),
    "u16": np.array([65535], np.uint16),
    "u32": np.array([2**32 - 1], np.uint32),
    "u64": np.array([2**64 - 1], np.uint64),
    "f16": np.array([0.5, -65504.0, 6.1e-05], np.float16),
    "f32": np.array([[0.1, 3.4e38]], np.float32),
    "f64": np.array([0.1, 1.7e308, -0.0]),
    "texts": np.array(["", "Ärger", "x" * 300], np.object_),
    "empty": np.array([], np.float32),
}


@dataclass
class Clients:
    world: World
    http: triton_http.InferenceServerClient
    grpc: triton_grpc.InferenceServerClient
    channel: grpc.aio.Channel
    headers: dict[str, str]

    def of(self, kind: str) -> tuple[Any, Any]:
        return (self.http, triton_http) if kind == "http" else (self.grpc, triton_grpc)

    async def infer(self, kind: str, group: str, arrays: Arrays, **more: Any) -> Any:
        client, module = self.of(kind)
        more["headers"] = {**self.headers, **more.get("headers", {})}
        return await client.infer(group, inputs_of(module, arrays), **more)

    async def raw(
        self, method: str, payload: bytes, **metadata: str
    ) -> tuple[grpc.StatusCode, str, dict[str, str], bytes]:
        """Status, details, trailing metadata and answer of a call whose message is these bytes."""
        call = self.channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
        sent = {**self.headers, **{name.replace("_", "-"): value for name, value in metadata.items()}}
        made = call(payload, metadata=tuple(sent.items()), timeout=30)
        try:
            body = await made
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details() or "", dict(error.trailing_metadata()), b""
        return grpc.StatusCode.OK, "", dict(await made.trailing_metadata()), body


def inputs_of(module: Any, arrays: Arrays) -> list[Any]:
    made = []
    for name, array in arrays.items():
        one = module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        one.set_data_from_numpy(array)
        made.append(one)
    return made


@pytest.fixture
async def clients(world: World, keys: dict[str, str]) -> AsyncIterator[Clients]:
    async with clients_of(world, keys) as made:
        yield made


@asynccontextmanager
async def clients_of(world: World, keys: dict[str, str]) -> AsyncIterator[Clients]:
    at = f"127.0.0.1:{world.gateway.grpc_port}"
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(triton_http.InferenceServerClient(world.http.base_url.netloc.decode()))
        client = await stack.enter_async_context(triton_grpc.InferenceServerClient(at))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(at))
        yield Clients(world, http, client, channel, {"authorization": f"Bearer {keys['caller']}"})


async def echo(world: World, name: str) -> None:
    await world.make_group(name, await world.deploy(a_version(5), "echo"))


def message(group: str, **changes: Any) -> bytes:
    tensor: Any = {"name": "x", "datatype": "FP32", "shape": [2], "contents": {"fp32_contents": [1.0, 2.0]}}
    inputs = changes.pop("inputs", [{**tensor, **changes.pop("tensor", {})}])
    made: bytes = messages.ModelInferRequest(model_name=group, inputs=inputs, **changes).SerializeToString()
    return made


# -- what clients do


@pytest.mark.parametrize("kind", ["http", "grpc"])
async def test_every_datatype_comes_back_as_it_was_sent_and_the_row_can_be_read(
    clients: Clients, name: str, kind: str
) -> None:
    await echo(clients.world, name)
    result = await clients.infer(kind, name, EVERY, request_id="person-3")
    for tensor, sent in EVERY.items():
        found = result.as_numpy(tensor)
        if sent.dtype == np.float16:  # JSON has no such datatype; each of its values is one of FP32
            assert found.dtype == np.float32
        expected = np.array([text.encode() for text in sent], np.object_) if sent.dtype == np.object_ else sent
        assert np.array_equal(found, expected), tensor
        assert found.shape == sent.shape
    (row,) = await clients.world.rows(name)
    assert row["protocol"] == {"http": "open-inference", "grpc": "open-inference-grpc"}[kind]
    assert (row["status"], row["unit"], row["requester"]) == (200, "person-3", "user:caller")
    for column in ("input", "output"):
        tensors = orjson.loads(row[column])["inputs" if column == "input" else "outputs"]
        kept = {one["name"]: one["data"] for one in tensors}
        assert kept["texts"] == ["", "Ärger", "x" * 300] and kept["i64"] == [-(2**63), 2**63 - 1]
        assert kept["f16"] == [0.5, -65504.0, float(np.float16(6.1e-05))] and kept["flags"] == [True, False, True]


@pytest.mark.parametrize("kind", ["http", "grpc"])
async def test_brain_floats_and_missing_numbers(clients: Clients, name: str, kind: str) -> None:
    await echo(clients.world, name)
    _, module = clients.of(kind)
    brain = module.InferInput("b", [3], "BF16")
    brain.set_data_from_numpy(np.array([1.0, -2.5, 3.0e38], np.float32))
    holes = module.InferInput("h", [2], "FP64")
    holes.set_data_from_numpy(np.array([np.nan, 2.0]))
    client, _ = clients.of(kind)
    result = await client.infer(name, [brain, holes], headers=clients.headers)
    assert result.as_numpy("b").tolist()[:2] == [1.0, -2.5]
    assert np.array_equal(result.as_numpy("h"), [np.nan, 2.0], equal_nan=True)
    (row,) = await clients.world.rows(name)
    assert [one["data"] for one in orjson.loads(row["input"])["inputs"]][1] == [None, 2.0]


@pytest.mark.parametrize("kind", ["http", "grpc"])
async def test_champion_and_challenger_share_the_calls(clients: Clients, name: str, kind: str) -> None:
    world = clients.world
    one, two = await world.deploy(a_version(1, name), "echo.1"), await world.deploy(a_version(2, name), "echo.2")
    group = weigh(await world.make_group(name, one), [(two, 4000)], expected_revision=1)
    await world.until_served(await world.move(group, "weighted"))
    for number in range(40):
        await clients.infer(kind, name, {"x": EVERY["f64"]}, headers={"x-mintmark-unit": f"user-{number % 20}"})
    rows = await world.rows(name)
    assert len(rows) == 40 and {row["version"] for row in rows} == {1, 2}
    assert {world.stub.seen["echo.1"], world.stub.seen["echo.2"]} == {
        sum(row["version"] == version for row in rows) for version in (1, 2)
    }
    by_unit: dict[str, set[int]] = {}
    for row in rows:
        by_unit.setdefault(row["unit"], set()).add(row["version"])
        assert row["arm"] == {1: "champion", 2: "challenger"}[row["version"]]
    assert all(len(versions) == 1 for versions in by_unit.values()), "nobody flips"


async def test_the_rest_of_the_service_answers(clients: Clients, name: str, keys: dict[str, str]) -> None:
    version = await clients.world.deploy(a_version(5), "good")
    await clients.world.make_group(name, version)
    await clients.world.make_group(f"{name}-b", await clients.world.deploy(a_version(6), "broken"))
    for client in (clients.http, clients.grpc):
        assert await client.is_server_live() and await client.is_server_ready()
        assert await client.is_model_ready(name, headers=clients.headers)
        assert not await client.is_model_ready(f"{name}-b", headers=clients.headers)
    described = await clients.grpc.get_model_metadata(name, headers=clients.headers)
    assert (described.name, list(described.versions)) == (name, [str(version)])
    assert (await clients.grpc.get_server_metadata()).name == "mintmark"
    assert (await clients.http.get_server_metadata())["extensions"] == ["binary_tensor_data"]
    for method in ("ModelReady", "ModelMetadata"):
        asked = getattr(messages, f"{method}Request")
        for key, group, expected in (
            (keys["viewer"], name, grpc.StatusCode.PERMISSION_DENIED),
            (keys["neighbour"], name, grpc.StatusCode.NOT_FOUND),
            ("wrong", name, grpc.StatusCode.UNAUTHENTICATED),
            (keys["caller"], "nobody", grpc.StatusCode.NOT_FOUND),
        ):
            payload = asked(name=group).SerializeToString()
            code, _, metadata, _ = await clients.raw(method, payload, authorization=f"Bearer {key}")
            assert code is expected and metadata["x-mintmark-code"], (method, key)


async def test_metadata_are_headers_there_and_back(clients: Clients, name: str) -> None:
    version = await clients.world.deploy(a_version(5), "echo.traced")
    await clients.world.make_group(name, version)
    trace = "0af7651916cd43dd8448eb211c80319c"
    code, _, metadata, body = await clients.raw(
        "ModelInfer",
        message(name),
        x_mintmark_unit="unit-1",
        x_request_id="mine",
        traceparent=f"00-{trace}-b7ad6b7169203331-01",
    )
    assert code is grpc.StatusCode.OK
    (row,) = await clients.world.rows(name)
    assert metadata["x-mintmark-request-id"] == str(row["request_id"])
    assert (metadata["x-mintmark-group"], metadata["x-mintmark-version"]) == (name, str(version))
    assert (row["unit"], row["client_request_id"], row["trace_id"]) == ("unit-1", "mine", trace)
    answer = messages.ModelInferResponse.FromString(body)
    assert not answer.raw_output_contents, "values were asked with, and values answer"
    assert list(answer.outputs[0].contents.fp32_contents) == [1.0, 2.0]


async def test_over_http_only_the_outputs_that_are_asked_for_are_bytes(clients: Clients, name: str) -> None:
    await echo(clients.world, name)
    wanted = [
        triton_http.InferRequestedOutput("f64", binary_data=True),
        triton_http.InferRequestedOutput("i64", binary_data=False),
    ]
    result = await clients.infer("http", name, {"f64": EVERY["f64"], "i64": EVERY["i64"]}, outputs=wanted)
    said = {one["name"]: one for one in result.get_response()["outputs"]}
    assert said["f64"]["parameters"]["binary_data_size"] == 24 and "data" in said["i64"]
    assert np.array_equal(result.as_numpy("f64"), EVERY["f64"])
    (row,) = await clients.world.rows(name)
    assert "binary" not in row["input"] and "binary" not in row["output"]
    plain = await clients.world.infer(name)
    assert plain.headers["content-type"] == "application/json"


async def test_the_cache_gives_each_client_its_own_form(clients: Clients, name: str) -> None:
    world = clients.world
    group = await world.make_group(name, await world.deploy(a_version(5), "echo.cached"))
    await world.configure(group, "routing", {"cache": {"ttl_s": 60}})
    sent = {"x": np.array([1.5, 2.5])}
    plain = {"inputs": [{"name": "x", "shape": [2], "datatype": "FP64", "data": [1.5, 2.5]}]}
    typed = [{"name": "x", "datatype": "FP64", "shape": [2], "contents": {"fp64_contents": [1.5, 2.5]}}]
    for _ in range(2):
        assert (await world.infer(name, plain)).json()["outputs"][0]["data"] == [1.5, 2.5]
        for kind in ("http", "grpc"):
            assert np.array_equal((await clients.infer(kind, name, sent)).as_numpy("x"), sent["x"])
        _, _, metadata, body = await clients.raw("ModelInfer", message(name, inputs=typed))
        assert list(messages.ModelInferResponse.FromString(body).outputs[0].contents.fp64_contents) == [1.5, 2.5]
    assert metadata["x-mintmark-cache"] == "hit"
    assert world.stub.seen["echo.cached"] == 4, "one for each form"
    assert len(await world.rows(name)) == 8


async def test_a_call_fails_over_as_a_request_does(clients: Clients, name: str) -> None:
    world = clients.world
    first, second = (
        await world.deploy(a_version(1, name), "close-always"),
        await world.deploy(a_version(2, name), "echo.2"),
    )
    group = weigh(await world.make_group(name, first), [(second, 0)], expected_revision=1)
    await world.move(group, "weighted")
    tier = {"name": "spare", "targets": [{"version": {"urn": second.urn, "version": second.version}}]}
    await world.configure(group, "routing", {"failover": [tier]})
    result = await clients.infer("grpc", name, {"x": EVERY["f64"]})
    assert np.array_equal(result.as_numpy("x"), EVERY["f64"])
    (row,) = await world.rows(name)
    assert (row["status"], row["version"], row["protocol"]) == (200, 2, "open-inference-grpc")
    assert row["attempts"] >= 2


# -- what goes wrong


async def test_what_the_model_server_does_wrong_is_a_status_with_our_code_and_a_row(
    clients: Clients, name: str
) -> None:
    for number, (behaviour, status, code, kept) in enumerate(
        (
            ("teapot", grpc.StatusCode.INVALID_ARGUMENT, "upstream-418", 418),
            ("broken", grpc.StatusCode.INTERNAL, "upstream-500", 500),
            ("not-json", grpc.StatusCode.UNAVAILABLE, "upstream-garbage", 502),
            ("cut", grpc.StatusCode.UNAVAILABLE, "upstream-failed", 502),
            ("stream", grpc.StatusCode.UNAVAILABLE, "upstream-garbage", 502),
        )
    ):
        await fails(clients, f"{name}-{number}", behaviour, status, code, kept)


async def test_a_model_server_that_never_answers_is_a_deadline(hasty: World, keys: dict[str, str], name: str) -> None:
    async with clients_of(hasty, keys) as clients:
        await fails(clients, name, "stall", grpc.StatusCode.DEADLINE_EXCEEDED, "upstream-timeout", 504)


async def fails(clients: Clients, group: str, behaviour: str, status: grpc.StatusCode, code: str, kept: int) -> None:
    """One call of a group whose model server does this; how it ends, and its row, which keeps the status of HTTP."""
    await clients.world.make_group(group, await clients.world.deploy(a_version(5), behaviour))
    found, details, metadata, _ = await clients.raw("ModelInfer", message(group))
    assert (found, metadata["x-mintmark-code"]) == (status, code), (behaviour, details)
    assert details.startswith(f"{code}: ")
    (row,) = await clients.world.rows(group)
    assert (row["status"], row["error_code"], row["protocol"]) == (kept, code, "open-inference-grpc")
    assert metadata["x-mintmark-request-id"] == str(row["request_id"])


TENSORS: list[tuple[str, dict[str, Any], str]] = [
    ("the wrong field", {"contents": {"int_contents": [1, 2]}}, "fp32_contents has 0"),
    ("too few", {"contents": {"fp32_contents": [1.0]}}, "needs 2 values"),
    ("too many", {"shape": [1]}, "needs 1 values"),
    ("a negative size", {"shape": [-1]}, "from 0"),
    ("no such datatype", {"datatype": "FP31"}, "none of the protocol's"),
    ("raw only", {"datatype": "FP16"}, "raw_input_contents only"),
    ("an infinity", {"contents": {"fp32_contents": [1.0, float("inf")]}}, "infinity"),
    ("no text", {"datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [b"\xff"]}}, "UTF-8"),
    ("a NUL", {"datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [b"a\0"]}}, "NUL"),
]


@pytest.mark.parametrize(("what", "tensor", "said"), TENSORS, ids=[one[0] for one in TENSORS])
async def test_a_tensor_that_contradicts_itself_is_named(
    clients: Clients, name: str, what: str, tensor: dict[str, Any], said: str
) -> None:
    await echo(clients.world, name)
    code, details, _, _ = await clients.raw("ModelInfer", message(name, tensor=tensor))
    assert code is grpc.StatusCode.INVALID_ARGUMENT and "'x'" in details and said in details
    (row,) = await clients.world.rows(name)
    assert (row["status"], row["error_code"]) == (400, "tensor-malformed")


async def test_raw_contents_that_do_not_fit_and_values_that_do_not_fit_the_signature(
    clients: Clients, name: str
) -> None:
    await echo(clients.world, name)
    bare: Any = {"name": "x", "datatype": "FP32", "shape": [2]}
    typed = {**bare, "contents": {"fp32_contents": [1.0, 2.0]}}
    for inputs, raw, said in (
        ([bare], [b"123"], "8 bytes and 3"),
        ([bare, {**bare, "name": "y"}], [bytes(8)], "'y'"),
        ([bare], [bytes(8), bytes(8)], "1 entries too many"),
        ([typed], [bytes(8)], "beside"),
        ([{**bare, "datatype": "BYTES"}], [struct.pack("<I", 9) + b"short"], "fewer follow"),
        ([{**bare, "shape": [2**40]}], [bytes(8)], "2000000"),
    ):
        code, details, _, _ = await clients.raw("ModelInfer", message(name, inputs=inputs, raw_input_contents=raw))
        assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED), details
        assert said in details
    wrong = {"name": "AGEP", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [b"old"]}}
    signed = await clients.world.deploy(a_version(7), "echo")
    await clients.world.db.execute(
        "UPDATE served_version SET signature = $1 WHERE urn = $2",
        '{"inputs": [{"name": "AGEP", "datatype": "FP64", "shape": [-1, 1]}]}', signed.urn,
    )  # fmt: skip
    await clients.world.make_group(f"{name}-s", signed)
    code, details, metadata, _ = await clients.raw("ModelInfer", message(f"{name}-s", inputs=[wrong]))
    assert (code, metadata["x-mintmark-code"]) == (grpc.StatusCode.INVALID_ARGUMENT, "signature-mismatch"), details
    assert "AGEP" in details
    assert [row["status"] for row in await clients.world.rows(f"{name}-s")] == [422]


async def test_garbage_oversize_and_what_is_pinned(clients: Clients, name: str) -> None:
    await echo(clients.world, name)
    code, details, metadata, _ = await clients.raw("ModelInfer", b"\xff\xff\xff\xff garbage")
    assert (code, metadata["x-mintmark-code"]) == (grpc.StatusCode.INVALID_ARGUMENT, "malformed"), details
    code, _, _, _ = await clients.raw("ModelInfer", message(name, id="x" * (65 << 10)))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    code, _, _, _ = await clients.raw("ModelStreamInfer", b"")
    assert code is grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(InferenceServerException) as pinned:
        await clients.infer("grpc", name, {"x": EVERY["f64"]}, model_version="3")
    assert "version-pinned" in str(pinned.value)
    with pytest.raises(InferenceServerException) as refused:
        await clients.infer("http", name, {"x": EVERY["f64"]}, model_version="3")
    assert "leave the version empty" in str(refused.value)
    assert [row["error_code"] for row in await clients.world.rows(name)] == ["version-pinned"]


X: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": [2]}
LENGTHS: list[tuple[str, dict[str, Any], bytes, str | None, str]] = [
    ("too short a body", {"parameters": {"binary_data_size": 8}}, b"1234", None, "4 bytes are left"),
    ("left over", {"parameters": {"binary_data_size": 8}}, bytes(9), None, "1 bytes follow"),
    ("not what the shape needs", {"parameters": {"binary_data_size": 4}}, bytes(4), None, "8 bytes and 4"),
    ("negative", {"parameters": {"binary_data_size": -1}}, b"", None, "whole number"),
    ("a fraction", {"parameters": {"binary_data_size": 8.0}}, bytes(8), None, "whole number"),
    ("twice", {"parameters": {"binary_data_size": 8}, "data": [1, 2]}, bytes(8), None, "one of them"),
    ("bytes without a header", {"parameters": {"binary_data_size": 8}}, b"", "", "0 bytes are left"),
    ("a header of no number", {"data": [1, 2]}, b"", "-4", "Content-Length"),
    ("a header beyond the body", {"data": [1, 2]}, b"", "99999", "Content-Length"),
    ("a header of zero", {"data": [1, 2]}, b"", "0", "Content-Length"),
    ("an infinity", {"parameters": {"binary_data_size": 8}}, struct.pack("<2f", 1, float("-inf")), None, "infinity"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "tensor", "binary", "length", "said"), LENGTHS, ids=[one[0] for one in LENGTHS])
async def test_lengths_that_are_not_right_are_a_400_that_names_the_tensor(
    clients: Clients, name: str, what: str, tensor: dict[str, Any], binary: bytes, length: str | None, said: str
) -> None:
    await echo(clients.world, name)
    text = orjson.dumps({"inputs": [{**X, **tensor}]})
    headers = {"inference_header_content_length": str(len(text)) if length is None else length} if length != "" else {}
    answer = await clients.world.infer(name, text + binary, **headers)
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["detail"]
    assert "Content-Length" in said or "'x'" in answer.json()["detail"]
    (row,) = await clients.world.rows(name)
    assert row["status"] == 400 and row["error_code"] in ("tensor-malformed", "malformed")


async def test_a_call_that_is_given_up_is_a_row_all_the_same(clients: Clients, name: str) -> None:
    clients.world.stub.delay_s = 0.2
    await clients.world.make_group(name, await clients.world.deploy(a_version(5), "slow"))
    call = clients.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(
        message(name), metadata=tuple(clients.headers.items())
    )
    asyncio.get_running_loop().call_later(0.1, call.cancel)
    with pytest.raises(asyncio.CancelledError):
        await call
    async with asyncio.timeout(5):
        while not (rows := await clients.world.rows(name)):
            await asyncio.sleep(0.02)
    assert [row["status"] for row in rows] == [200]


# -- the messages


def test_the_messages_are_those_of_the_published_protocol() -> None:
    """Names, numbers and types, as the official client has them. It has more: extensions of one server."""
    found = [getattr(made, "DESCRIPTOR", None) for made in vars(messages).values() if isinstance(made, type)]
    ours = [one for one in found if one is not None and one.full_name.startswith("inference.")]
    assert len(ours) == 14
    for one in ours:
        same(one, getattr(official, one.name).DESCRIPTOR)


def same(ours: Any, theirs: Any) -> None:
    assert ours.full_name == theirs.full_name
    for field in ours.fields:
        other = theirs.fields_by_name[field.name]
        kinds = [(one.number, one.type, one.is_repeated) for one in (field, other)]
        assert kinds[0] == kinds[1], field.full_name
    for nested in ours.nested_types:
        same(nested, theirs.nested_types_by_name[nested.name])


def test_what_is_committed_is_made_of_the_proto(tmp_path: Path) -> None:
    compile_into(tmp_path)
    for name in ("open_inference.binpb", "messages.pyi"):
        committed = PROTO.with_name(name).read_bytes()
        assert committed == (tmp_path / name).read_bytes(), (
            "run python -m services.router.gateway.grpc_inference.compile"
        )
