"""Langfuse's released SDK, unmodified, against the prompts service: it finds here what it expects of a server."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from langfuse import Langfuse
from langfuse.api.commons.errors.access_denied_error import AccessDeniedError
from langfuse.api.commons.errors.error import Error
from langfuse.api.commons.errors.method_not_allowed_error import MethodNotAllowedError
from langfuse.api.commons.errors.not_found_error import NotFoundError
from langfuse.api.commons.errors.unauthorized_error import UnauthorizedError

from shared.testing.backing import Backing
from shared.testing.installation import Installation

pytestmark = pytest.mark.timeout(180)
CHAT = [{"role": "system", "content": "You are {{who}}."}, {"role": "user", "content": "{{question}}"}]


@dataclass
class Server:
    """The service as a process of its own, and clients of several people."""

    url: str
    keys: dict[str, str]
    clients: dict[str, Langfuse] = field(default_factory=dict)

    def client(self, who: str) -> Langfuse:
        if who not in self.clients:
            key = self.keys[who]
            self.clients[who] = Langfuse(
                public_key=key.rpartition("_")[0], secret_key=key, base_url=f"{self.url}/prompts", timeout=20
            )
        return self.clients[who]

    @property
    def it(self) -> Langfuse:
        return self.client("ada")

    def own(self, method: str, path: str, **arguments: Any) -> Any:
        """A call to our own API."""
        headers = {"authorization": f"Bearer {self.keys['ada']}", **arguments.pop("headers", {})}
        answer = httpx.request(method, f"{self.url}/prompts/v1{path}", headers=headers, timeout=20, **arguments)
        answer.raise_for_status()
        return answer.json()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = asyncio.run(Installation(Backing.of_run(), tmp_path_factory.mktemp("langfuse") / "installation").prepare())
    keys = {
        "ada": made.key("user:ada", "owner"),
        "viewer": made.key("user:viewer", "viewer"),
        "publisher": made.key("user:pub", "publisher"),
        "eve": made.key("user:eve", "owner", workspace="other"),
    }
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "services", "prompts", "--port", str(port)]
    process = subprocess.Popen(command, env={**os.environ, **made.environment()})
    it = Server(f"http://127.0.0.1:{port}", keys)
    try:
        _until_ready(it.url)
        yield it
    finally:
        for client in it.clients.values():
            client.shutdown()
        process.terminate()
        process.wait(30)
        asyncio.run(made.close())


def _until_ready(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "the service did not become ready"
        time.sleep(0.05)


CHECKS: dict[str, Callable[[Server], None]] = {}


def check(function: Callable[[Server], None]) -> Callable[[Server], None]:
    CHECKS[function.__name__] = function
    return function


def text(server: Server, name: str, prompt: str = "Hello {{name}}", **more: Any) -> Any:
    return server.it.create_prompt(name=name, prompt=prompt, **{"labels": ["production"], **more})


@check
def a_text_prompt_comes_back_as_it_was_made(server: Server) -> None:
    made = text(server, "greeting", config={"model": "gpt", "temperature": 0.2}, tags=["b", "a"], commit_message="one")
    got = server.it.get_prompt("greeting")
    assert got == made
    assert (got.name, got.version, got.prompt, got.type if hasattr(got, "type") else "text") == (
        "greeting", 1, "Hello {{name}}", "text",
    )  # fmt: skip
    assert got.config == {"model": "gpt", "temperature": 0.2} and got.tags == ["b", "a"]
    assert got.commit_message == "one" and sorted(got.labels) == ["latest", "production"]


@check
def a_text_prompt_compiles(server: Server) -> None:
    text(server, "compiled")
    got = server.it.get_prompt("compiled")
    assert got.compile(name="Ada") == "Hello Ada" and got.variables == ["name"]


@check
def a_chat_prompt_comes_back_and_compiles(server: Server) -> None:
    server.it.create_prompt(name="chatty", prompt=CHAT, type="chat", labels=["production"])
    got = server.it.get_prompt("chatty", type="chat")
    assert got.compile(who="Bob", question="Why?") == [
        {"role": "system", "content": "You are Bob."},
        {"role": "user", "content": "Why?"},
    ]


@check
def placeholders_of_a_chat_are_filled(server: Server) -> None:
    prompt = [*CHAT[:1], {"type": "placeholder", "name": "history"}, *CHAT[1:]]
    server.it.create_prompt(name="with history", prompt=prompt, type="chat", labels=["production"])
    got = server.it.get_prompt("with history", type="chat")
    history = [{"role": "assistant", "content": "Earlier."}]
    assert got.compile(who="B", question="?", history=history)[1] == history[0]
    assert [message["type"] for message in got.prompt] == ["message", "placeholder", "message"]


@check
def versions_count_from_one_and_latest_follows(server: Server) -> None:
    assert [text(server, "counted", f"v{number}").version for number in (1, 2, 3)] == [1, 2, 3]
    assert server.it.get_prompt("counted", label="latest").prompt == "v3"


@check
def a_version_is_got_by_its_number(server: Server) -> None:
    text(server, "numbered", "one")
    text(server, "numbered", "two")
    assert server.it.get_prompt("numbered", version=1).prompt == "one"
    assert server.it.get_prompt("numbered", version=1).labels == []


@check
def without_a_label_production_is_got_and_not_the_newest(server: Server) -> None:
    text(server, "released", "old")
    text(server, "released", "new", labels=[])
    assert server.it.get_prompt("released").prompt == "old"


@check
def a_prompt_without_production_is_not_found_without_a_label(server: Server) -> None:
    text(server, "unreleased", labels=["staging"])
    with pytest.raises(NotFoundError) as refused:
        server.it.get_prompt("unreleased", max_retries=0)
    assert refused.value.body["error"] == "LangfuseNotFoundError"


@check
def a_label_of_ones_own_is_got(server: Server) -> None:
    text(server, "tenanted", "for A", labels=["tenant-a"])
    assert server.it.get_prompt("tenanted", label="tenant-a").prompt == "for A"


@check
def making_a_version_moves_the_label_to_it(server: Server) -> None:
    text(server, "moved", "one")
    text(server, "moved", "two")
    assert server.it.get_prompt("moved", cache_ttl_seconds=0).version == 2
    assert "production" not in server.it.get_prompt("moved", version=1).labels


@check
def new_labels_are_added(server: Server) -> None:
    text(server, "relabelled", "one", labels=["staging"])
    updated = server.it.update_prompt(name="relabelled", version=1, new_labels=["production", "canary"])
    assert sorted(updated.labels) == ["canary", "latest", "production", "staging"]


@check
def a_new_label_leaves_the_version_that_had_it(server: Server) -> None:
    text(server, "handed over", "one")
    text(server, "handed over", "two", labels=[])
    server.it.update_prompt(name="handed over", version=2, new_labels=["production"])
    assert server.it.get_prompt("handed over", cache_ttl_seconds=0).prompt == "two"
    assert server.it.get_prompt("handed over", version=1, cache_ttl_seconds=0).labels == []


@check
def a_label_goes_back_to_an_older_version(server: Server) -> None:
    text(server, "rolled back", "one")
    text(server, "rolled back", "two")
    server.it.update_prompt(name="rolled back", version=1, new_labels=["production"])
    assert server.it.get_prompt("rolled back", cache_ttl_seconds=0).prompt == "one"


@check
def no_new_label_changes_nothing(server: Server) -> None:
    text(server, "untouched")
    assert sorted(server.it.update_prompt(name="untouched", version=1, new_labels=[]).labels) == [
        "latest",
        "production",
    ]


@check
def latest_cannot_be_given(server: Server) -> None:
    text(server, "latest one")
    with pytest.raises(Error):
        server.it.update_prompt(name="latest one", version=1, new_labels=["latest"])


@check
def labels_of_a_version_that_is_not_there(server: Server) -> None:
    text(server, "short")
    with pytest.raises(NotFoundError):
        server.it.update_prompt(name="short", version=9, new_labels=["x"])


@check
def labels_of_a_prompt_that_is_not_there(server: Server) -> None:
    with pytest.raises(NotFoundError):
        server.it.update_prompt(name="nobody", version=1, new_labels=["x"])


@check
def labels_have_a_form(server: Server) -> None:
    with pytest.raises(Error) as refused:
        text(server, "bad label", labels=["Not A Label"])
    assert refused.value.body["error"] == "InvalidRequestError"


@check
def folders_are_part_of_the_name(server: Server) -> None:
    text(server, "team/sub/summarise", "in a folder")
    got = server.it.get_prompt("team/sub/summarise")
    assert (got.name, got.prompt) == ("team/sub/summarise", "in a folder")
    server.it.update_prompt(name="team/sub/summarise", version=1, new_labels=["staging"])
    assert server.it.get_prompt("team/sub/summarise", label="staging").version == 1


def _named(name: str) -> None:
    def named(server: Server) -> None:
        text(server, name, "odd")
        assert server.it.get_prompt(name).name == name
        server.it.update_prompt(name=name, version=1, new_labels=["x"])
        assert server.it.get_prompt(name, label="x").prompt == "odd"

    CHECKS[f"a name like {name[:20]}"] = named


for _name in ("With Space", "Ünïcode 📝", "50%", "a?b#c", "CASE", "x" * 255, "a%2Fb", "versions/1", "a/versions/2"):
    _named(_name)


@check
def names_that_differ_in_case_are_two_prompts(server: Server) -> None:
    text(server, "Twins", "upper")
    text(server, "twins", "lower")
    assert (server.it.get_prompt("Twins").prompt, server.it.get_prompt("twins").prompt) == ("upper", "lower")


@check
def text_that_is_no_template_stays_as_it_is(server: Server) -> None:
    odd = '{% if %} {{ user name }} {{}} {# x #} {"json": {"a": 1}} {{{triple}}} @@@ @@@langfusePrompt'
    text(server, "odd text", odd)
    assert server.it.get_prompt("odd text").prompt == odd


@check
def composition_by_version_is_resolved(server: Server) -> None:
    text(server, "part", "be kind to {{who}}")
    text(server, "composed", "Please @@@langfusePrompt:name=part|version=1@@@.")
    assert server.it.get_prompt("composed").compile(who="cats") == "Please be kind to cats."


@check
def composition_by_label_is_resolved_in_a_chat(server: Server) -> None:
    text(server, "rules/base", "No jokes.")
    chat = [{"role": "system", "content": "@@@langfusePrompt:name=rules/base|label=production@@@"}]
    server.it.create_prompt(name="composed chat", prompt=chat, type="chat", labels=["production"])
    assert server.it.get_prompt("composed chat", type="chat").compile()[0]["content"] == "No jokes."


@check
def composition_can_be_left_unresolved(server: Server) -> None:
    text(server, "raw part", "part")
    text(server, "raw", "@@@langfusePrompt:name=raw part|version=1@@@")
    raw = server.it.api.prompts.get("raw", resolve=False)
    assert raw.prompt == "@@@langfusePrompt:name=raw part|version=1@@@" and raw.resolution_graph is None
    graph = server.it.api.prompts.get("raw").resolution_graph
    assert graph["root"]["name"] == "raw" and [one["name"] for one in graph["dependencies"][graph["root"]["id"]]] == [
        "raw part"
    ]


@check
def composition_of_what_is_not_there_is_refused(server: Server) -> None:
    with pytest.raises(Error) as refused:
        text(server, "dangling", "@@@langfusePrompt:name=not there|version=1@@@")
    assert "not there" in refused.value.body["message"]


@check
def composition_in_a_circle_is_refused(server: Server) -> None:
    text(server, "circle", "first")
    with pytest.raises(Error) as refused:
        text(server, "circle", "@@@langfusePrompt:name=circle|label=production@@@")
    assert "circle → circle@1" in refused.value.body["message"]


@check
def tags_belong_to_all_versions(server: Server) -> None:
    text(server, "tagged", tags=["one"])
    text(server, "tagged", tags=["two", "three"])
    assert server.it.get_prompt("tagged", version=1).tags == ["two", "three"]


@check
def tags_stay_without_new_ones(server: Server) -> None:
    text(server, "kept tags", tags=["one"])
    text(server, "kept tags")
    assert server.it.get_prompt("kept tags").tags == ["one"]


@check
def prompts_are_listed(server: Server) -> None:
    text(server, "listed", "a", tags=["shelf"], config={"k": 1})
    text(server, "listed", "b", labels=["staging"])
    (found,) = server.it.api.prompts.list(name="listed").data
    assert (found.name, found.versions, sorted(found.labels), found.tags) == (
        "listed", [1, 2], ["latest", "production", "staging"], ["shelf"],
    )  # fmt: skip
    assert found.last_config == {} and found.type.value == "text"


@check
def the_list_is_narrowed_by_label(server: Server) -> None:
    text(server, "by label", "a", labels=["only-here"])
    text(server, "by label", "b", labels=[])
    (found,) = server.it.api.prompts.list(label="only-here").data
    assert (found.name, found.versions) == ("by label", [1])


@check
def the_list_is_narrowed_by_tag(server: Server) -> None:
    text(server, "by tag", tags=["rare"])
    assert [one.name for one in server.it.api.prompts.list(tag="rare").data] == ["by tag"]
    assert server.it.api.prompts.list(tag="nowhere").data == []


@check
def the_list_comes_in_pages(server: Server) -> None:
    for number in range(3):
        text(server, f"paged/{number}", tags=["paged"])
    first = server.it.api.prompts.list(tag="paged", limit=2)
    rest = server.it.api.prompts.list(tag="paged", limit=2, page=2)
    assert [one.name for one in first.data + rest.data] == ["paged/0", "paged/1", "paged/2"]
    assert (first.meta.total_items, first.meta.total_pages) == (3, 2)
    beyond = server.it.api.prompts.list(tag="paged", limit=2, page=9)
    assert beyond.data == [] and beyond.meta.total_items == 3


@check
def the_list_is_narrowed_by_time(server: Server) -> None:
    from datetime import UTC, datetime, timedelta

    text(server, "dated")
    soon = datetime.now(UTC) + timedelta(hours=1)
    assert server.it.api.prompts.list(name="dated", from_updated_at=soon).data == []
    assert len(server.it.api.prompts.list(name="dated", to_updated_at=soon).data) == 1


@check
def a_prompt_is_not_fetched_again_while_it_is_cached(server: Server) -> None:
    text(server, "cached", "one")
    server.it.get_prompt("cached")
    server.own("POST", "/prompts/cached/versions", json={"text": "two", "labels": ["production"]})
    assert server.it.get_prompt("cached").prompt == "one"
    assert server.it.get_prompt("cached", cache_ttl_seconds=0).prompt == "two"


@check
def a_new_version_of_ones_own_empties_the_cache(server: Server) -> None:
    text(server, "invalidated", "one")
    server.it.get_prompt("invalidated")
    text(server, "invalidated", "two")
    assert server.it.get_prompt("invalidated").prompt == "two"


@check
def new_labels_empty_the_cache(server: Server) -> None:
    text(server, "label cache", "one")
    text(server, "label cache", "two", labels=[])
    server.it.get_prompt("label cache")
    server.it.update_prompt(name="label cache", version=2, new_labels=["production"])
    assert server.it.get_prompt("label cache").prompt == "two"


@check
def a_stale_prompt_is_given_and_refreshed(server: Server) -> None:
    text(server, "stale", "one")
    server.it.get_prompt("stale", cache_ttl_seconds=1)
    server.own("POST", "/prompts/stale/versions", json={"text": "two", "labels": ["production"]})
    deadline = time.monotonic() + 20
    while server.it.get_prompt("stale", cache_ttl_seconds=1).prompt != "two":
        assert time.monotonic() < deadline
        time.sleep(0.05)


@check
def a_fallback_is_given_for_what_is_not_there(server: Server) -> None:
    got = server.it.get_prompt("not there", fallback="Hi {{name}}", max_retries=0)
    assert got.is_fallback and got.compile(name="you") == "Hi you"


@check
def a_chat_fallback_is_given(server: Server) -> None:
    got = server.it.get_prompt("not there", type="chat", fallback=CHAT, max_retries=0)
    assert got.is_fallback and got.compile(who="x", question="y")[0]["content"] == "You are x."


@check
def a_fallback_is_given_when_nobody_answers(server: Server) -> None:
    key = server.keys["viewer"]
    away = Langfuse(public_key="pk-away", secret_key=key, base_url="http://127.0.0.1:9/prompts", timeout=1)
    try:
        assert away.get_prompt("greeting", fallback="offline", max_retries=0).prompt == "offline"
    finally:
        away.shutdown()


@check
def a_name_that_nobody_has_is_not_found(server: Server) -> None:
    with pytest.raises(NotFoundError):
        server.it.get_prompt("no such prompt", max_retries=0)


@check
def a_version_that_is_not_there_is_not_found(server: Server) -> None:
    text(server, "one version")
    with pytest.raises(NotFoundError):
        server.it.get_prompt("one version", version=7, max_retries=0)


@check
def version_and_label_together_are_refused(server: Server) -> None:
    text(server, "either")
    with pytest.raises(Error):
        server.it.api.prompts.get("either", version=1, label="production")


@check
def a_text_sent_as_a_chat_is_refused(server: Server) -> None:
    body = {"name": "mixed", "type": "chat", "prompt": "text"}
    answer = httpx.post(f"{server.url}/prompts/api/public/v2/prompts", json=body, auth=_basic(server, "ada"))
    assert (answer.status_code, answer.json()["error"]) == (400, "InvalidRequestError")


@check
def a_role_that_nobody_knows_is_refused(server: Server) -> None:
    with pytest.raises(Error):
        server.it.create_prompt(name="wizard", prompt=[{"role": "wizard", "content": "x"}], type="chat")


@check
def the_wrong_key_is_refused(server: Server) -> None:
    wrong = Langfuse(public_key="pk-wrong", secret_key="mmk_wrong", base_url=f"{server.url}/prompts")
    try:
        with pytest.raises(UnauthorizedError):
            wrong.api.prompts.get("greeting")
    finally:
        wrong.shutdown()


@check
def who_may_only_read_makes_nothing(server: Server) -> None:
    with pytest.raises(AccessDeniedError) as refused:
        server.client("viewer").create_prompt(name="not allowed", prompt="x")
    assert refused.value.body["error"] == "ForbiddenError"


@check
def who_may_only_read_reads(server: Server) -> None:
    text(server, "readable")
    assert server.client("viewer").get_prompt("readable").prompt == "Hello {{name}}"


@check
def who_may_publish_but_not_move_gives_no_label(server: Server) -> None:
    publisher = server.client("publisher")
    assert publisher.create_prompt(name="draft", prompt="x").labels == ["latest"]
    with pytest.raises(AccessDeniedError):
        publisher.create_prompt(name="draft", prompt="y", labels=["production"])
    assert server.it.get_prompt("draft", label="latest").prompt == "x"


@check
def another_workspace_sees_nothing(server: Server) -> None:
    text(server, "ours", "secret")
    eve = server.client("eve")
    with pytest.raises(NotFoundError):
        eve.get_prompt("ours", max_retries=0)
    with pytest.raises(NotFoundError):
        eve.update_prompt(name="ours", version=1, new_labels=["x"])
    assert "ours" not in [one.name for one in eve.api.prompts.list(limit=100).data]
    eve.create_prompt(name="ours", prompt="eve's", labels=["production"])
    assert (eve.get_prompt("ours").prompt, server.it.get_prompt("ours").prompt) == ("eve's", "secret")


@check
def nothing_is_deleted(server: Server) -> None:
    text(server, "undeletable")
    with pytest.raises(MethodNotAllowedError):
        server.it.api.prompts.delete("undeletable")
    assert server.it.get_prompt("undeletable", cache_ttl_seconds=0).version == 1
    with pytest.raises(NotFoundError):
        server.it.api.prompts.delete("never there")


@check
def the_credentials_are_checked(server: Server) -> None:
    assert server.it.auth_check() is True


@check
def its_health_is_asked(server: Server) -> None:
    assert server.it.api.health.health().status == "OK"


@check
def traces_are_taken_without_an_error(server: Server) -> None:
    with server.it.start_as_current_observation(name="answer", as_type="generation") as span:
        span.update(output="x", prompt=text(server, "traced"))
    server.it.flush()
    answer = httpx.post(
        f"{server.url}/prompts/api/public/otel/v1/traces", content=b"", auth=_basic(server, "ada"), timeout=20
    )
    assert answer.status_code == 200 and b"traces are not kept here" in answer.content


@check
def scores_are_taken_without_an_error_of_the_callers(server: Server) -> None:
    server.it.create_score(name="quality", value=1.0, trace_id="0" * 32)
    server.it.flush()
    body = {"batch": [{"id": "one", "type": "score-create", "body": {}}]}
    answer = httpx.post(f"{server.url}/prompts/api/public/ingestion", json=body, auth=_basic(server, "ada"))
    assert answer.status_code == 207 and [one["id"] for one in answer.json()["errors"]] == ["one"]


@check
def what_is_not_supported_says_so(server: Server) -> None:
    with pytest.raises(NotFoundError) as refused:
        server.it.api.datasets.get("golden")
    assert "not answered here" in refused.value.body["message"]


@check
def a_jinja_prompt_of_ours_is_got(server: Server) -> None:
    text_ = "{% if formal %}Dear{% else %}Hi{% endif %} {{ name }}"
    server.own("POST", "/prompts/jinja/versions", json={"text": text_, "labels": ["production"]})
    assert server.it.get_prompt("jinja").prompt == text_


@check
def a_prompt_of_theirs_is_rendered_by_ours(server: Server) -> None:
    text(server, "rendered", "Hello {{ name }} {% raw")
    answer = server.own("POST", "/prompts/rendered/render", json={"variables": {"name": "Ada"}})
    assert answer["text"] == "Hello Ada {% raw"


@check
def two_clients_at_once_make_numbers_without_a_gap(server: Server) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: text(server, "raced", f"text {number}").version, range(16)))
    assert sorted(made) == list(range(1, 17))


def _basic(server: Server, who: str) -> httpx.BasicAuth:
    return httpx.BasicAuth(server.keys[who].rpartition("_")[0], server.keys[who])


@pytest.mark.parametrize("name", CHECKS)
def test_the_released_client_finds_what_it_expects(server: Server, name: str) -> None:
    CHECKS[name](server)


def test_there_are_enough_checks() -> None:
    assert len(CHECKS) >= 60
