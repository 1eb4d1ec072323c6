"""What one evaluation is to do, complete: two of the same basis are the same work and may share shards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from services.evaluator.domain import Options, Plan, Task
from services.evaluator.errors import TemplateUnknown
from shared.ids import digest_of


@dataclass(frozen=True, slots=True)
class Template:
    """Scorers (names in SCORERS, in the report's order) for assets of one task."""

    name: str
    task: Task
    scorers: tuple[str, ...]


TEMPLATES: Mapping[str, Template] = {
    template.name: template
    for template in (
        Template(
            "tabular-classification",
            "classification",
            ("coverage", "accuracy_score", "roc_auc", "f1_score", "log_loss", "fairness", "latency_ms"),
        ),
        Template(
            "tabular-regression",
            "regression",
            ("coverage", "root_mean_squared_error", "mean_absolute_error", "r2_score", "latency_ms"),
        ),
    )
}


def template(name: str) -> Template:
    """The template of that name; raises TemplateUnknown."""
    if name not in TEMPLATES:
        raise TemplateUnknown(f"there is no evaluation template {name[:60]!r}; use {' or '.join(TEMPLATES)}")
    return TEMPLATES[name]


PROMPT_TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "question-answering": ("exact_match", "token_f1", "answer_latency_ms", "tokens_per_answer"),
    "extraction": ("exact_match", "token_f1", "answer_latency_ms", "tokens_per_answer"),
    "classification": ("exact_match", "answer_latency_ms", "tokens_per_answer"),
}
"""Scorers (names in ANSWER_SCORERS, in the report's order) for prompts, by the task that they are measured for: those
whose right answer is short and known. For a summary or code, neither equality nor words in common say much."""


def prompt_template(name: str) -> tuple[str, ...]:
    """The scorers of a prompt's template; raises TemplateUnknown."""
    if name not in PROMPT_TEMPLATES:
        raise TemplateUnknown(f"no template measures prompts for {name[:60]!r}; use {' or '.join(PROMPT_TEMPLATES)}")
    return PROMPT_TEMPLATES[name]


@dataclass(frozen=True, slots=True)
class GoldenSpec:
    """What the dataset's manifest says of the columns. `positive` is the label that means "selected" (default: the
    second of two classes)."""

    label: str
    sensitive: tuple[str, ...] = ()
    positive: str | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """Model and golden set by digest, template, columns, plan and options."""

    model: str
    golden_set: str
    template: str
    spec: GoldenSpec
    plan: Plan
    options: Options = field(default_factory=Options)

    @property
    def basis(self) -> str:
        """The digest of all of it. Every partial result carries it, so that none lands in another's report."""
        return digest_of(asdict(self))


@dataclass(frozen=True, slots=True)
class PromptAssignment:
    """The same where a prompt is measured: `model` is the group that answers, `max_tokens` the longest answer.

    `may_quote`: the golden set is public, so the report may quote it.
    """

    prompt: str
    golden_set: str
    template: str
    label: str
    model: str
    max_tokens: int
    may_quote: bool
    plan: Plan
    options: Options = field(default_factory=Options)

    @property
    def basis(self) -> str:
        """As an Assignment's."""
        return digest_of(asdict(self))
