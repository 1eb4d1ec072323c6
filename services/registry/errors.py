"""Why the registry does not register or move something; `code` is what `asset.refused` carries."""

from __future__ import annotations

from shared.errors import Conflict, Forbidden, Refused


class AuthorUnproven(Forbidden):
    """An author is claimed without a proof; sign the event, or leave the author out."""

    code = "author-unproven"


class AuthorMismatch(Forbidden):
    """The claimed author is not the one that the proof names."""

    code = "author-mismatch"


class SubmissionReused(Conflict):
    """This submission_id was used for something else; take a new one."""

    code = "submission-reused"


class UnknownDataset(Refused):
    """A dataset version is not registered here; register it first, then submit again."""

    code = "unknown-dataset"


class UnknownPrompt(Refused):
    """A prompt version is not registered here; publish it first, then submit again."""

    code = "unknown-prompt"


class ArtefactMissing(Refused):
    """The bytes are not here; upload them to /registry/v1/artefacts/{digest}, or say with `uri` where to fetch them."""

    code = "artefact-missing"


class SizeMismatch(Refused):
    """The artefact has another size than it is said to have."""

    code = "size-mismatch"


class UnknownFormat(Refused):
    """The format is not one that can be checked and served."""

    code = "unknown-format"


class FormatMismatch(Refused):
    """The bytes are not in the format that they are said to be in."""

    code = "format-mismatch"


class PickleRefused(Refused):
    """The artefact is or holds a pickle, which runs code when it is loaded; save it as lightgbm, skops or onnx."""

    code = "pickle-refused"


class SourceRefused(Refused):
    """The uri is not one that the registry may fetch from."""

    code = "source-refused"


class SourceFailed(Refused):
    """The bytes could not be fetched from the uri."""

    code = "source-failed"


class StageRefused(Conflict):
    """A version cannot move between these stages."""

    code = "stage-refused"


class NothingBefore(Conflict):
    """There is nothing to roll back to."""

    code = "nothing-before"


class AliasRefused(Refused):
    """This name cannot be an alias."""

    code = "alias-refused"
