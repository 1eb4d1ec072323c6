"""YAML and JSON that strangers wrote: read with a safe loader, and no further than a model's description needs."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

from mintmark.importers.found import SourceFailed

MOST_BYTES = 1024 * 1024
MOST_NODES = 20_000
DEEPEST = 30


def document(path: Path) -> dict[str, Any]:
    """The object in a .json, .yaml or .yml file. Raises SourceFailed."""
    text = read_text(path)
    if path.suffix == ".json":
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SourceFailed(f"{path.name} is no JSON: {str(error)[:200]}") from None
    else:
        found = from_yaml(text, path.name)
    if not isinstance(found, dict):
        raise SourceFailed(f"{path.name} holds no object")
    cleaned: dict[str, Any] = plain(found)
    return cleaned


def read_text(path: Path) -> str:
    """A text file of bounded size. Raises SourceFailed."""
    if path.stat().st_size > MOST_BYTES:
        raise SourceFailed(f"{path.name} has more than {MOST_BYTES} bytes")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise SourceFailed(f"{path.name} is not UTF-8") from None


def from_yaml(text: str, name: str) -> Any:
    """The value of a YAML text. Raises SourceFailed for what is none, and for aliases, with which bombs are built."""
    import yaml

    depth = nodes = 0
    try:
        # Events come one by one, whatever the text would grow to: it is looked through before anything is built.
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            nodes += 1
            if isinstance(event, yaml.AliasEvent):
                raise SourceFailed(f"{name} uses a YAML alias (*…); write the value out")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > DEEPEST or nodes > MOST_NODES:
                raise SourceFailed(f"{name} is deeper than {DEEPEST} or has more than {MOST_NODES} values")
        return yaml.safe_load(text)
    except SourceFailed:
        raise
    except Exception as error:  # PyYAML's constructors raise KeyError, IndexError and AttributeError, too
        raise SourceFailed(f"{name} is no YAML: {' '.join(str(error).split())[:200]}") from None


def plain(value: Any, depth: int = DEEPEST) -> Any:
    """As JSON has it: keys are texts, dates are written out."""
    if depth == 0:
        raise SourceFailed(f"values are nested deeper than {DEEPEST}")
    if isinstance(value, dict):
        return {str(key): plain(one, depth - 1) for key, one in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(one, depth - 1) for one in value]
    if isinstance(value, date):
        return value.isoformat()
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def text_of(value: Any, most: int = 500) -> str | None:
    """A text, where it is one and not empty."""
    return value.strip()[:most] or None if isinstance(value, str) else None


def texts_of(value: Any, most: int = 50) -> list[str]:
    """A text or a list of texts, as a list without doubles."""
    found = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return list(dict.fromkeys(text for one in found if (text := text_of(one))))[:most]


def number_of(value: Any) -> float | None:
    """A finite number, also one that is written as a text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) != float("inf") and number == number else None
