"""The prompts service and the evaluator each render prompts, and neither imports the other: what is measured must be,
word for word, what applications are given."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.evaluator.answers.rendering import Prompt
from services.evaluator.errors import PromptUnreadable, RenderRefused, RenderTooLarge
from services.prompts.domain.content import Content
from services.prompts.rendering import engine

STRING = {"type": "string"}
CHAT: dict[str, Any] = {
    "messages": [
        {"type": "message", "role": "system", "content": "Be {{ mood }}.\n"},
        {"type": "placeholder", "name": "history"},
        {"type": "message", "role": "user", "content": "{% for part in parts %}- {{ part }}\n{% endfor %}{{ n + 1 }}"},
    ],
    "examples": [{"input": "{{ not a variable }}", "output": "yes"}],
    "variables": {
        "mood": {"type": "string", "required": False, "default": "kind"},
        "history": {"type": "array", "required": False},
        "parts": {"type": "array", "json_schema": {"items": STRING}},
        "n": {"type": "integer", "json_schema": {"minimum": 1}},
    },
}
TURNS = [{"role": "user", "content": "earlier"}, {"role": "assistant", "content": [{"type": "text", "text": "so"}]}]


def text(of: str, *names: str, **more: Any) -> dict[str, Any]:
    return {"text": of, "variables": {name: {"type": "string"} for name in names}, **more}


def chat(*turns: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns], **more}


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "one place": (text("Say {{ x }}\n", "x"), {"x": "ü 🙂 {{ y }}"}),
    "no spaces and many": (text("{{x}}{{  y  }}{{x}}", "x", "y"), {"x": "1", "y": "2"}),
    "plain keeps what jinja would read": (
        text("{{ x }} {{ unknown }} {% if %} {{ a.b }}", "x", syntax="plain"),
        {"x": "<&>"},
    ),
    "a filter": (text("{{ x | upper | replace('A', 'b') }}", "x"), {"x": "abc"}),
    "a comment and white space": (text("{# no #}\n  {%- if x %} yes {%- endif %}\n\n", "x"), {"x": "1"}),
    "an optional one": (
        {"text": "[{{ x }}] {{ x is none }}", "variables": {"x": {"type": "string", "required": False}}},
        {},
    ),
    "null in a plain place": (
        {"text": "[{{ x }}]", "variables": {"x": {"type": "number", "required": False, "default": 1.5}}},
        {},
    ),
    "numbers and truth": (
        {
            "text": "{{ a }} {{ b }} {{ c }} {{ d }}",
            "variables": {
                "a": {"type": "integer"},
                "b": {"type": "number"},
                "c": {"type": "boolean"},
                "d": {"type": "object"},
            },
        },
        {"a": 3, "b": 0.1, "c": True, "d": {"k": [1, None]}},
    ),
    "examples in a text": (
        text(
            "{% for e in examples %}{{ e.input }}={{ e['output'] }};{% endfor %}{{ x }}",
            "x",
            examples=[{"input": "a", "output": "b"}],
        ),
        {"x": "c"},
    ),
    "what is included": (
        {**text('{% include "tone" version=1 %} {{ x }}', "x"), "resolved_text": "Be kind.\n {{ x }}"},
        {"x": "1"},
    ),
    "a chat": (CHAT, {"parts": ["a", "b"], "n": 4}),
    "a chat with a conversation": (CHAT, {"parts": [], "n": 1, "history": TURNS, "mood": "short"}),
    "included messages": (
        {**CHAT, "resolved_messages": [{"type": "message", "role": "user", "content": "{{ n }}"}]},
        {"parts": [], "n": 2},
    ),
    "examples where they are told to stand": (
        chat(("system", "s"), ("user", "u"), ("examples", ""), ("user", "q"), examples=[{"input": "i", "output": "o"}]),
        {},
    ),
    "examples after instructions": (
        chat(("system", "s"), ("developer", "d"), ("user", "q"), examples=[{"input": "i", "output": "o"}]),
        {},
    ),
    # What both refuse
    "a value is missing": (text("{{ x }}", "x"), {}),
    "a value is of another type": (text("{{ x }}", "x"), {"x": 5}),
    "a value is out of its schema": (CHAT, {"parts": [], "n": 0}),
    "an undefined name": (text("{{ x }} {{ y | upper }}", "x"), {"x": "1"}),
    "no such filter": (text("{{ x | shout }}", "x"), {"x": "1"}),
    "a broken template": (text("{% if x %}", "x"), {"x": "1"}),
    "an include that was not put in": (text('{% include "tone" %}{{ x }}', "x"), {"x": "1"}),
    "out of the sandbox": (text("{{ x.__class__.__mro__ }}{% set y = 1 %}", "x"), {"x": "1"}),
    "a division by zero": (text("{{ 1 / 0 }}{{ x }}", "x"), {"x": "1"}),
    "a huge product": (text("{{ 'x' * 10000000 }}{{ x }}", "x"), {"x": "1"}),
    "a huge power": (text("{{ 9 ** 9999 }}{{ x }}", "x"), {"x": "1"}),
    "a format string": (text("{{ '%999999999d' % 1 }}{{ x }}", "x"), {"x": "1"}),
    "too long": (text("{% for i in range(100) %}{{ x }}{% endfor %}", "x"), {"x": "a" * 20_000}),
    "too long together": (
        chat(("user", "{{ x }}"), ("user", "{{ x }}"), variables={"x": STRING}),
        {"x": "a" * 600_000},
    ),
    "a conversation that is none": (CHAT, {"parts": [], "n": 1, "history": ["hello"]}),
}


def whole(document: dict[str, Any]) -> dict[str, Any]:
    """As the prompts service registers it: everything that its author left out is there."""
    beside = {name: document[name] for name in ("resolved_text", "resolved_messages") if name in document}
    written = {name: value for name, value in document.items() if name not in beside}
    return {**Content.model_validate(written).model_dump(mode="json"), **beside}


def by_prompts(document: dict[str, Any], values: dict[str, Any]) -> Any:
    try:
        found = engine.render(document, values)
    except engine.Refused as refused:
        return refused.code
    return found["messages"] if "messages" in found else [{"role": "user", "content": found["text"]}]


def by_evaluator(document: dict[str, Any], values: dict[str, Any]) -> Any:
    try:
        return list(Prompt.read(json.dumps(document).encode()).messages(values))
    except (RenderRefused, RenderTooLarge) as refused:
        return refused.code


@pytest.mark.parametrize("case", CASES)
def test_both_render_the_same(case: str) -> None:
    written, values = CASES[case]
    document = whole(written)
    theirs, ours = by_prompts(document, values), by_evaluator(document, values)
    assert ours == theirs
    refused = list(CASES).index(case) >= list(CASES).index("a value is missing")
    assert isinstance(ours, str) == refused, ours


@pytest.mark.parametrize(
    "artefact",
    [
        b"Just say {{ x }}",
        b"\xff\x00",
        b"[]",
        b"{}",
        b'"text"',
        b'{"text": 5}',
        b'{"messages": ["hello"]}',
        b'{"messages": [{"role": "user"}]}',
        b'{"text": "{{ x }}", "variables": ["x"]}',
        b'{"text": "{{ x }}", "variables": {"x": {"type": "poem"}}}',
        b'{"text": "{{ x }}", "variables": {"x": {"json_schema": {"$ref": "http://127.0.0.1:9/x"}, "type": "string"}}}',
        b'{"text": "x", "examples": [{"input": 1}]}',
        b"[" * 100_000,
    ],
)
def test_what_no_prompts_service_registered_is_refused_with_a_code(artefact: bytes) -> None:
    with pytest.raises(PromptUnreadable):
        Prompt.read(artefact)
