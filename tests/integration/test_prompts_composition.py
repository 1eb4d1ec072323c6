"""Titles as people write them; what a prompt includes is locked into it; variables are typed; templates are held."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest
from prompts_story import World, at, world

from services.prompts import OWNS
from shared.events.names import name_of
from shared.events.prompts import PromptPublished
from shared.events.upstream import AssetSubmitted
from shared.ids import new_id

__all__ = ["world"]
pytestmark = [pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

TITLES = (
    "team/summarise",
    "Summarise",
    "résumé 📝",
    "a%2Fb",
    "50% off?",
    "x" * 300,
    "🦊" * 300,
    "dots..and #hash",
)


@pytest.mark.parametrize("title", TITLES)
async def test_a_title_finds_its_prompt_and_so_does_its_name(world: World, title: str) -> None:
    made = await world.publish(title, f"{len(title)} {{{{ x }}}}")
    assert (made["title"], made["name"]) == (title, name_of(title))
    by_name = (await world.ada.get(at(name_of(title)))).json()
    by_title = (await world.ada.get(at(title))).json()
    assert by_name == by_title and by_title["title"] == title
    assert (await world.people["eve"].get(at(title))).status_code == 404
    again = await world.ada.post(at(made["name"], "/versions"), json={"text": "by its name"})
    assert (again.json()["title"], again.json()["version"]) == (title, 2)
    said = await world.installation.wait_for(PromptPublished, lambda event: event.name == made["name"])
    asked = await world.installation.wait_for(AssetSubmitted, lambda event: event.name == made["name"])
    assert said.title == asked.title == (title if title != made["name"] else None)


async def test_titles_that_differ_in_case_are_two_prompts(world: World) -> None:
    first, second = await world.publish("Case"), await world.publish("case")
    assert first["name"] != second["name"] and first["version"] == second["version"] == 1
    for title in ("", "\x00", "x" * 501):
        assert (await world.ada.get(at(title))).status_code in (307, 404, 422)


async def test_what_is_included_is_locked_when_the_version_is_published(world: World) -> None:
    tone = await world.publish("parts/tone", "Be {{ mood }}.", variables={"mood": {"json_schema": {"maxLength": 9}}})
    await world.label("parts/tone", "production", 1)
    text = (
        '{% include "parts/tone" %} @@@langfusePrompt:name=parts/tone|version=1@@@ '
        "@@@langfusePrompt:name=parts/tone|label=production@@@ Answer {{ question }}."
    )
    made = await world.publish("whole", text)
    outer = await world.publish("outer", '{% include "whole" version=1 %} Shortly.')
    await world.publish("parts/tone", "Be rude.")
    await world.label("parts/tone", "production", 2)

    content = (await world.ada.get(at("whole"))).json()["content"]
    assert content["resolved_text"] == "Be {{ mood }}. Be {{ mood }}. Be {{ mood }}. Answer {{ question }}."
    assert content["closure"] == [{"name": tone["name"], "title": "parts/tone", "version": 1, "digest": tone["digest"]}]
    assert content["variables"]["mood"]["json_schema"] == {"maxLength": 9}
    said = await world.installation.wait_for(PromptPublished, lambda event: event.name == "outer")
    assert {(one.name, one.version, one.digest) for one in said.includes} == {
        ("whole", 1, made["digest"]),
        (tone["name"], 1, tone["digest"]),
    }
    rendered = await world.ada.post(
        at("outer", "/render"), json={"variables": {"mood": "kind", "question": "why"}, "version": outer["version"]}
    )
    assert rendered.json()["text"] == "Be kind. Be kind. Be kind. Answer why. Shortly."
    long = {"variables": {"mood": "much too long a mood", "question": "why"}}
    assert await world.code("outer", long, "/render") == "render-refused"

    await world.publish("whole", text)
    found = (await world.ada.get(at("whole", "/diff"), params={"before": 1, "after": 2})).json()
    assert found["closure"] == [{"title": "parts/tone", "before": [1], "after": [1, 2]}]
    assert found["variables"] == {"added": [], "removed": [], "changed": []}
    assert "Be rude." in found["resolved"] and "Be rude." not in found["diff"]


async def test_a_cycle_is_refused_with_its_path(world: World) -> None:
    await world.publish("ring/a", "first")
    await world.publish("ring/b", '{% include "ring/a" version=1 %}')
    await world.publish("ring/c", '{% include "ring/b" version=1 %}')
    answer = await world.ada.post(at("ring/a", "/versions"), json={"text": '{% include "ring/c" version=1 %}'})
    assert answer.json()["code"] == "include-refused"
    assert answer.json()["detail"].endswith("ring/a → ring/c@1 → ring/b@1 → ring/a@1")
    own = await world.ada.post(at("ring/a", "/versions"), json={"text": "@@@langfusePrompt:name=ring/a|version=1@@@"})
    assert own.json()["detail"].endswith("ring/a → ring/a@1")


async def test_an_include_that_cannot_be_put_in_is_refused(world: World) -> None:
    await world.publish("plain", "{{ user name }} {% odd", syntax="plain")
    chat = {"messages": [{"role": "user", "content": "hi"}]}
    assert (await world.ada.post(at("chat"), json=chat)).status_code == 405
    assert (await world.ada.post(at("chat", "/versions"), json=chat)).status_code == 201
    await world.publish("doubled", "{{ x }} " * 10_000)
    for text in (
        '{% include "nobody" %}',
        '{% include "plain" version=1 %}',
        '{% include "chat" version=1 %}',
        '{% include "plain" version=99 %}',
        '{% include "plain" %}',
        "@@@langfusePrompt:name=plain@@@",
        "@@@langfusePrompt:version=1@@@",
        "@@@langfusePrompt:name=plain|version=-1@@@",
        '{% include "doubled" version=1 %}' * 2,
        "".join(f'{{% include "p{number}" version=1 %}}' for number in range(51)),
    ):
        assert await world.code("includer", {"text": text}) == "include-refused"
    assert (await world.ada.get(at("includer"))).status_code == 404


async def test_prompts_of_another_workspace_cannot_be_included(world: World) -> None:
    await world.publish("secret-part", "the secret")
    stolen = {"text": '{% include "secret-part" version=1 %}'}
    answer = await world.people["eve"].post(at("thief", "/versions"), json=stolen)
    assert answer.json()["code"] == "include-refused" and "there is no prompt" in answer.json()["detail"]


async def test_a_chat_is_rendered_with_its_examples_placeholders_and_conditions(world: World) -> None:
    body: dict[str, Any] = {
        "messages": [
            {"role": "system", "content": "You are {{ who }}.{% if strict %} Be strict.{% endif %}"},
            {"type": "placeholder", "name": "history"},
            {"role": "user", "content": "{% for item in items %}{{ loop.index }}. {{ item }}\n{% endfor %}"},
        ],
        "examples": [{"input": "1+1", "output": "2"}],
        "variables": {
            "strict": {"type": "boolean", "required": False, "default": False},
            "items": {"type": "array", "json_schema": {"items": {"type": "string"}, "maxItems": 3}},
        },
        "config": {"temperature": 0.1},
    }
    made = await world.ada.post(at("tutor", "/versions"), json=body)
    assert made.status_code == 201, made.text
    history = [{"role": "user", "content": "{{ not rendered }}"}]
    given = {"who": "Ada", "items": ["x", "y"], "history": history}
    answer = await world.ada.post(at("tutor", "/render"), json={"variables": given})
    assert answer.json()["messages"] == [
        {"role": "system", "content": "You are Ada."},
        *history,
        {"role": "user", "content": "1+1"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "1. x\n2. y\n"},
    ]
    assert answer.json()["config"] == {"temperature": 0.1}
    for wrong in (
        {"who": "Ada"},
        {"who": 7, "items": []},
        {"who": "Ada", "items": [1]},
        {"who": "Ada", "items": ["a", "b", "c", "d"]},
        {"who": "Ada", "items": [], "surprise": 1},
        {"who": "Ada", "items": [], "history": ["text"]},
        {"who": 10**30, "items": []},
    ):
        assert await world.code("tutor", {"variables": wrong}, "/render") == "render-refused"


@pytest.mark.parametrize(
    "variables",
    [
        {"x": {"type": "string", "json_schema": {"maxLength": "long"}}},
        {"x": {"type": "string", "json_schema": {"$ref": "https://example.com/schema.json"}}},
        {"x": {"type": "integer", "required": False, "default": "seven"}},
        {"x": {"type": "integer", "default": 7}},
        {"x": {"type": "string"}, "unused": {"type": "string"}},
    ],
)
async def test_variables_that_make_no_sense_are_refused(world: World, variables: dict[str, Any]) -> None:
    assert await world.code("typed", {"text": "{{ x }}", "variables": variables}) == "template-invalid"


BOMBS = {
    "multiplied": "{{ 'a' * 10**9 }}",
    "folded": "{{ 'a' * 1000000000 }}",
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}",
    "silent loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "recursion": "{% macro again(n) %}{{ again(n) }}{{ again(n) }}{% endmacro %}{{ again(1) }}",
    "padding": "{{ 'a'.center(10**9) }}",
    "format": "{{ '%0999999999d' % 1 }}",
    "format filter": "{{ '%0999999999d'|format(1) }}",
    "power": "{{ 99999 ** 99 ** 99 }}",
    "joined": "{% set x = ['a' * 1000] * 1000 %}{% for i in range(90000) %}{% set y = x|join %}{% endfor %}",
    "escape": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "range": "{{ range(10**9)|list }}",
    "indent": "{{ ('a\\n' * 900000)|indent(900000) }}",
}


@pytest.mark.parametrize("name", BOMBS)
async def test_a_bomb_harms_nobody(world: World, name: str) -> None:
    """It is refused when it is published or when it is rendered, and others render meanwhile."""
    await world.publish("calm", "Hello {{ x }}")
    eve = world.people["eve"]
    assert (await eve.post(at("calm", "/versions"), json={"text": "Hi {{ x }}"})).status_code == 201

    async def explode() -> str:
        made = await world.ada.post(at(f"bomb {name}", "/versions"), json={"text": BOMBS[name]})
        if made.status_code == 201:
            return await world.code(f"bomb {name}", {"variables": {}}, "/render")
        return str(made.json()["code"])

    bomb = asyncio.create_task(explode())
    other = await eve.post(at("calm", "/render"), json={"variables": {"x": "Eve"}})
    assert other.json()["text"] == "Hi Eve"
    assert await bomb in ("template-invalid", "render-refused", "render-too-large")
    after = await world.ada.post(at("calm", "/render"), json={"variables": {"x": "Ada"}})
    assert after.json()["text"] == "Hello Ada"


@pytest.mark.parametrize(
    "text",
    [
        "{% if x %}",
        "{% extends 'y' %}",
        "{% import 'y' as z %}",
        "{% include name %}",
        "{{ x | nofilter }}",
        "{{ 1x }}",
    ],
)
async def test_templates_that_are_none_are_refused_with_their_line(world: World, text: str) -> None:
    answer = await world.ada.post(at("broken", "/versions"), json={"text": f"fine\n{text}"})
    assert (answer.status_code, answer.json()["code"]) == (422, "template-invalid")
    assert "line 2" in answer.json()["detail"]


async def test_labels_are_taken_back_removed_and_seen_as_of_a_time(world: World) -> None:
    for number in (1, 2, 3):
        await world.publish("labelled", f"{number}", labels=["edge"])
    assert (await world.ada.get(at("labelled", "/labels/edge"))).json()["after"] == 3
    back = await world.ada.post(at("labelled", "/labels/edge/rollback"), json={"reason": "complaints"})
    assert (back.json()["before"], back.json()["after"]) == (3, 2)
    removed = await world.ada.delete(at("labelled", "/labels/edge"), headers={"if-match": back.headers["etag"]})
    assert removed.json()["after"] is None
    assert (await world.ada.get(at("labelled", "/labels"))).json() == []
    assert (await world.ada.get(at("labelled"), params={"label": "edge"})).status_code == 404
    then = await world.ada.get(at("labelled", "/labels"), params={"at": back.json()["at"]})
    assert [(move["label"], move["after"]) for move in then.json()] == [("edge", 2)]
    first = await world.publish("once", labels=["edge"])
    assert first["labels"] == ["edge"]
    nothing = await world.ada.post(at("once", "/labels/edge/rollback"), json={"reason": "complaints"})
    assert nothing.json()["code"] == "nothing-before"
    may_not = await world.people["publisher"].post(at("once", "/versions"), json={"text": "x", "labels": ["edge"]})
    assert may_not.status_code == 403 and (await world.ada.get(at("once"))).json()["version"] == 1


async def test_nothing_of_a_workspace_is_seen_from_another_at_any_address(world: World) -> None:
    """Every address of the service that names a prompt; and in SQL, as the service's own role."""
    await world.publish("walled/in", labels=["production"])
    eve, app = world.people["eve"], world.installation.services["prompts"].app
    filled = {"{name}": "walled%2Fin", "{label}": "production", "{proposal_id}": str(new_id()), "{position}": "0-0"}
    bodies: dict[str, dict[str, Any]] = {
        "render": {}, "split": {"arms": {}}, "rollback": {"reason": "x"}, "bindings": {"model": "m", "use_case": "u"},
        "labels/production": {"version": 1}, "merge": {"reason": "x"}, "close": {"reason": "x"},
        "decisions": {"decision": "approved", "reason": "x"}, "revisions": {"text": "x"},
        "evaluate": {"golden_set": {"urn": "mm:dataset/x", "version": 1}, "task": "x"},
    }  # fmt: skip
    tried = 0
    for path, methods in app.openapi()["paths"].items():
        if not ({"{name}", "{proposal_id}"} & set(path.split("/"))):
            continue
        for method in methods:
            if (method, path.rsplit("/", 1)[1]) in (("post", "versions"), ("post", "proposals")):
                continue  # these make a prompt of the caller's own
            address = path
            for name, value in filled.items():
                address = address.replace(name, value)
            body = next((body for end, body in bodies.items() if address.endswith(end)), None)
            query = {"before": 1, "after": 1, "model": "m", "use_case": "u"}
            query = query if address.endswith("diff") or method == "delete" else {}
            sent = body if method in ("post", "put") else None
            answer = await eve.request(method.upper(), address, json=sent, params=query, headers={"if-match": "*"})
            assert answer.status_code == 404, (method, address, answer.text)
            tried += 1
    assert tried >= 20
    connection = await asyncpg.connect(world.installation.dsn("prompts"), server_settings={"search_path": "prompts"})
    try:
        for workspace in ("other", "nobody", ""):
            await connection.execute("SELECT set_config('mintmark.workspace', $1, false)", workspace)
            for table in (*OWNS, "released"):
                query_ = f"SELECT count(*) FROM {table} WHERE workspace = 'default'"
                assert await connection.fetchval(query_) == 0, table
    finally:
        await connection.close()


async def test_a_configuration_of_very_many_keys_is_refused(world: World) -> None:
    async def code(count: int) -> str:
        keys = ",".join(f'"k{number}":{number}' for number in range(count))
        body = f'{{"text":"x","config":{{{keys}}}}}'.encode()
        headers = {"content-type": "application/json"}
        answer = await world.ada.post(at("many keys", "/versions"), content=body, headers=headers)
        return str(answer.json()["code"])

    assert await code(300_000) == "template-invalid"
    assert await code(700_000) == "too-large"
