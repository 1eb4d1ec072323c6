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
    """The artefact is or holds a pickle, which runs code when it is loaded; save it as lightgbm, skops or onnx.

    One that must be a pickle says so (format `pickle`, `joblib`, `torch` or `numpy`): it is scanned, and held back.
    """

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


class PointerProtected(Conflict):
    """This pointer moves only to a version that passed its gate and was approved."""

    code = "protected"


class NothingBefore(Conflict):
    """There is nothing to roll back to."""

    code = "nothing-before"


class AliasRefused(Refused):
    """This name cannot be an alias."""

    code = "alias-refused"


class NameTaken(Conflict):
    """Another asset has this name or title; take another one."""

    code = "name-taken"


class InUse(Conflict):
    """Something still uses this; the answer names what."""

    code = "in-use"


class AlreadyYanked(Conflict):
    """The version was yanked; nothing points at it or changes it any more."""

    code = "yanked"


class IntentRequired(Refused):
    """Nothing new is built here before somebody looked for what is there: name the intent that decided to build."""

    code = "intent-required"


class IntentDecided(Conflict):
    """The intent has its outcome; describe another one."""

    code = "intent-decided"


class IntentExpired(Conflict):
    """The intent is older than an intent may be; describe it again, and look again."""

    code = "intent-expired"


class WhyNotMissing(Refused):
    """Who builds all the same says of each of the first candidates why it does not fit."""

    code = "why-not-missing"


class NotReusable(Conflict):
    """This version is not one to begin to use."""

    code = "not-reusable"


class GoldenLocked(Conflict):
    """A golden set is locked: nothing may be trained on it."""

    code = "golden-locked"


class SamePerson(Forbidden):
    """A golden set is unlocked by another person than the one who locked it."""

    code = "same-person"


class NoChange(Conflict):
    """It is so already."""

    code = "no-change"


class CroissantRefused(Refused):
    """The Croissant description does not say what a dataset here must say."""

    code = "croissant-refused"


class NotNamed(Refused):
    """Nothing in the document says what the model is called; correct the field `name`, then accept."""

    code = "not-named"


class AlreadyAccepted(Conflict):
    """The proposal was accepted; import the document again for another version."""

    code = "already-accepted"


class ScanFailed(Refused):
    """The bytes could not be scanned, so nobody knows what they run; save the model in another format."""

    code = "scan-failed"


class ArtefactDangerous(Refused):
    """The scanners found code in the artefact that models have no need of."""

    code = "artefact-dangerous"


class ArchiveRefused(Refused):
    """The archive would write outside of its folder, or unpack to far more than it is."""

    code = "archive-refused"


class HeldBack(Conflict):
    """The version holds a pickle; two people sign a waiver for `format:pickle` before it goes on."""

    code = "held-back"
