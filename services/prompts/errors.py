"""What can be wrong with a prompt."""

from __future__ import annotations

from shared.errors import Conflict, Invalid, NotFound, Refused


class TemplateInvalid(Invalid):
    """The prompt's text and its variables do not fit together."""

    code = "template-invalid"


class IncludeRefused(TemplateInvalid):
    """What the prompt includes cannot be put in."""

    code = "include-refused"


class RenderRefused(Invalid):
    """The prompt cannot be rendered with these variables."""

    code = "render-refused"


class RenderTooLarge(Refused):
    """Rendering took more time, memory or output than is given to it."""

    code = "render-too-large"
    status = 422


class LabelReserved(Invalid):
    """The label `latest` always points at the newest version and cannot be moved."""

    code = "label-reserved"


class LabelProtected(Refused):
    """This label is protected: it moves only to versions with a pass and an approval."""

    code = "label-protected"
    status = 403


class SplitRefused(Invalid):
    """The label cannot be split like this."""

    code = "split-refused"


class NothingBefore(Conflict):
    """The label pointed nowhere before its last move."""

    code = "nothing-before"


class TitleTaken(Conflict):
    """Another title makes the same name."""

    code = "title-taken"


class FourEyes(Refused):
    """Nobody approves what they wrote."""

    code = "four-eyes"
    status = 403


class NotApproved(Conflict):
    """The newest candidate of the proposal is not approved."""

    code = "not-approved"


class StaleBase(Conflict):
    """What the proposal was made from is no longer what is there."""

    code = "stale-base"


class ProposalEnded(Conflict):
    """The proposal was merged or closed before."""

    code = "proposal-ended"


class NotRegistered(Conflict):
    """The registry has not registered the version (yet), so nobody can measure it."""

    code = "not-registered"


class NoSigningKey(Conflict):
    """No snapshot is signed here: set MINTMARK_PROMPTS_SIGNING_KEY_FILE."""

    code = "no-signing-key"


class SnapshotTooLarge(Refused):
    """That many prompts do not go into one snapshot."""

    code = "snapshot-too-large"


class PromptNotFound(NotFound):
    """There is no such prompt, version or label."""

    code = "prompt-not-found"
