"""Curves, matrices and importances, told by their shape and their names, in one typed form. Pure."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from services.registry.foreign.figures import number
from services.registry.foreign.vocabulary import snake

MOST_POINTS = 20_000
ChartType = Literal[
    "roc_curve", "precision_recall_curve", "calibration_curve", "learning_curve", "confusion_matrix",
    "feature_importance", "line",
]  # fmt: skip
X_NAMES = (
    "fpr", "false_positive_rate", "false_positive_rates", "recall", "recalls", "prob_pred", "mean_predicted_value",
    "x", "epoch", "epochs", "step", "steps", "iteration", "iterations", "iter", "threshold", "thresholds", "time", "t",
)  # fmt: skip
KINDS: tuple[tuple[ChartType, frozenset[str], frozenset[str]], ...] = (
    ("roc_curve", frozenset({"fpr", "false_positive_rate", "false_positive_rates"}),
     frozenset({"tpr", "true_positive_rate", "true_positive_rates"})),
    ("precision_recall_curve", frozenset({"recall", "recalls"}), frozenset({"precision", "precisions"})),
    ("calibration_curve", frozenset({"prob_pred", "mean_predicted_value"}),
     frozenset({"prob_true", "fraction_of_positives"})),
)  # fmt: skip
LEARNING = frozenset({"epoch", "epochs", "step", "steps", "iteration", "iterations", "iter"})
FEATURE = ("feature", "name", "column", "variable")
WEIGHT = ("importance", "value", "score", "weight", "gain", "shap")


class Series(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str
    values: tuple[float | None, ...]


class Chart(BaseModel):
    """A curve has `x` and `series` of one length; a matrix `labels` and `rows`; importances `labels` and one series."""

    model_config = ConfigDict(frozen=True)

    type: ChartType
    x: Series | None = None
    series: tuple[Series, ...] = ()
    labels: tuple[str, ...] = ()
    rows: tuple[tuple[float, ...], ...] = ()


def recognise(key: str, value: Any) -> Chart | None:
    """The chart that a value is, seen its key; None where it is none."""
    name = snake(key)
    if "confusion" in name and (found := _matrix(value)):
        return found
    if "importance" in name and (found := _importance(value)):
        return found
    if isinstance(value, dict):
        return _of_columns(name, value)
    if isinstance(value, list):
        return _of_points(name, value)
    return None


def table(value: Any) -> Chart | None:
    """Columns of one length as a line, the first of them its x: where somebody says that it is a chart."""
    columns = _columns(value) if isinstance(value, dict) else None
    return _with_x("line", columns, next(iter(columns))) if columns and len(columns) > 1 else None


def _floats(value: Any) -> tuple[float | None, ...] | None:
    """A list of numbers, where some may be missing."""
    if not isinstance(value, list) or not 2 <= len(value) <= MOST_POINTS:
        return None
    found = [None if item is None else number(item) for item in value]
    if any(one is None and item is not None for one, item in zip(found, value, strict=True)):
        return None
    return tuple(None if one is None else one[0] for one in found)


def _columns(value: dict[str, Any]) -> dict[str, tuple[float | None, ...]] | None:
    """An object's lists of numbers, where all of its lists are that and of one length."""
    lists = {snake(key): _floats(inner) for key, inner in value.items() if isinstance(inner, list)}
    columns = {key: found for key, found in lists.items() if found is not None}
    if not columns or len(columns) != len(lists) or len({len(found) for found in columns.values()}) != 1:
        return None
    return columns


def _of_columns(name: str, value: dict[str, Any]) -> Chart | None:
    columns = _columns(value)
    return _curve(name, columns) if columns else None


def _of_points(name: str, value: list[Any]) -> Chart | None:
    if len(value) < 2 or len(value) > MOST_POINTS:
        return None
    if all(isinstance(item, dict) for item in value):
        keys = [snake(key) for key in value[0]]
        if not any(key in X_NAMES for key in keys) or any([snake(key) for key in item] != keys for item in value):
            return None
        columns = {key: _floats([list(item.values())[index] for item in value]) for index, key in enumerate(keys)}
        known = {key: found for key, found in columns.items() if found is not None}
        return _curve(name, known) if len(known) == len(columns) > 1 else None
    if all(isinstance(item, list) and len(item) == 2 for item in value):
        x, y = _floats([item[0] for item in value]), _floats([item[1] for item in value])
        return _curve(name, {"x": x, "y": y}) if x and y else None
    return None


def _curve(name: str, columns: dict[str, tuple[float | None, ...]]) -> Chart | None:
    names = set(columns)
    for kind, xs, ys in KINDS:
        if names & xs and names & ys:
            return _with_x(kind, columns, next(key for key in columns if key in xs))
    x = next((key for key in X_NAMES if key in columns), None)
    if x is not None and len(columns) > 1:
        return _with_x("learning_curve" if x in LEARNING else _type_of(name), columns, x)
    if "history" in name or "curve" in name or "loss" in name:
        series = tuple(Series(name=key, values=found) for key, found in columns.items())
        steps = tuple(float(step) for step in range(1, len(series[0].values) + 1))
        return Chart(type="learning_curve", x=Series(name="step", values=steps), series=series)
    return None


def _type_of(name: str) -> ChartType:
    if "roc" in name.split("_") or "operating_characteristic" in name:
        return "roc_curve"
    if "precision_recall" in name or name.startswith("pr_"):
        return "precision_recall_curve"
    if "calibration" in name or "reliability" in name:
        return "calibration_curve"
    return "learning_curve" if "learning" in name or "loss" in name or "history" in name else "line"


def _with_x(kind: ChartType, columns: dict[str, tuple[float | None, ...]], x: str) -> Chart:
    series = tuple(Series(name=key, values=values) for key, values in columns.items() if key != x)
    return Chart(type=kind, x=Series(name=x, values=columns[x]), series=series)


def _matrix(value: Any) -> Chart | None:
    labels: list[str] | None = None
    if isinstance(value, dict):
        inner = next(
            (value[key] for key in value if snake(key) in ("matrix", "values", "data", "rows", "counts")), None
        )
        if inner is not None:
            named = next((value[key] for key in value if snake(key) in ("labels", "classes", "class_names")), None)
            labels = [str(label) for label in named] if isinstance(named, list) else None
            value = inner
        elif all(isinstance(row, dict) and set(row) == set(value) for row in value.values()):
            labels, value = list(value), [[row[key] for key in value] for row in value.values()]
    if not isinstance(value, list) or not 2 <= len(value) <= 1000:
        return None
    rows = []
    for row in value:
        found = _floats(row)
        if found is None or len(found) != len(value) or any(one is None for one in found):
            return None
        rows.append(tuple(one for one in found if one is not None))
    if labels is None or len(labels) != len(rows):
        labels = [str(index) for index in range(len(rows))]
    return Chart(type="confusion_matrix", labels=tuple(labels), rows=tuple(rows))


def _importance(value: Any) -> Chart | None:
    pairs: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        columns = {snake(key): inner for key, inner in value.items()}
        names = next((columns[key] for key in ("features", "names", "columns", "labels") if key in columns), None)
        weights = next((columns[key] for key in ("importances", "values", "scores", "weights") if key in columns), None)
        if isinstance(names, list) and isinstance(weights, list) and len(names) == len(weights):
            pairs = list(zip(names, weights, strict=True))
        else:
            pairs = list(value.items())
    elif isinstance(value, list) and all(isinstance(item, dict) for item in value):
        for item in value:
            keys = {snake(key): inner for key, inner in item.items()}
            name = next((keys[key] for key in FEATURE if key in keys), None)
            pairs.append((name, next((keys[key] for key in WEIGHT if key in keys), None)))
    elif isinstance(value, list) and all(isinstance(item, list) and len(item) == 2 for item in value):
        pairs = [(item[0], item[1]) for item in value]
    found = [(name, number(weight)) for name, weight in pairs]
    if not found or any(not isinstance(name, str) or weight is None for name, weight in found):
        return None
    weights_found = tuple(weight[0] for _, weight in found if weight is not None)
    series = (Series(name="importance", values=weights_found),)
    return Chart(type="feature_importance", labels=tuple(str(name) for name, _ in found), series=series)
