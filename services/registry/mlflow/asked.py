"""What a request asks: its JSON, or its query where it has no body, read field by field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from services.registry.mlflow.errors import wrong
from shared import strict_json
from shared.errors import Malformed
from shared.identity.principal import Principal

MOST_MEMBERS = 100_000
"""Names and values in one request; a million of them would hold the loop for a second before anybody looked at them."""

_SEE = "See the API docs for more information about request parameters."


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. Fields that are null or absent are not there; a query's values are texts."""

    caller: Principal
    fields: Mapping[str, Any]
    queried: bool = False

    def has(self, name: str) -> bool:
        return self.fields.get(name) is not None

    def text(self, name: str) -> str:
        """A text that must be there. Raises INVALID_PARAMETER_VALUE."""
        value = self.some_text(name)
        if value is None or value == "":
            raise wrong(f"Missing value for required parameter '{name}'. {_SEE}")
        return value

    def some_text(self, name: str) -> str | None:
        value = self._one(name)
        if value is not None and not isinstance(value, str):
            raise self._unfit(name, value)
        return value

    def whole(self, name: str, default: int | None = None) -> int:
        """A whole number; as text, too, since int64 travels so in protobuf's JSON."""
        value = self._one(name)
        if value is None:
            if default is None:
                raise wrong(f"Missing value for required parameter '{name}'. {_SEE}")
            return default
        if isinstance(value, str):
            try:
                value = int(value)
            except ValueError:
                raise self._unfit(name, value) from None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**63:
            raise self._unfit(name, value)
        return value

    def flag(self, name: str) -> bool:
        value = self._one(name)
        if isinstance(value, str) and self.queried:
            return value.lower() == "true"
        if value is not None and not isinstance(value, bool):
            raise self._unfit(name, value)
        return bool(value)

    def texts(self, name: str) -> list[str]:
        found = self.many(name)
        for value in found:
            if not isinstance(value, str):
                raise self._unfit(name, value)
        return found

    def many(self, name: str) -> list[Any]:
        value = self.fields.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._unfit(name, value)
        return value

    def objects(self, name: str) -> list[Asked]:
        """A list of objects, each to be read like the request itself."""
        for value in self.many(name):
            if not isinstance(value, dict):
                raise self._unfit(name, value)
        return [Asked(self.caller, value) for value in self.many(name)]

    def inner(self, name: str) -> Asked:
        """An object within; an empty one where it is absent."""
        value = self.fields.get(name)
        if value is not None and not isinstance(value, dict):
            raise self._unfit(name, value)
        return Asked(self.caller, value or {})

    def pairs(self, name: str = "tags") -> dict[str, str]:
        """`[{"key": …, "value": …}]` as a mapping; of a key that stands twice the last counts."""
        return {pair.text("key"): pair.some_text("value") or "" for pair in self.objects(name)}

    def _one(self, name: str) -> Any:
        value = self.fields.get(name)
        return value[-1] if self.queried and isinstance(value, list) else value

    def _unfit(self, name: str, value: object) -> Exception:
        shown = repr(value)
        shown = shown if len(shown) <= 100 else f"{shown[:100]}…"
        return wrong(
            f"Invalid value {shown} for parameter '{name}' supplied:  Hint: Value was of type "
            f"'{type(value).__name__}'. {_SEE}"
        )


def read(caller: Principal, method: str, query: bytes, body: bytes) -> Asked:
    """The request's fields. Raises INVALID_PARAMETER_VALUE for what is no JSON object."""
    if method == "GET" or (not body and query):
        try:
            found = parse_qs(query.decode("ascii"), keep_blank_values=True, max_num_fields=1000, errors="strict")
        except ValueError:
            raise wrong("the query is not one of up to 1000 fields in UTF-8") from None
        # Repeated fields are written as such (`stages=a&stages=b`), and as `order_by[]` by some.
        return Asked(caller, {name.removesuffix("[]"): values for name, values in found.items()}, queried=True)
    if not body.strip():
        return Asked(caller, {})
    if body.count(b":") > MOST_MEMBERS or body.count(b",") > MOST_MEMBERS:
        raise wrong(f"the request has more than {MOST_MEMBERS:,} names or values")
    try:
        document = strict_json.loads(body)
    except Malformed as error:
        raise wrong(error.message) from None
    if not isinstance(document, dict):
        raise wrong(f"the request must be a JSON object, not {type(document).__name__}")
    return Asked(caller, document)
