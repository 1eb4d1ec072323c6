"""What a rendering process does with one job: read a template's variables, or fill them in. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jsonschema
from jinja2 import StrictUndefined, TemplateError, meta, nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from services.prompts.domain.places import EXAMPLES, NAME, PLACE, places, reads_alike

MAX_OUTPUT = 1_000_000
"""Characters of one rendered prompt, all messages together."""

FORBIDDEN = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends, nodes.Block)


class Refused(Exception):
    """A job that cannot be done; `code` is one of this service's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Sandbox(ImmutableSandboxedEnvironment):
    """jinja2's sandbox, in which multiplication makes nothing huge. What else is huge ends with its process.

    Operators that are intercepted are not folded while a template is compiled either.
    """

    intercepted_binops = frozenset(("*", "**", "%"))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and not (_is_small(left, 10**6) and _is_small(right, 100)):
            raise SecurityError("** is for small numbers here")
        if operator == "*":
            for one, times in ((left, right), (right, left)):
                repeats = isinstance(one, str | bytes | list | tuple) and isinstance(times, int)
                if repeats and len(one) * times > MAX_OUTPUT:
                    raise SecurityError(f"a text or list times {times} is larger than {MAX_OUTPUT}")
            if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > 4096:
                raise SecurityError("the number is too large")
        if operator == "%" and isinstance(left, str):
            raise SecurityError("% formats no text here; write the text out")
        return super().call_binop(context, operator, left, right)


def _is_small(value: Any, most: int) -> bool:
    return isinstance(value, int | float) and abs(value) <= most


def _shown(value: Any) -> Any:
    return "" if value is None else value


def environment() -> Sandbox:
    made = Sandbox(undefined=StrictUndefined, keep_trailing_newline=True, finalize=_shown)
    for name in ("lipsum", "cycler", "joiner", "namespace"):
        made.globals.pop(name, None)
    return made


def analyse(syntax: str, texts: Iterable[str], schemas: dict[str, Any]) -> list[str]:
    """Names of the variables that the texts use, sorted. Raises Refused with what is wrong and where."""
    for name, declared in schemas.items():
        _check_schema(name, declared)
    used: set[str] = set()
    for text in texts:
        used |= set(places(text)) if syntax == "plain" or reads_alike(text) else _jinja_variables(text)
    return sorted(used)


def _jinja_variables(text: str) -> set[str]:
    for found in PLACE.findall(text):
        if found.strip() and not found.strip()[0].isascii():
            raise Refused("template-invalid", f"{{{{{found[:60]}}}}} is no variable; a name has letters, digits and _")
    made = environment()
    try:
        tree = made.parse(text)
        for node in tree.find_all(FORBIDDEN):
            what = type(node).__name__.lower()
            raise Refused(
                "template-invalid",
                f'line {node.lineno}: {what} is not for prompts; {{% include "name" version=1 %}} includes a prompt',
            )
        _check_names(made, tree)
        names = meta.find_undeclared_variables(tree) - set(made.globals)
    except TemplateSyntaxError as error:
        raise Refused("template-invalid", f"line {error.lineno}: {error.message}") from None
    except TemplateError as error:
        raise Refused("template-invalid", str(error.message)[:300]) from None
    for name in names:
        if not NAME.fullmatch(name):
            raise Refused("template-invalid", f"{name[:60]} is no variable; a name has letters, digits and _")
    return names


def _check_names(made: Sandbox, tree: nodes.Template) -> None:
    """Filters and tests that are not there; jinja says so only when it compiles, which is ten times this work."""
    for kind, known, what in ((nodes.Filter, made.filters, "filter"), (nodes.Test, made.tests, "test")):
        for node in tree.find_all(kind):
            if node.name not in known:
                raise Refused("template-invalid", f"line {node.lineno}: there is no {what} {node.name[:60]!r}")


def _schema(declared: dict[str, Any]) -> dict[str, Any]:
    return {**declared.get("json_schema", {}), "type": declared["type"]}


def _check_schema(name: str, declared: dict[str, Any]) -> None:
    schema = _schema(declared)
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise Refused("template-invalid", f"variable {name}: its schema is none: {error.message[:200]}") from None
    if _has_reference(schema):
        raise Refused("template-invalid", f"variable {name}: its schema refers elsewhere; write it out")
    if declared.get("default") is not None:
        if declared.get("required", True):
            raise Refused("template-invalid", f"variable {name} has a default, so it is not required; say so")
        _check_value(name, declared, declared["default"], "template-invalid")


def _has_reference(schema: Any) -> bool:
    if isinstance(schema, dict):
        return any(key in ("$ref", "$dynamicRef") or _has_reference(value) for key, value in schema.items())
    return isinstance(schema, list) and any(map(_has_reference, schema))


def _check_value(name: str, declared: dict[str, Any], value: Any, code: str) -> None:
    wrong = next(jsonschema.Draft202012Validator(_schema(declared)).iter_errors(value), None)
    if wrong is not None:
        where = "".join(f"[{part!r}]" for part in wrong.absolute_path)
        raise Refused(code, f"variable {name}{where}: {wrong.message[:300]}")


def values(declared: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Every variable's value, checked. Raises Refused."""
    unknown = sorted(set(given) - set(declared))
    if unknown:
        raise Refused("render-refused", f"the prompt has no variable {', '.join(unknown[:5])}")
    missing = sorted(name for name, one in declared.items() if one.get("required", True) and name not in given)
    if missing:
        raise Refused("render-refused", f"these variables need a value: {', '.join(missing[:5])}")
    for name, value in given.items():
        _check_value(name, declared[name], value, "render-refused")
    return {name: given.get(name, one.get("default")) for name, one in declared.items()}


class Renderer:
    """Renders the texts of one prompt; what they come to together is bounded."""

    def __init__(self, syntax: str, filled: dict[str, Any]) -> None:
        self._plain = syntax == "plain"
        self._filled = filled
        self._environment = environment()
        self._left = MAX_OUTPUT

    def text(self, text: str) -> str:
        if self._plain or reads_alike(text):  # a hundred times as fast as compiling it
            return self._bounded(PLACE.sub(self._value, text))
        try:
            parts = []
            for part in self._environment.from_string(text).generate(self._filled):
                parts.append(self._bounded(part))
            return "".join(parts)
        except TemplateError as error:
            raise Refused("render-refused", str(error.message)[:300]) from None

    def _value(self, match: Any) -> str:
        name = match[1].strip()
        if name not in self._filled:
            return str(match[0])
        value = self._filled[name]
        return str(_shown(value))

    def _bounded(self, part: str) -> str:
        self._left -= len(part)
        if self._left < 0:
            raise Refused("render-too-large", f"the rendered prompt is longer than {MAX_OUTPUT} characters")
        return part


def render(document: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """A version's `{"text"}` or `{"messages"}` with its variables filled in. Raises Refused."""
    filled = values(document.get("variables", {}), given)
    examples = document.get("examples", [])
    text = document.get("resolved_text", document.get("text"))
    try:
        if text is not None:
            return {"text": Renderer(document.get("syntax", "jinja"), {EXAMPLES: examples, **filled}).text(text)}
        turns = document.get("resolved_messages", document.get("messages", ()))
        return {"messages": list(_messages(turns, examples, Renderer(document.get("syntax", "jinja"), filled), filled))}
    except (TypeError, ValueError, ArithmeticError, KeyError, AttributeError) as error:
        raise Refused("render-refused", f"{type(error).__name__}: {error}"[:300]) from None
    except (MemoryError, RecursionError) as error:
        raise Refused("render-too-large", f"rendering needs too much memory ({type(error).__name__})") from None


def _messages(turns: Any, examples: Any, renderer: Renderer, filled: dict[str, Any]) -> Iterable[dict[str, Any]]:
    shots = [turn for one in examples for turn in (("user", one["input"]), ("assistant", one["output"]))]
    has_place = any(turn.get("role") == "examples" for turn in turns)
    for turn in turns:
        if turn.get("type") == "placeholder":
            yield from _given_messages(turn["name"], filled[turn["name"]] or [])
            continue
        if turn["role"] == "examples" or (shots and not has_place and turn["role"] not in ("system", "developer")):
            yield from ({"role": role, "content": content} for role, content in shots)
            shots = []
        if turn["role"] != "examples":
            yield {"role": turn["role"], "content": renderer.text(turn["content"])}


def _given_messages(name: str, given: Any) -> Iterable[dict[str, Any]]:
    for one in given:
        if not isinstance(one, dict) or not isinstance(one.get("role"), str) or "content" not in one:
            raise Refused("render-refused", f"placeholder {name} takes messages with role and content")
        yield one
