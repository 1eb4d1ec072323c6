"""A prompt's artefact and a golden row in, the messages that a model is sent out: word for word what the prompts
service renders for the same values (tests/contracts/test_rendering.py holds both to the same cases).

The artefact is what the prompts service registered: the content as it was written, and where it includes other
prompts also `resolved_text` or `resolved_messages`, with the locked versions put in.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

# jsonschema builds a grammar of IRIs for `format`, which nothing here checks; where it is installed that takes 2 s.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

import jsonschema  # noqa: E402
from jinja2 import StrictUndefined, Template, TemplateError  # noqa: E402
from jinja2.exceptions import SecurityError  # noqa: E402
from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: E402

from services.evaluator.errors import EvaluationError, PromptUnreadable, RenderRefused, RenderTooLarge  # noqa: E402
from shared import strict_json  # noqa: E402

MOST_CHARACTERS = 1_000_000
"""Of one rendered prompt, all messages together."""
LARGEST_BITS = 4096
EXAMPLES = "examples"
PLACE = re.compile(r"\{\{([^{}]*)\}\}")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class Sandbox(ImmutableSandboxedEnvironment):
    """jinja2's sandbox, whose operators make nothing huge and are not folded while a template is compiled."""

    intercepted_binops = frozenset(("*", "**", "%"))

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, keep_trailing_newline=True, finalize=_shown)
        for name in ("lipsum", "cycler", "joiner", "namespace"):
            self.globals.pop(name, None)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            _check_product(left, right)
        elif operator == "**" and not (_up_to(left, 10**6) and _up_to(right, 100)):
            raise SecurityError("** is for small numbers here")
        elif operator == "%" and isinstance(left, str):
            raise SecurityError("% formats no text here; write the text out")
        return super().call_binop(context, operator, left, right)


def _check_product(left: Any, right: Any) -> None:
    for one, times in ((left, right), (right, left)):
        repeats = isinstance(one, str | bytes | list | tuple) and isinstance(times, int)
        if repeats and len(one) * times > MOST_CHARACTERS:
            raise SecurityError(f"a text or list times {times} is larger than {MOST_CHARACTERS}")
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > LARGEST_BITS:
        raise SecurityError("the number is too large")


def _up_to(value: Any, most: int) -> bool:
    return isinstance(value, int | float) and abs(value) <= most


def _shown(value: Any) -> Any:
    return "" if value is None else value


class Prompt:
    """One registered prompt, ready to be rendered many times. `read` makes one."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._plain = document.get("syntax", "jinja") == "plain"
        self._text: str | None = document.get("resolved_text", document.get("text"))
        self._turns: list[dict[str, Any]] = document.get("resolved_messages", document.get("messages")) or []
        self._examples: list[dict[str, str]] = document.get("examples") or []
        self.variables: dict[str, dict[str, Any]] = document.get("variables") or {}
        self._schemas = {name: jsonschema.Draft202012Validator(_schema(one)) for name, one in self.variables.items()}
        self._compiled = lru_cache(maxsize=200)(Sandbox().from_string)

    @classmethod
    def read(cls, content: bytes) -> Prompt:
        """Raises PromptUnreadable."""
        try:
            document = strict_json.loads(content)
            _check(document)
            return cls(document)
        except (EvaluationError, MemoryError, RecursionError):
            raise
        except Exception as error:  # whoever may submit may submit anything
            raise PromptUnreadable() from error

    @property
    def required(self) -> list[str]:
        """Names of the variables that must have a value."""
        return [name for name, one in self.variables.items() if one.get("required", True)]

    def messages(self, given: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
        """What a model is sent; a text is one message of the user's. Raises RenderRefused or RenderTooLarge."""
        left = [MOST_CHARACTERS]
        try:
            filled = self._filled(given)
            if self._text is not None:
                text = self._rendered(self._text, {EXAMPLES: self._examples, **filled}, left)
                return ({"role": "user", "content": text},)
            return tuple(self._conversation(filled, left))
        except TemplateError as error:
            raise RenderRefused(str(error.message)[:300]) from None
        except (EvaluationError, MemoryError, RecursionError):
            raise
        except Exception as error:  # a stranger's program may raise anything
            raise RenderRefused(f"{type(error).__name__}: {error}"[:300]) from None

    def _filled(self, given: Mapping[str, Any]) -> dict[str, Any]:
        missing = sorted(name for name in self.required if name not in given)
        if missing:
            raise RenderRefused(f"these variables need a value: {', '.join(missing[:5])}")
        for name, value in given.items():
            wrong = next(self._schemas[name].iter_errors(value), None)
            if wrong is not None:
                raise RenderRefused(f"variable {name}: {wrong.message[:300]}")
        return {name: given.get(name, one.get("default")) for name, one in self.variables.items()}

    def _conversation(self, filled: dict[str, Any], left: list[int]) -> Iterator[dict[str, Any]]:
        """Examples go where the role `examples` stands, else before the first turn that is no instruction."""
        shots = [
            {"role": role, "content": content}
            for one in self._examples
            for role, content in (("user", one["input"]), ("assistant", one["output"]))
        ]
        has_place = any(turn.get("role") == EXAMPLES for turn in self._turns)
        for turn in self._turns:
            if turn.get("type") == "placeholder":
                yield from _given_messages(turn["name"], filled[turn["name"]] or [])
                continue
            if turn["role"] == EXAMPLES or (not has_place and turn["role"] not in ("system", "developer")):
                yield from shots
                shots = []
            if turn["role"] != EXAMPLES:
                yield {"role": turn["role"], "content": self._rendered(turn["content"], filled, left)}

    def _rendered(self, text: str, filled: Mapping[str, Any], left: list[int]) -> str:
        """`left` holds how many characters the whole prompt may still have."""
        if self._plain or _reads_alike(text):
            parts: Iterator[str] = iter([PLACE.sub(lambda found: _value(found, filled), text)])
        else:
            template: Template = self._compiled(text)
            parts = template.generate(filled)
        kept = []
        for part in parts:
            left[0] -= len(part)
            if left[0] < 0:
                raise RenderTooLarge(f"the rendered prompt is longer than {MOST_CHARACTERS} characters")
            kept.append(part)
        return "".join(kept)


def _value(found: re.Match[str], filled: Mapping[str, Any]) -> str:
    name = found[1].strip()
    return str(_shown(filled[name])) if name in filled else found[0]


def _reads_alike(text: str) -> bool:
    """True where nothing but `{{name}}` has a meaning in a text; jinja need not compile it then."""
    return "{%" not in text and "{#" not in text and all(NAME.fullmatch(one.strip()) for one in PLACE.findall(text))


def _given_messages(name: str, given: Any) -> Iterator[dict[str, Any]]:
    for one in given:
        if not isinstance(one, dict) or not isinstance(one.get("role"), str) or "content" not in one:
            raise RenderRefused(f"placeholder {name} takes messages with role and content")
        yield one


def _check(document: Any) -> None:
    """Raises PromptUnreadable for what no prompts service registered: whoever may submit may submit anything."""
    turns = document.get("resolved_messages", document.get("messages")) or []
    text = document.get("resolved_text", document.get("text"))
    variables = document.get("variables") or {}
    shots = document.get("examples") or []
    whole = (
        (isinstance(text, str) or bool(turns))
        and all(isinstance(turn.get(part), str) for turn in turns for part in _parts(turn))
        and all(isinstance(one["input"], str) and isinstance(one["output"], str) for one in shots)
    )
    if not whole:
        raise PromptUnreadable()
    for one in variables.values():
        try:
            jsonschema.Draft202012Validator.check_schema(_schema(one))
        except jsonschema.SchemaError as error:
            raise PromptUnreadable(f"a variable's JSON Schema is none: {error.message[:200]}") from None
        if _refers(one):
            # It would be fetched from wherever it says.
            raise PromptUnreadable("a variable's JSON Schema refers elsewhere; write it out")


def _parts(turn: Mapping[str, Any]) -> tuple[str, ...]:
    if turn.get("type") == "placeholder":
        return ("name",)
    return ("role",) if turn.get("role") == EXAMPLES else ("role", "content")


def _schema(declared: Mapping[str, Any]) -> dict[str, Any]:
    return {**declared.get("json_schema", {}), "type": declared.get("type", "string")}


def _refers(schema: Any) -> bool:
    if isinstance(schema, dict):
        return any(key in ("$ref", "$dynamicRef") or _refers(value) for key, value in schema.items())
    return isinstance(schema, list) and any(map(_refers, schema))
