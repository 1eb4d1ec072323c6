"""The one shape that every loaded model has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.evaluator.domain import Floats, Task
from services.evaluator.errors import FeaturesUnknown, TaskMismatch

Predict = Callable[[Floats], Floats]


@dataclass(frozen=True, slots=True)
class Model:
    """A model ready to predict.

    `predict` takes [n, len(features)] (NaN = missing) and gives [n, len(classes)] probabilities, or [n, 1] predictions
    of a regression. It is not checked here: whoever calls it checks what comes back. `classes` are names of labels, as
    `domain.class_name` makes them.
    """

    format: str
    task: Task
    features: tuple[str, ...]
    classes: tuple[str, ...]
    predict: Predict


def settled_features(own: Sequence[str] | None, given: Sequence[str] | None, width: int | None) -> tuple[str, ...]:
    """The model's own feature names, else the given ones, held against its number of inputs where that is known."""
    names = tuple(own or given or ())
    if not names:
        raise FeaturesUnknown()
    if width is not None and len(names) != width:
        raise FeaturesUnknown(
            f"{len(names)} feature names for a model of {width} inputs; name each input once, in order"
        )
    return names


def held_to(task: Task | None, own: Task) -> Task:
    """The model's own task; raises TaskMismatch when another one was asked for."""
    if task is not None and task != own:
        raise TaskMismatch(f"the model does {own}, not {task}; submit it with its true task")
    return own
