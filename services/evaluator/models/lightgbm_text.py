"""LightGBM's text format, checked before the library sees it.

LightGBM 4.7.0 trusts its model files: a truncated one ends the process (SIGABRT), a child index out of range crashes it
(SIGSEGV), a node that is its own child never returns. So the trees are walked here first; 100 trees take 8 ms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import repeat

import lightgbm as lgb
import numpy as np

from services.evaluator.domain import Floats, Task
from services.evaluator.errors import ModelRefused
from services.evaluator.models.model import Model, held_to, settled_features

CLASSIFIERS = ("binary", "cross_entropy", "multiclass", "multiclassova")
LEAF_ARRAYS = ("leaf_value", "leaf_weight", "leaf_count")
NODE_ARRAYS = ("split_gain", "threshold", "internal_value", "internal_weight", "internal_count")
REGRESSORS = ("regression", "regression_l1", "huber", "fair", "poisson", "quantile", "mape", "gamma", "tweedie")


def load(data: bytes, features: Sequence[str] | None, task: Task | None) -> Model:
    """The booster in LightGBM's text format. The text names features and objective; classes are 0, 1, … by position."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ModelRefused("this is not LightGBM's text format; save the booster with save_model") from None
    header = checked(text)
    names = header.get("feature_names", "").split()
    objective = header.get("objective", "").split(" ")[0]
    if objective not in CLASSIFIERS + REGRESSORS:
        raise ModelRefused(
            f"the LightGBM objective {objective[:40]!r} is neither a known classification nor regression;"
            f" use one of {', '.join(CLASSIFIERS + REGRESSORS)}"
        )
    own: Task = "classification" if objective in CLASSIFIERS else "regression"
    held_to(task, own)
    try:
        booster = lgb.Booster(model_str=text)
    except lgb.basic.LightGBMError as error:
        raise ModelRefused(f"LightGBM cannot load the model: {str(error)[:200]}") from error
    classes = max(int(header.get("num_class", "1")), 2) if own == "classification" else 0

    def predict(rows: Floats) -> Floats:
        # One thread: a figure for latency means the same on every machine, and workers share the cores anyway.
        out = np.asarray(booster.predict(rows, num_threads=1), dtype=np.float64)
        if own == "classification" and out.ndim == 1:
            return np.column_stack([1.0 - out, out])
        return out.reshape(len(rows), -1)

    return Model(
        format="lightgbm",
        task=own,
        # Trained on a bare array, LightGBM calls its columns Column_0, Column_1, …; the submitter knows better.
        features=settled_features(
            features if features and all(map(str.startswith, names, repeat("Column_"))) else names,
            features,
            booster.num_feature(),
        ),
        classes=tuple(str(index) for index in range(classes)),
        predict=predict,
    )


def checked(text: str) -> Mapping[str, str]:
    """The header's fields, after every tree was found whole and in range; raises ModelRefused with the first defect."""
    head, blank, _ = text.partition("\n\n")
    if not text.startswith("tree\n") or not blank:
        raise ModelRefused("this is not LightGBM's text format; save the booster with save_model")
    header = dict(line.split("=", 1) for line in head.split("\n") if "=" in line)
    try:
        sizes = _integers(header["tree_sizes"])
        width = _integer(header["max_feature_idx"]) + 1
        per_round = _integer(header["num_tree_per_iteration"])
    except (KeyError, ValueError) as error:
        raise ModelRefused(f"the LightGBM header is not whole ({error}); save the booster again") from None
    # Sizes count bytes, and names of features may be wider than ASCII.
    raw, at = text.encode(), len((head + blank).encode())
    for name in ("feature_names", "feature_infos"):
        if len(header.get(name, "").split()) != width:
            raise ModelRefused(f"the LightGBM header does not have {width} {name}; save the booster again")
    if not sizes or per_round < 1 or len(sizes) % per_round:
        raise ModelRefused(f"the LightGBM model has {len(sizes)} trees for {per_round} a round; train it again")
    for index, size in enumerate(sizes):
        block = raw[at : at + size] if size > 0 else b""
        at += max(size, 0)
        if not block.startswith(b"Tree=%d\n" % index):
            raise ModelRefused(f"the LightGBM model is cut or altered at tree {index}; upload it again")
        _check_tree(index, block.decode("utf-8", "replace"), width)
    if not raw[at:].lstrip().startswith(b"end of trees"):
        raise ModelRefused("the LightGBM model has no end of trees where its sizes say; upload it again")
    return header


def _check_tree(index: int, block: str, width: int) -> None:
    """One tree: as many nodes as leaves demand, features and children in range, and no way back up."""
    fields = dict(line.split("=", 1) for line in block.split("\n") if "=" in line)

    def numbers(name: str, count: int) -> list[int]:
        values = _integers(fields[name])
        if len(values) != count:
            raise ValueError(f"{name} has {len(values)} numbers, not {count}")
        return values

    try:
        if fields.get("is_linear", "0") != "0":
            raise ValueError("it is a linear tree, which has no exact SHAP values; train with linear_tree=false")
        leaves = _integer(fields["num_leaves"])
        nodes = leaves - 1
        if leaves < 1 or len(_reals(fields["leaf_value"])) != leaves:
            raise ValueError(f"leaf_value does not have {leaves} numbers")
        if nodes == 0:
            return
        _check_lengths(fields, nodes)
        _check_thresholds(fields, numbers("decision_type", nodes), _integer(fields["num_cat"]))
        if not all(0 <= feature < width for feature in numbers("split_feature", nodes)):
            raise ValueError(f"it splits on a feature beyond the {width} that the model has")
        children = [*zip(range(nodes), numbers("left_child", nodes), strict=True)]
        children += zip(range(nodes), numbers("right_child", nodes), strict=True)
        # A child that is a node was made after its parent, a child that is a leaf is written as -(leaf + 1).
        if not all(node < child < nodes or -leaves <= child < 0 for node, child in children):
            raise ValueError("a child is out of range")
    except (KeyError, ValueError) as error:
        raise ModelRefused(f"tree {index} of the LightGBM model is broken: {error}") from None


def _check_lengths(fields: Mapping[str, str], nodes: int) -> None:
    """Arrays of reals have a number a node, or a leaf."""
    for name in NODE_ARRAYS + LEAF_ARRAYS:
        count = nodes if name in NODE_ARRAYS else nodes + 1
        if len(_reals(fields[name])) != count:
            raise ValueError(f"{name} does not have {count} numbers")


def _check_thresholds(fields: Mapping[str, str], decisions: list[int], categorical: int) -> None:
    """A split on categories names, by its threshold, a stretch of words in cat_threshold."""
    thresholds = _reals(fields["threshold"])
    if not any(decision & 1 for decision in decisions):
        return
    bounds = _integers(fields["cat_boundaries"])
    words = len(_integers(fields["cat_threshold"]))
    if len(bounds) != categorical + 1 or bounds != sorted(bounds) or bounds[0] != 0 or bounds[-1] != words:
        raise ValueError("cat_boundaries do not fit cat_threshold")
    for decision, threshold in zip(decisions, thresholds, strict=True):
        if decision & 1 and not (threshold.is_integer() and 0 <= threshold < categorical):
            raise ValueError("a split names a set of categories that is not there")


def _integer(text: str) -> int:
    # Python reads more as a number than LightGBM does (1_000, other digits, blanks); both read these alike.
    if not text.removeprefix("-").isdecimal() or not text.isascii():
        raise ValueError(f"{text[:20]!r} is no integer")
    return int(text)


def _integers(text: str) -> list[int]:
    return [_integer(word) for word in text.split(" ") if word]


def _reals(text: str) -> list[float]:
    if "_" in text or not text.isascii():
        raise ValueError(f"{text[:20]!r} is no list of numbers")
    return [float(word) for word in text.split(" ") if word]
