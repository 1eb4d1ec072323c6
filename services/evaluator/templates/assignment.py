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
