"""What MLflow takes as a name, a tag, an alias, a metric: the same here, so that no client meets a surprise."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping

from services.registry.mlflow.errors import wrong
from shared.events.names import LONGEST_TITLE

LONGEST_KEY = 250
LONGEST_TAG = 100_000
LONGEST_DESCRIPTION = 10_000
STAGES = {"none": "development", "staging": "staging", "production": "production", "archived": "retired"}
SHOWN = {"development": "None", "staging": "Staging", "production": "Production"}

_KEY = re.compile(r"[/\w.\- :]*")
_ALIAS = re.compile(r"[\w\-]+")


def model_name(name: str, parameter: str = "name") -> str:
    """The name of a registered model, which becomes the asset's title."""
    if not name.strip():
        raise wrong(f"Missing value for required parameter '{parameter}'.")
    if "/" in name or ":" in name:
        raise wrong(f"Invalid model name '{name[:200]}'. Names cannot contain '/' or ':'.")
    _no_path(parameter, name)
    return _without_nul(parameter, name, LONGEST_TITLE)


def key(name: str, parameter: str = "key", most: int = LONGEST_KEY) -> str:
    """The key of a tag, a parameter or a metric."""
    if not _KEY.fullmatch(name):
        raise wrong(
            f"Invalid value \"{name[:200]}\" for parameter '{parameter}' supplied: Names may only contain "
            "alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), colon(:) and slashes (/)."
        )
    _no_path(parameter, name)
    return _without_nul(parameter, name, most)


def tags(found: Mapping[str, str], longest: int = LONGEST_TAG) -> Mapping[str, str]:
    for name, value in found.items():
        key(name)
        _without_nul("value", value, longest)
    return found


def alias(name: str, *, reserved: bool = True) -> str:
    """An alias; with `reserved`, one that may be set."""
    if not _ALIAS.fullmatch(name):
        raise wrong(
            f"Invalid alias name: '{name[:200]}'. Names may only contain alphanumerics, underscores and dashes."
        )
    if reserved and (name.lower() == "latest" or re.fullmatch(r"[vV]\d+", name)):
        raise wrong(f"Alias name '{name[:100]}' is reserved.")
    return _without_nul("alias", name, 255)


def description(text: str | None) -> str:
    return _without_nul("description", text or "", LONGEST_DESCRIPTION)


def version(text: str) -> int:
    """A version's number, which travels as text."""
    if not re.fullmatch(r"\s*[+-]?\d{1,18}\s*", text):
        raise wrong(f"Parameter 'version' must be an integer, got '{text[:100]}'.")
    return int(text)


def stage(text: str) -> str:
    """Our stage for one of MLflow's, in any case."""
    found = STAGES.get(text.lower())
    if found is None:
        raise wrong(
            f"Invalid Model Version stage: {text[:100]}. Value must be one of None, Staging, Production, Archived."
        )
    return found


def stage_shown(ours: str) -> str:
    """MLflow's word for our stage: what has left production is Archived, monitored or retired."""
    return SHOWN.get(ours, "Archived")


def _no_path(parameter: str, name: str) -> None:
    norm = posixpath.normpath(name)
    if norm != name or norm == "." or norm.startswith(("..", "/")):
        raise wrong(
            f"Invalid value \"{name[:200]}\" for parameter '{parameter}' supplied: Names may be treated as files in "
            f"certain cases, and must not resolve to other names when treated as such. It would be {norm[:200]!r}"
        )


def _without_nul(parameter: str, text: str, most: int) -> str:
    if len(text) > most:
        raise wrong(f"'{parameter}' exceeds the maximum length of {most} characters")
    if "\x00" in text:
        raise wrong(f"'{parameter}' holds a NUL character, which nothing here takes")
    return text
