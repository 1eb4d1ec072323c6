"""`python -m services.router.gateway.guardrails.worker`: looks for what it is asked on stdin, until that ends.

A question and an answer are JSON behind four bytes of length, one at a time. What a guard needs (Presidio, a schema) is
made at its first question and kept. The process holds no keys, no connections and no state of a request.
"""

from __future__ import annotations

import sys
from dataclasses import astuple
from importlib import import_module
from struct import Struct
from typing import Any, BinaryIO

import orjson

from services.router.gateway.guardrails.checks import CHECKS

LENGTH = Struct(">I")


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """`{"tripped", "reason", "spans", "score"}`, or `{"error"}`."""
    try:
        found = CHECKS[question["kind"]](question["texts"], question["asked"])
    except Exception as error:  # whatever it is, the guard has failed and its declaration decides
        return {"error": f"{type(error).__name__}: {error}"[:500]}
    return {
        "tripped": found.tripped,
        "reason": found.reason,
        "spans": [astuple(span) for span in found.spans],
        "score": found.score,
    }


def serve(questions: BinaryIO, answers: BinaryIO) -> None:
    while len(head := questions.read(LENGTH.size)) == LENGTH.size:
        said = orjson.dumps(answer(orjson.loads(questions.read(LENGTH.unpack(head)[0]))))
        answers.write(LENGTH.pack(len(said)) + said)
        answers.flush()


if __name__ == "__main__":
    # jsonschema builds a grammar of IRIs for `format`, which nothing here checks; where it is installed that takes 2 s.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    import_module("services.router.gateway.guardrails.schemas")  # now, and not while somebody waits for a guard
    serve(sys.stdin.buffer, sys.stdout.buffer)
