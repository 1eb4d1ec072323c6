"""A group's field rules and consent, compiled once for each snapshot and applied to each row before it is rendered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from services.router.gateway.minimisation.keys import GroupKeys
from services.router.gateway.minimisation.masks import mask
from services.router.gateway.rows import Answer
from services.router.group_settings.fields import EVERY, JSON_COLUMNS, Field, Segment, read_field
from services.router.group_settings.rows import Action, Consent, Level, Rows

log = logging.getLogger(__name__)

CONSENT_HEADER: Final = b"x-mintmark-consent"
GONE: Final = object()
"""What a dropped value becomes: its key goes with it; in a list null stays in its place."""

ROUTING: Final = ("route", "gave_way", "failed_over", "drawn", "cache")
"""Tags that say what chose a row's version. They tell of nobody, but for the bucket of a unit."""

LEVELS: Final[Mapping[str, Level]] = {
    "keep": "keep", "yes": "keep", "true": "keep", "1": "keep", "full": "keep", "given": "keep", "granted": "keep",
    "minimise": "minimise", "minimize": "minimise", "minimal": "minimise",
}  # fmt: skip


@dataclass(slots=True)
class Record:
    """What a row is about to keep of a request. JSON columns are UTF-8 text."""

    request_id: str
    unit: str
    trace_id: str
    requester: str | None
    client_request_id: str | None
    features: bytes | None
    input: bytes | None
    output: bytes | None
    shap: bytes | None
    tags: dict[str, Any]
    score: float | None
    prediction: str | None

    @staticmethod
    def of(
        request_id: str,
        unit: str,
        trace_id: str,
        requester: str | None,
        client_request_id: str | None,
        features: bytes | None,
        input: bytes | None,
        tags: dict[str, Any],
        answer: Answer,
    ) -> Record:
        return Record(
            request_id, unit, trace_id, requester, client_request_id, features, input, answer.output, answer.shap, tags,
            answer.score, answer.prediction,
        )  # fmt: skip

    def answer(self, whole: Answer) -> Answer:
        """What the row keeps of an answer; the answer itself goes to the client as it is."""
        return replace(whole, output=self.output, shap=self.shap, score=self.score, prediction=self.prediction)


class Minimiser:
    """Applies one group's rules. `apply` never raises."""

    def __init__(self, rows: Rows, keys: GroupKeys) -> None:
        self._keys = keys
        self._consent = rows.consent
        self._header = rows.consent.header.lower().encode()
        self._flag = None if rows.consent.path is None else read_field(f"input.{rows.consent.path}").path
        self._rules = [(read_field(rule.field), rule.action) for rule in rows.fields]

    @staticmethod
    def of(rows: Rows, keys: GroupKeys) -> Minimiser | None:
        """None where rows are kept as they come; what a request says of its consent is heeded all the same."""
        return Minimiser(rows, keys) if rows.fields or rows.consent != Consent() else None

    def apply(self, record: Record, headers: Mapping[bytes, bytes]) -> int:
        """Make the record smaller, in place. Returns how many rules could not be applied: their fields are gone."""
        document = _Json(record)
        level = self._level(headers, document)
        if level != "keep":
            _withhold(record, level)
            if level == "none":
                return 0
        failed = 0
        raw_unit, tags = record.unit, record.tags
        for field, action in self._rules:
            try:
                self._one(record, document, field, action, raw_unit)
            except Exception as error:  # whatever it is, the row must not be lost by it, nor the field kept
                log.error(
                    "a field rule cannot be applied; the field is dropped",
                    extra={"group": self._keys.group, "column": field.column, "error": repr(error)[:300]},
                )
                failed += 1
                _drop(record, document, field.column)
        document.write()
        if record.tags is not tags:
            _put_back(record.tags, tags)
        return failed

    # -- consent

    def _level(self, headers: Mapping[bytes, bytes], document: _Json) -> Level:
        """The stricter of header and body counts."""
        said = []
        header = headers.get(self._header)
        if header is not None:
            said.append(level_of(header.decode("latin-1")))
        if self._flag is not None:
            try:
                found = _found(document.read("input"), self._flag)
            except ValueError:
                found = []  # no JSON: then nothing of it says anything
            said.extend(level_of(value) for value in found)
        if not said:
            return self._consent.when_absent
        return max(said, key=("keep", "minimise", "none").index)

    # -- field rules

    def _one(self, record: Record, document: _Json, field: Field, action: Action, raw_unit: str) -> None:
        column = field.column
        if column in JSON_COLUMNS:
            change = self._changer(action)
            document.change(column, field.path, change)
            if column == "features":
                document.change_tensors(field.path, change)
                document.hide_shap(field.path)
            return
        value = getattr(record, column)
        if value is None or (column == "unit" and value == record.request_id):
            return
        if action == "drop":
            changed: Any = _nothing(record, column)
        else:
            changed = self._changer(action, stable=True)(value)
        setattr(record, column, changed)
        if column == "unit":
            document.replace("input", raw_unit, GONE if action == "drop" else changed)

    def _changer(self, action: Action, *, stable: bool = False) -> Callable[[Any], Any]:
        if action == "drop":
            return lambda _: GONE
        if action == "mask":
            return lambda value: _on_texts(value, mask)
        if action == "hash":
            return lambda value: _on_leaves(value, self._hashed)
        return lambda value: self._keys.encrypted(value, stable=stable)

    def _hashed(self, value: Any) -> Any:
        """A text's own bytes, so that `ada` has one hash as a unit and inside of JSON; null and nothing else stays."""
        if value is None:
            return None
        return self._keys.hashed(value.encode() if isinstance(value, str) else orjson.dumps(value))


CONSENT_ALONE: Final = Minimiser(Rows(), GroupKeys("", ""))
"""For groups without rules, whose requests may refuse consent all the same."""


def _hide(values: list[Any], places: Sequence[int]) -> None:
    """Null at these places of each innermost list: of a row, or of a row's classes."""
    for one in values:
        if isinstance(one, list) and one and isinstance(one[0], list):
            _hide(one, places)
        elif isinstance(one, list):
            for place in places:
                if place < len(one):
                    one[place] = None


def level_of(value: Any) -> Level:
    """What somebody says of consent. What is not understood is no consent."""
    return LEVELS.get(str(value).strip().lower(), "none")


def _withhold(record: Record, level: Level) -> None:
    """`minimise`: no content; `none`: nobody either. The row says which it was."""
    record.features = record.input = record.output = record.shap = None
    record.score = record.prediction = None
    if level == "none":
        record.unit, record.trace_id = record.request_id, record.request_id.replace("-", "")
        record.requester = record.client_request_id = None
        record.tags = _of_operation(record.tags)
    record.tags = {**record.tags, "consent": level}


def _of_operation(tags: Mapping[str, Any]) -> dict[str, Any]:
    """How the request was routed and which guards tripped: without it figures and guardrail.tripped would be wrong.

    No reason of a guard, which may tell of a text, and no bucket, which tells of the unit.
    """
    kept = {name: _of_routing(name, tags[name]) for name in ROUTING if name in tags}
    if "guards" in tags:
        kept["guards"] = [{name: note[name] for name in ("name", "on", "outcome")} for note in tags["guards"]]
    return kept


def _of_routing(name: str, value: Any) -> Any:
    return {key: one for key, one in value.items() if key != "bucket"} if name == "route" else value


def _put_back(changed: dict[str, Any], tags: Mapping[str, Any]) -> None:
    """Field rules are about what a row tells of somebody: what chose its version is not theirs to hide."""
    for name in ROUTING:
        if name in tags and changed.get(name) != tags[name]:
            changed[name] = _of_routing(name, tags[name])


def _nothing(record: Record, column: str) -> Any:
    """The columns that cannot be null say the request itself."""
    if column == "unit":
        return record.request_id
    return record.request_id.replace("-", "") if column == "trace_id" else None


def _drop(record: Record, document: _Json, column: str) -> None:
    """All of a column; with `features` and `unit` goes `input`, which repeats them."""
    if column in JSON_COLUMNS:
        document.forget(column)
    else:
        setattr(record, column, _nothing(record, column))
    if column in ("features", "unit"):
        document.forget("input")


class _Json:
    """The record's JSON columns, parsed when a rule needs them and written back once if it changed them."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._parsed: dict[str, Any] = {}
        self._changed: set[str] = set()

    def read(self, column: str) -> Any:
        """None where there is nothing. Raises ValueError for what is no JSON."""
        if column not in self._parsed:
            value = getattr(self._record, column)
            # Tags are the exchange's own and may be used after the row: they are copied, not changed.
            self._parsed[column] = orjson.loads(orjson.dumps(value) if column == "tags" else value) if value else None
        return self._parsed[column]

    def change(self, column: str, path: tuple[Segment, ...], change: Callable[[Any], Any]) -> None:
        value = self.read(column)
        if value is not None:
            changed = _changed(value, path, change)
            self._parsed[column] = None if changed is GONE else changed
            self._changed.add(column)

    def change_tensors(self, path: tuple[Segment, ...], change: Callable[[Any], Any]) -> None:
        """A rule of `features` holds for the tensors in `input` that features are made of."""
        value = self.read("input")
        tensors = value.get("inputs") if isinstance(value, dict) else None
        for tensor in tensors if isinstance(tensors, list) else ():
            if isinstance(tensor, dict) and "data" in tensor and (not path or path[0] in (EVERY, tensor.get("name"))):
                changed = change(tensor["data"])
                tensor["data"] = None if changed is GONE else changed
                self._changed.add("input")

    def hide_shap(self, path: tuple[Segment, ...]) -> None:
        """What a feature weighed tells of its value, so that its SHAP values go, whatever the rule makes of itself."""
        value = self.read("shap")
        names = value.get("features") if isinstance(value, dict) else None
        hidden = [place for place, name in enumerate(names or ()) if not path or path[0] in (EVERY, name)]
        if hidden:
            _hide(value["values"], hidden)
            self._changed.add("shap")

    def replace(self, column: str, before: str, after: Any) -> None:
        """Wherever a text of the column is `before`."""
        self.change(column, (), lambda value: _on_texts(value, lambda text: after if text == before else text))

    def forget(self, column: str) -> None:
        self._parsed[column] = None
        self._changed.add(column)

    def write(self) -> None:
        for column in self._changed:
            value = self._parsed[column]
            if column == "tags":
                self._record.tags = value if isinstance(value, dict) else {}
            else:
                setattr(self._record, column, None if value is None else orjson.dumps(value))


def _changed(value: Any, path: tuple[Segment, ...], change: Callable[[Any], Any]) -> Any:
    """`value` with what the path leads to changed, in place; a path that leads nowhere changes nothing."""
    if not path:
        return change(value)
    if isinstance(value, dict):
        for key in list(value) if path[0] is EVERY else [path[0]] if path[0] in value else []:
            changed = _changed(value[key], path[1:], change)
            if changed is GONE:
                del value[key]
            else:
                value[key] = changed
    elif isinstance(value, list):
        whole = range(len(value))
        for place in whole if path[0] is EVERY else [path[0]] if path[0] in whole else []:
            assert isinstance(place, int)
            changed = _changed(value[place], path[1:], change)
            value[place] = None if changed is GONE else changed
    return value


def _found(value: Any, path: tuple[Segment, ...]) -> list[Any]:
    """The values that a path leads to."""
    found: list[Any] = []

    def keep(one: Any) -> Any:
        found.append(one)
        return one

    if value is not None:
        _changed(value, path, keep)
    return found


def _on_leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {key: _on_leaves(one, change) for key, one in value.items()}
    if isinstance(value, list):
        return [_on_leaves(one, change) for one in value]
    return change(value)


def _on_texts(value: Any, change: Callable[[str], Any]) -> Any:
    """Texts that become GONE are null where they stood."""

    def one(leaf: Any) -> Any:
        changed = change(leaf) if isinstance(leaf, str) else leaf
        return None if changed is GONE else changed

    return _on_leaves(value, one)
