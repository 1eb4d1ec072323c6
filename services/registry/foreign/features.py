"""Features and outputs: lists of names, of objects, tables of columns and types, MLflow's signature in a text. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.registry.foreign import charts
from services.registry.foreign.document import Pointer
from services.registry.foreign.reading import BY_NAME, IN_PLACE, Reading, because, first, keys_of, some
from shared import strict_json
from shared.errors import MintmarkError

TYPES = ("type", "dtype", "datatype", "data_type")
KINDS = ("numeric", "numerical", "categorical", "continuous", "boolean", "text")


def tensors(group: str) -> Callable[[Reading, Any, Pointer], bool]:
    def read_tensors(reading: Reading, value: Any, at: Pointer) -> bool:
        what = "what goes in" if group == "inputs" else "what comes out"
        if isinstance(value, str):
            return _from_text(reading, value, at, group)
        if isinstance(value, list):
            return some(_tensor(reading, item, (*at, str(index)), group, what) for index, item in enumerate(value))
        if not isinstance(value, dict) or charts.recognise(at[-1], value) is not None:
            return False
        keys = keys_of(value)
        names = first(keys, ("names", "columns", "features", "feature_names"))
        if names is not None and isinstance(value[names], list):
            return _columns(reading, value, names, at, group, what)
        if any(isinstance(value.get(keys.get(kind, "")), list) for kind in KINDS):
            return some(
                reading.add(f"{group}.{name}", kind, (*at, key, str(index)), because(at, what), IN_PLACE)
                for kind, key in keys.items()
                if isinstance(value[key], list)
                for index, name in enumerate(value[key])
                if isinstance(name, str)
            )
        made = False
        for key, inner in value.items():
            here = (*at, key)
            if isinstance(inner, dict):
                kind = first(keys_of(inner), TYPES)
                said, where = (inner[kind], (*here, kind)) if kind is not None else ("", here)
                made |= reading.add(f"{group}.{key}", said, where, because(at, what), IN_PLACE)
            elif isinstance(inner, str):
                made |= reading.add(f"{group}.{key}", inner, here, because(at, what), IN_PLACE)
        return made

    return read_tensors


def _tensor(reading: Reading, item: Any, at: Pointer, group: str, what: str) -> bool:
    reason = f"`{at[-2][:80]}` lists {what}"
    if isinstance(item, str) and item:
        return reading.add(f"{group}.{item[:200]}", "", at, reason, IN_PLACE)
    if not isinstance(item, dict):
        return False
    keys = keys_of(item)
    name = first(keys, ("name", "feature", "column", "column_name", "field", "id"))
    kind = first(keys, (*TYPES, "kind"))
    spec = item.get("tensor-spec")
    if isinstance(spec, dict) and "dtype" in spec:  # MLflow's tensors
        return reading.add(
            f"{group}.{item.get('name') or at[-1]}", spec["dtype"], (*at, "tensor-spec"), reason, IN_PLACE
        )
    if name is None or not isinstance(item[name], str):
        return False
    said = item[kind] if kind is not None and isinstance(item[kind], str) else ""
    if not reading.add(f"{group}.{item[name][:200]}", said, at, reason, BY_NAME):
        return False
    reading.claimed.discard(at)
    reading.claimed |= {(*at, key) for key in (name, kind) if key is not None}
    return True


def _columns(reading: Reading, value: Any, names: str, at: Pointer, group: str, what: str) -> bool:
    kinds = first(keys_of(value), ("dtypes", "types", "data_types", "column_types"))
    types = value[kinds] if kinds is not None else None
    made = False
    for index, name in enumerate(value[names]):
        if isinstance(name, str):
            said = types[index] if isinstance(types, list) and index < len(types) else ""
            said = types.get(name, "") if isinstance(types, dict) else said
            claims = [(*at, kinds, str(index) if isinstance(types, list) else name)] if said and kinds else []
            made |= reading.add(f"{group}.{name}", said, (*at, names, str(index)), because(at, what), BY_NAME, *claims)
    return made


def _from_text(reading: Reading, value: str, at: Pointer, group: str) -> bool:
    """MLflow keeps its signature as JSON in a text."""
    try:
        items = strict_json.loads(value)
    except MintmarkError:
        return False
    made = False
    for index, item in enumerate(items if isinstance(items, list) else []):
        if isinstance(item, dict):
            spec = item.get("tensor-spec")
            kind = spec.get("dtype", "") if isinstance(spec, dict) else item.get("type", "")
            name = item.get("name") or f"{group[:-1]}-{index}"
            made |= reading.add(f"{group}.{name}", kind, at, f"`{at[-1]}` holds the signature as JSON", IN_PLACE)
    return made
