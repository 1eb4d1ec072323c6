"""What can be wrong with a prompt."""

from __future__ import annotations

from shared.errors import Invalid, NotFound


class TemplateInvalid(Invalid):
    """The prompt's text and its variables do not fit together."""

    code = "template-invalid"


class LabelReserved(Invalid):
    """The label `latest` always points at the newest version and cannot be moved."""

    code = "label-reserved"


class PromptNotFound(NotFound):
    """There is no such prompt, version or label."""

    code = "prompt-not-found"
