"""A question in plain words as a filter and a ranking: by rules, or by a model behind the gateway when one is named.

What was understood is shown with the answer, in the grammar of filters, so that whoever asked can correct it. What a
model says is read by that grammar, too; what does not pass it is dropped for what the rules say.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.registry.search import ordering
from services.registry.search.facts import value_of
from services.registry.search.grammar import parse
from services.registry.search.rules import Rules
from shared.clock import Clock
from shared.db.database import Transaction
from shared.errors import Invalid

log = logging.getLogger(__name__)

ASKED_OF_MODEL = """You turn a question about a catalog of AI assets into a search. Answer with one JSON object:
{"filter": "<filter or empty>", "q": "<words to rank by or empty>", "order_by": "<order or empty>"}.
The filter is SQL-like: = != < <= > >= LIKE ILIKE IN, IS NULL, AND OR NOT and parentheses; texts in single quotes.
Fields: kind (model, vendor-model, retriever, reranker, embedder, prompt, dataset, bundle), name, stage (development,
staging, production, monitoring, retired), task, licence, author, risk (minimal, limited, high, prohibited), alias, gate
(pass, review, reject), approval, version, created, updated (dates like '2026-11-20'), tags.<key>, params.<key>,
metrics.<name>, measures.<name> (measured by an evaluation).
Order: name, version, created, updated, metrics.<name> or measures.<name>, then ASC or DESC. Today is %s.
Known here: tasks %s; licences %s; tags %s; metrics %s; measures %s."""


@dataclass(frozen=True, slots=True)
class Understood:
    """What a question was understood as; `by` is `rules` or the group that said so."""

    filter: str
    q: str
    order_by: str
    mode: str
    by: str


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What is there to be asked about."""

    tasks: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()
    tag_keys: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    measures: tuple[str, ...] = ()


class Phrasing:
    """`queries` are those of this package; `model` asks a group of the gateway."""

    def __init__(self, queries: Any, clock: Clock, model: Model | None = None) -> None:
        self._queries = queries
        self._clock = clock
        self._model = model

    async def vocabulary(self, tx: Transaction) -> Vocabulary:
        """Of the transaction's workspace."""

        async def terms(first: str, last: str) -> list[str]:
            rows = self._queries.terms_between(
                tx.connection, workspace=tx.workspace, first=first, last=last, most=1_000
            )
            return [row["term"] async for row in rows]

        rows = self._queries.number_fields(tx.connection, workspace=tx.workspace)
        fields = [row["field"] async for row in rows]
        return Vocabulary(
            tasks=tuple(value_of(term) for term in await terms("task=", "task>")),
            licences=tuple(value_of(term) for term in await terms("licence=", "licence>")),
            tag_keys=tuple(_key(value_of(term)) for term in await terms('has=tag:"', "has=tag:#")),
            metrics=tuple(_key(field) for field in fields if field.startswith('metric:"')),
            measures=tuple(_key(field) for field in fields if field.startswith('measure:"')),
        )

    async def understand(self, question: str, vocabulary: Vocabulary) -> Understood:
        """By the model, if there is one and what it says can be read; else by the rules."""
        now = self._clock()
        if self._model is not None:
            said = await self._model.ask(question, vocabulary, now)
            if said is not None:
                return said
        found = Rules(vocabulary.tasks, vocabulary.licences, vocabulary.tag_keys, vocabulary.metrics,
                      vocabulary.measures, now).read(question)  # fmt: skip
        return Understood(
            " AND ".join(found.filters), found.words, found.order, "text" if found.order else "hybrid", "rules"
        )


class Model:
    """A group of the gateway that answers `/v1/chat/completions`."""

    def __init__(self, url: str, group: str, key: str | None, timeout_s: float = 10.0) -> None:
        import httpx  # only an installation with such a group needs it

        self._group = group
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout_s)

    async def ask(self, question: str, vocabulary: Vocabulary, now: datetime) -> Understood | None:
        """What the model makes of a question; None where it does not answer, or not in the grammar."""
        import httpx

        system = ASKED_OF_MODEL % (now.date(), *(_some(names) for names in (
            vocabulary.tasks, vocabulary.licences, vocabulary.tag_keys, vocabulary.metrics, vocabulary.measures,
        )))  # fmt: skip
        asked = {
            "model": self._group,
            "temperature": 0,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": question}],
        }
        try:
            answer = await self._client.post("/v1/chat/completions", json=asked)
            answer.raise_for_status()
            said = answer.json()["choices"][0]["message"]["content"]
            return self._checked(said)
        except (httpx.HTTPError, ValueError, KeyError, TypeError, IndexError, Invalid) as error:
            log.info("the rules read a question", extra={"service": "registry", "error": str(error)[:300]})
            return None

    def _checked(self, said: str) -> Understood:
        """Raises ValueError or Invalid for what is no search."""
        found = re.search(r"\{.*\}", said, re.DOTALL)
        document = json.loads(found[0] if found else said)
        texts = [document.get(name) or "" for name in ("filter", "q", "order_by")]
        if not all(isinstance(text, str) and len(text) <= 4_000 for text in texts):
            raise ValueError("filter, q and order_by are texts")
        filter, words, order = texts
        parse(filter)
        ordering.read_order(order)
        return Understood(filter, words[:1_000], order, "text" if order else "hybrid", self._group)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:30]) or "none"


def _key(field: str) -> str:
    """The key of a field like `metric:"auc"`."""
    try:
        return str(json.loads(field.partition(":")[2]))
    except ValueError:
        return field
