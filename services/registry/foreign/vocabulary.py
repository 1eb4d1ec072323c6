"""Which words mean what: a table of synonyms (`vocabulary.json`), tasks, splits and units."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

import orjson

TASKS = {
    "classification": (
        "classification", "binary_classification", "multiclass_classification", "multi_class_classification",
        "text_classification", "tabular_classification", "image_classification", "binary", "multiclass", "classifier",
        "sentiment_analysis", "token_classification", "zero_shot_classification", "binaryclassification",
        "multiclassclassification", "klassifikation",
    ),
    "regression": ("regression", "tabular_regression", "regressor", "linear"),
    "summarization": ("summarization", "summarisation", "text_summarization"),
    "question-answering": ("question_answering", "qa", "q_a", "extractive_qa"),
    "text-generation": ("text_generation", "text2text_generation", "causal_lm", "chat", "generation"),
    "extraction": ("extraction", "information_extraction", "ner", "named_entity_recognition"),
    "code-generation": ("code_generation",),
    "forecasting": ("forecasting", "time_series", "time_series_forecasting", "forecast"),
    "embedding": ("embedding", "embeddings", "feature_extraction", "sentence_similarity"),
    "reranking": ("reranking", "text_ranking", "rerank"),
    "translation": ("translation",),
    "vision": ("object_detection", "image_segmentation", "vision", "computer_vision"),
    "speech": ("automatic_speech_recognition", "speech", "audio_classification", "text_to_speech"),
    "clustering": ("clustering",),
    "anomaly-detection": ("anomaly_detection", "outlier_detection"),
}  # fmt: skip
SPLITS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test", "testing": "test", "holdout": "holdout", "hold_out": "holdout",
    "eval": "evaluation", "evaluation": "evaluation", "oot": "out_of_time", "out_of_time": "out_of_time",
    "production": "production",
}  # fmt: skip
RATES = re.compile(
    r"(^|[_.])(accuracy|acc|precision|recall|f1|f1_score|auc|roc_auc|auroc|pr_auc|specificity|sensitivity|coverage|"
    r"balanced_accuracy|top1|top5|exact_match|hit_rate|error_rate|trefferquote|genauigkeit)($|[_.])"
)
"""Names of figures between 0 and 1; one of them above 1 was given in per cent."""


def snake(name: str) -> str:
    """A name as it is compared: `ModelPerformance`, `model-performance` and `Model Performance` are one."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.strip())
    return re.sub(r"[^\w.]+|_+", "_", parted.casefold()).strip("_.")[:200]


@cache
def _sections() -> dict[str, str]:
    table: dict[str, list[str]] = orjson.loads(files(__package__).joinpath("vocabulary.json").read_bytes())
    return {name: section for section, names in table.items() for name in names}


def section(key: str) -> str | None:
    """What a key speaks of; None where the table does not know."""
    return _sections().get(snake(key))


@cache
def _tasks() -> dict[str, str]:
    return {name: task for task, names in TASKS.items() for name in (*names, snake(task))}


def task(written: str) -> str | None:
    """Our name of a task."""
    return _tasks().get(snake(written))
