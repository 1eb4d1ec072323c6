"""A request's translator can be copied for another attempt, and tells apart the forms that an answer is wanted in."""

from __future__ import annotations

from typing import Any

import orjson

from services.router.domain import Version
from services.router.gateway.arms import Target
from services.router.gateway.grpc_inference.infer import GrpcInfer
from services.router.gateway.grpc_inference.messages import ModelInferRequest
from services.router.gateway.http_server import Request
from services.router.gateway.oip import OpenInference

TENSOR: dict[str, Any] = {"name": "x", "shape": [1], "datatype": "FP32"}
ASKED = {"inputs": [{**TENSOR, "data": [1.0]}]}
RAW = b"\0\0\x80\x3f"
TARGET = Target.at(Version("mm:model/a", 1, "sha256:" + "0" * 64), "http://127.0.0.1:1", "a")
GOOD: Any = {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [2.0]}]}


def over_http(value: dict[str, Any], binary: bytes = b"") -> OpenInference:
    body = orjson.dumps(value)
    headers = {b"inference-header-content-length": b"%d" % len(body)} if binary else {}
    made = OpenInference(Request(b"POST", b"/v2/models/a/infer", headers, body + binary, None, True, 0.0))  # type: ignore[arg-type]
    made.read()
    return made


def over_grpc(raw: bool) -> GrpcInfer:
    tensor: Any = {**TENSOR} if raw else {**TENSOR, "contents": {"fp32_contents": [1.0]}}
    message = ModelInferRequest(model_name="a", inputs=[tensor], raw_input_contents=[RAW] if raw else [])
    made = GrpcInfer(Request(b"POST", b"/v2/models/a/infer", {}, b"", None, True, 0.0), message)  # type: ignore[arg-type]
    made.read()
    return made


def test_the_same_request_in_another_form_is_not_the_very_same() -> None:
    plain = over_http(ASKED)
    as_bytes = over_http({"inputs": [{**TENSOR, "parameters": {"binary_data_size": 4}}]}, RAW)
    wanting = over_http({**ASKED, "parameters": {"binary_data_output": True}})
    typed, raw = over_grpc(False), over_grpc(True)
    assert {one.input for one in (plain, as_bytes, wanting)} == {orjson.dumps(ASKED)} or plain.canonical == ASKED
    assert orjson.loads(as_bytes.input or b"") == orjson.loads(typed.input or b"") == orjson.loads(raw.input or b"")
    assert as_bytes.canonical == plain.canonical, "in bytes or not, it is asked the same and answered the same"
    forms = {orjson.dumps([one.protocol, one.canonical]) for one in (plain, wanting, typed, raw)}
    assert len(forms) == 4


def test_a_fork_asks_and_answers_as_its_original() -> None:
    wanting = over_http(
        {
            "inputs": [{**TENSOR, "parameters": {"binary_data_size": 4}}],
            "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
        },
        RAW,
    )
    for original in (wanting, over_http(ASKED), over_grpc(False), over_grpc(True)):
        forked = original.fork()
        assert forked.ask(TARGET, "1") == original.ask(TARGET, "1")
        answers = [one.answer(200, [], orjson.dumps(GOOD)) for one in (original, forked)]
        assert answers[0] == answers[1]
        assert (forked.input, forked.unit, forked.canonical) == (original.input, original.unit, original.canonical)
