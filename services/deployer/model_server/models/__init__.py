"""What every model format offers the server, and the table of the formats.

A new format is one module with a `load(manifest, data) -> Model` and one line in `FORMATS`, in `models/table.py`.
Arrays are float64; n rows, f features, k classes (multiclass only).
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shared.errors import Invalid, Refused

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


class ModelRefused(Refused):
    """The file is signed but cannot be served; the message says why and what to do."""

    code = "model-refused"


class InputRefused(Invalid):
    """The model itself does not take these values."""

    code = "input-refused"


@dataclass(frozen=True, slots=True)
class Scores:
    """`score` is the probability ([n], or [n, k]) or the value ([n]); `label` is the index of the class, [n]."""

    score: Floats
    label: Indices | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """SHAP values: `base + values.sum(axis=-1) == raw`, where raw is what the model adds up before any link function.

    values [n, f], base [n], raw [n]; for multiclass [n, k, f], [n, k], [n, k].
    """

    values: Floats
    base: Floats
    raw: Floats


@dataclass(frozen=True, slots=True)
class Explainer:
    """How a model's predictions are explained: the method's name and the space that the values add up in."""

    method: str
    space: str


class Model(Protocol):
    explainer: Explainer | str
    """The explainer, or the sentence that says why there is none."""

    def predict(self, rows: Floats) -> Scores:
        """Scores of rows [n, f]; NaN is missing. Raises InputRefused. Blocks."""

    def explain(self, rows: Floats) -> Explanation:
        """Called only when there is an explainer. Raises InputRefused. Blocks."""


def labels_of(score: Floats) -> Indices:
    """The most probable class; a tie goes to the lower index, as in scikit-learn."""
    if score.ndim == 1:
        return (score > 0.5).astype(np.int64)
    return np.asarray(score.argmax(axis=1), dtype=np.int64)
