"""Frames of streams, tensors, embeddings, lists of models, keys in headers, and errors in each protocol's shape."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import anthropic.types as anthropic_types
import openai.types as openai_types
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.router.errors import FieldRefused, UpstreamCut, UpstreamGarbageError, UpstreamRefused
from services.router.gateway.framing import MAX_FRAME_BYTES, AwsFrames, Frame, SseFrames, SseInAws
from services.router.gateway.protocols import CHAT, EMBEDDINGS, MESSAGES, OIP, RESPONSES, credentials, protocol_of
from services.router.gateway.protocols.embeddings import EmbeddingAnswer
from services.router.gateway.protocols.models import GroupListing, models_page
from services.router.gateway.protocols.oip import check_tensors
from services.router.gateway.testing.recorded import CHAT as RECORDED
from services.router.gateway.testing.recorded import aws_frame
from shared.errors import Malformed, MintmarkError, Unauthenticated

from .asking import NOW, asked

# -- frames


@settings(max_examples=60, deadline=None)
@given(
    events=st.lists(st.tuples(st.sampled_from(["", "ping", "message_stop"]), st.lists(st.text(
        st.characters(exclude_characters="\r\n", exclude_categories=("Cs",)), max_size=12), min_size=1, max_size=3)),
        max_size=5),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    cuts=st.lists(st.integers(0, 400), max_size=12),
    bom=st.booleans(),
)  # fmt: skip
def test_server_sent_events_by_any_line_end_and_cut_anywhere(events: Any, end: str, cuts: list[int], bom: bool) -> None:
    text = "".join(
        (f"event: {name}{end}" if name else "") + "".join(f"data: {line}{end}" for line in lines) + f": hi{end}" + end
        for name, lines in events
    )
    stream = (b"\xef\xbb\xbf" if bom else b"") + text.encode()
    frames = SseFrames()
    found: list[Frame] = []
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    for begin, stop in itertools.pairwise(places):
        found += frames.feed(stream[begin:stop])
    found += frames.end()
    told = [(frame.event, frame.data.decode()) for frame in found if frame.event or frame.data]
    assert told == [(name, "\n".join(lines)) for name, lines in events if name or "\n".join(lines)]


def test_an_event_without_end_is_bounded() -> None:
    frames = SseFrames()
    with pytest.raises(UpstreamGarbageError, match="larger than"):
        for _ in range(18):
            frames.feed(b"x" * (1 << 20))
    assert MAX_FRAME_BYTES == 16 << 20


def test_a_damaged_or_cut_event_stream_of_aws() -> None:
    message = aws_frame("messageStart", b'{"role": "assistant"}')
    for position in range(len(message)):
        damaged = message[:position] + bytes([message[position] ^ 0x55]) + message[position + 1 :]
        frames = AwsFrames()
        with pytest.raises((UpstreamGarbageError, UpstreamCut)):
            frames.feed(damaged)
            frames.end()
        cut = AwsFrames()
        assert cut.feed(message[:position]) == []
        if position:
            with pytest.raises(UpstreamCut):
                cut.end()
    assert AwsFrames().feed(message * 3)[2].event == "messageStart"
    stream = RECORDED["greeting"][1]
    assert b"".join(frame.raw for frame in SseInAws().feed(aws_frame("PayloadPart", stream))) == stream


# -- tensors


def tensor(**change: Any) -> dict[str, Any]:
    made = {"name": "age", "shape": [2], "datatype": "FP32", "data": [1.5, 2], **change}
    return {"inputs": [made, {**made, "name": "other"}]} if change.get("name") != "other" else {"inputs": [made, made]}


@pytest.mark.parametrize(
    "change",
    [{}, {"data": [1.5, None]}, {"shape": [1, 2]}, {"shape": [2, 1], "data": [[1], [2]]}, {"shape": [0], "data": []},
     {"datatype": "BYTES", "data": ["a", "b"]}, {"datatype": "BOOL", "data": [True, False]},
     {"data": None, "parameters": {"binary_data_size": 8}}],
)  # fmt: skip
def test_tensors_that_agree_with_themselves(change: dict[str, Any]) -> None:
    check_tensors(tensor(**change))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "inputs[0].name"), ({"name": "other"}, "inputs[1].name"),
        ({"shape": [3]}, "inputs[0] (age).data"),
        ({"shape": [1] * 64 + [2]}, "inputs[0] (age).shape"),
        ({"shape": [-1]}, "inputs[0] (age).shape"), ({"shape": [True, 2]}, "inputs[0] (age).shape"),
        ({"shape": "2"}, "inputs[0] (age).shape"), ({"datatype": "FP99"}, "inputs[0] (age).datatype"),
        ({"datatype": ["FP32"]}, "inputs[0] (age).datatype"), ({"data": 3}, "inputs[0] (age).data"),
        ({"data": ["a", "b"]}, "inputs[0] (age).data"), ({"datatype": "INT64"}, "inputs[0] (age).data"),
        ({"data": [[1], 2]}, "inputs[0] (age).data"), ({"datatype": "BOOL", "data": [1, 0]}, "inputs[0] (age).data"),
    ],
)  # fmt: skip
def test_a_tensor_that_contradicts_itself_is_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(FieldRefused) as refused:
        check_tensors(tensor(**change))
    assert refused.value.field == field


@pytest.mark.parametrize("body", [b"{}", b'{"inputs": []}', b'{"inputs": 3}'])
def test_a_request_without_tensors(body: bytes) -> None:
    with pytest.raises(FieldRefused, match="inputs"):
        asked("/v2/models/live/versions/3/infer", body)


def test_a_binary_request_is_read_as_far_as_its_json() -> None:
    head = orjson.dumps(tensor(data=None, parameters={"binary_data_size": 8}))
    body = head + b"\x00" * 16
    assert OIP.opened(body, "/v2/models/live/infer", len(head)).model == "live"
    for size in (0, len(body) + 1, 3):
        with pytest.raises(Malformed):
            OIP.opened(body, "/v2/models/live/infer", size)


# -- embeddings and models


def test_embeddings_are_read_and_refused() -> None:
    assert EMBEDDINGS.read({"model": "g", "input": "a"}).inputs == ("a",)
    for change, field in (
        ({"input": [1, 2]}, "input"), ({"input": []}, "input"), ({"dimensions": 0}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"), ({"user": "u"}, "user"),
    ):  # fmt: skip
        with pytest.raises(FieldRefused) as refused:
            EMBEDDINGS.read({"model": "g", "input": "a", **change})
        assert refused.value.field == field
    request = EMBEDDINGS.read({"model": "g", "input": "a"})
    written = EMBEDDINGS.write(EmbeddingAnswer("g", ([1.0, 2.0],), 3), request)
    openai_types.CreateEmbeddingResponse.model_validate_json(orjson.dumps(written), strict=True)


def test_models_in_both_shapes() -> None:
    groups = [GroupListing(f"group-{number:02}", datetime(2026, 1, 2, tzinfo=UTC)) for number in range(45)]
    for value in orjson.loads(models_page(groups, {}))["data"]:
        openai_types.Model.model_validate(value)
    headers = {b"anthropic-version": b"2023-06-01"}
    page = orjson.loads(models_page(groups, headers))
    assert (len(page["data"]), page["has_more"], page["last_id"]) == (20, True, "group-19")
    for value in page["data"]:
        anthropic_types.ModelInfo.model_validate(value)
    page = orjson.loads(models_page(groups, headers, b"after_id=group-39"))
    assert (len(page["data"]), page["has_more"], page["first_id"]) == (5, False, "group-40")
    page = orjson.loads(models_page(groups, headers, b"before_id=group-10&limit=4"))
    assert (page["first_id"], page["last_id"], page["has_more"]) == ("group-06", "group-09", True)
    assert orjson.loads(models_page([], headers))["first_id"] is None


# -- keys and errors


def test_a_key_comes_in_either_header_but_not_two_in_both() -> None:
    assert credentials({b"authorization": b"Bearer k"}) == b"Bearer k"
    assert credentials({b"x-api-key": b"k"}) == b"Bearer k"
    assert credentials({b"x-api-key": b"k", b"authorization": b"Bearer k"}) == b"Bearer k"
    assert credentials({}) == b""
    with pytest.raises(Unauthenticated):
        credentials({b"x-api-key": b"a", b"authorization": b"Bearer b"})


@pytest.mark.parametrize("error", [FieldRefused("seed", "is odd"), UpstreamRefused(429, "slow"), MintmarkError()])
def test_errors_in_the_shape_that_each_protocols_clients_read(error: MintmarkError) -> None:
    for protocol in (CHAT, RESPONSES, EMBEDDINGS):
        value = orjson.loads(protocol.error(error, "req-1"))["error"]
        openai_types.shared.ErrorObject.model_validate(value)
        assert value["message"] == error.message
    value = orjson.loads(MESSAGES.error(error, "req-1"))
    anthropic_types.shared.ErrorResponse.model_validate(value)
    assert orjson.loads(OIP.error(error, "req-1"))["error"] == error.message
    for stream in (CHAT.stream(None, NOW), MESSAGES.stream(None, NOW), RESPONSES.stream(None, NOW)):
        frame = SseFrames().feed(stream.fail(error))[0]
        assert error.message in frame.data.decode()


def test_paths() -> None:
    assert protocol_of("/v1/messages") is MESSAGES
    assert protocol_of("/v2/models/live/infer") is OIP
    assert protocol_of("/v2/models/live/ready") is None
    assert protocol_of("/v1/models") is None
