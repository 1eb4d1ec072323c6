"""Prompts of a Langfuse server, by its public API: every version with labels, config, tags and commit message."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from mintmark.importers.found import FoundAsset, FoundVersion, SourceFailed, Wanted, without_nothing
from mintmark.importers.remote import Remote, listed, pages
from mintmark.importers.running import environment

API = "/api/public/v2/prompts"
LATEST = "latest"
A_PAGE = 100
INCLUDED = re.compile(r"@@@langfusePrompt:[^@]{0,200}?name=([^|@]{1,500})[|@]")


class Langfuse:
    """Keys are LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY."""

    kind = "langfuse"
    path = "/prompts/v1/imports"

    def __init__(self, url: str, *, name: str | None = None, timeout_s: float = 30) -> None:
        public, secret = environment("LANGFUSE_PUBLIC_KEY"), environment("LANGFUSE_SECRET_KEY")
        if not public or not secret:
            raise ValueError("set LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY")
        self._remote = Remote(url, headers={}, auth=(public, secret), timeout_s=timeout_s)
        self.name = name or self._remote.name
        self._count: int | None = None

    def count(self) -> int | None:
        return self._count

    def assets(self, wanted: Wanted) -> Iterator[FoundAsset]:
        """Prompts that others include come before those."""
        prompts = [one for one in self._listed() if wanted(str(one.get("name", "")))]
        self._count = len(prompts)
        found = {str(one["name"]): self._asset(str(one["name"]), one) for one in prompts}
        done: set[str] = set()
        for name in sorted(found):
            yield from _in_order(name, found, done)

    def _listed(self) -> Iterator[dict[str, Any]]:
        def ask(token: str | None) -> tuple[list[dict[str, Any]], str | None]:
            page = int(token or "1")
            answer = self._remote.ask("GET", API, params={"page": page, "limit": A_PAGE})
            entries = listed(answer, "data")
            meta = answer.get("meta")
            last = meta.get("totalPages") if isinstance(meta, dict) else None
            more = entries and isinstance(last, int) and page < last
            return entries, str(page + 1) if more else None

        return pages(ask)

    def _asset(self, name: str, said: dict[str, Any]) -> FoundAsset:
        numbers = said.get("versions")
        if not name or not isinstance(numbers, list) or not all(isinstance(one, int) for one in numbers):
            raise SourceFailed(f"the list of prompts says nothing of the versions of {name[:100]!r}")
        versions, labels = [], {}
        for number in sorted(set(numbers)):
            query = {"version": number, "resolve": "false"}
            one = self._remote.ask("GET", f"{API}/{quote(name, safe='')}", params=query)
            if one.get("name") != name or one.get("version") != number:
                raise SourceFailed(f"asked for version {number} of {name[:100]!r}, the answer is about another one")
            versions.append(FoundVersion(_version(name, number, one)))
            labels.update({str(label): number for label in one.get("labels") or () if label != LATEST})
        document = {"id": f"prompt:{name}", "kind": "prompt", "title": name, "tags": said.get("tags") or []}
        return FoundAsset(document | {"labels": labels}, versions)


def _version(name: str, number: int, said: dict[str, Any]) -> dict[str, Any]:
    return without_nothing(
        {
            "id": f"prompt:{name}/{number}",
            "number": number,
            "type": said.get("type"),
            "config": said.get("config") or {},
            "commit_message": said.get("commitMessage"),
            "author": said.get("createdBy"),
            "published_at": said.get("createdAt"),
        }
    ) | {"prompt": said.get("prompt")}


def _in_order(name: str, found: dict[str, FoundAsset], done: set[str]) -> Iterator[FoundAsset]:
    """A prompt after those that it includes; where they include each other, as they come."""
    waiting = [(name, iter(sorted(_included(found[name]))))] if name not in done else []
    done.add(name)
    while waiting:
        here, below = waiting[-1]
        following = next((one for one in below if one in found and one not in done), None)
        if following is None:
            waiting.pop()
            yield found[here]
        else:
            done.add(following)
            waiting.append((following, iter(sorted(_included(found[following])))))


def _included(asset: FoundAsset) -> set[str]:
    return {name for version in asset.versions for name in INCLUDED.findall(str(version.document["prompt"]))}
