"""What the router refuses, and what the gateway cannot do just now. Codes are stable; sentences may improve."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shared.errors import (
    Conflict,
    Forbidden,
    Invalid,
    Malformed,
    MintmarkError,
    NotFound,
    Refused,
    TooLarge,
    Unavailable,
)


class GroupNameRefused(Invalid):
    """A group's name is 1 to 48 lower-case ASCII letters, digits and hyphens, and begins with a letter."""

    code = "group-name-refused"

    def __init__(self, name: str) -> None:
        super().__init__(f"{name[:60]!r} cannot name a group. {type(self).__doc__}")


class GroupNameFolds(Conflict):
    """Another group has the table that this name would have; choose another name."""

    code = "group-name-taken"

    def __init__(self, name: str, other: str, table: str) -> None:
        super().__init__(f"{name!r} would share the table {table} with the group {other!r}; choose another name.")


class WeightsRefused(Invalid):
    """Challengers take whole basis points, each is named once, and together they take at most 10,000."""

    code = "weights-refused"


class UnknownSection(NotFound):
    """A group's settings have no such section."""

    code = "unknown-section"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"There is no section {name[:60]!r}; a group's settings have {', '.join(known)}.")


class RevisionConflict(Conflict):
    """The group was changed in the meantime; read it again and decide anew."""

    code = "revision-conflict"

    def __init__(self, group: str, expected: int, current: int) -> None:
        super().__init__(
            f"The group {group!r} is at revision {current}, not {expected}; read it again and decide anew.",
            current=current,
        )


class AlreadyChampion(Conflict):
    """The version is the champion already."""

    code = "already-champion"

    def __init__(self, group: str, version: str) -> None:
        super().__init__(f"{version} is the champion of {group!r} already; there is nothing to promote.")


class NothingToRollBackTo(Conflict):
    """No promotion is left to take back."""

    code = "nothing-to-roll-back-to"

    def __init__(self, group: str) -> None:
        super().__init__(f"The group {group!r} has no promotion left to take back; promote a version instead.")


class UnknownGroup(NotFound):
    """There is no such group in your workspace."""

    code = "unknown-group"

    def __init__(self, name: str, near: tuple[str, ...] = ()) -> None:
        hint = f" Did you mean {' or '.join(near)}?" if near else " The router's API lists the groups that there are."
        super().__init__(f"There is no group {name[:60]!r} in your workspace.{hint}")


class ApprovalRefused(Forbidden):
    """The approval's signed statement does not prove that this digest may be served."""

    code = "approval-refused"


class NotDeployed(Conflict):
    """Nothing was heard of a deployment of this version; deploy it and wait for deploy.completed."""

    code = "not-deployed"


class NotApproved(Forbidden):
    """No approval in force lets traffic be moved to this version."""

    code = "not-approved"


class GroupNameTaken(Conflict):
    """The name is taken; a group is one address and one table, so names are unique over all workspaces."""

    code = "group-name-taken"


class SampleRatioMismatch(Conflict):
    """The versions did not get the shares of traffic that their weights say, so nothing they show can be trusted."""

    code = "sample-ratio-mismatch"

    def __init__(self, group: str, p: float) -> None:
        super().__init__(
            f"The versions of {group!r} did not get the shares of traffic that their weights say (p = {p:.1g}); find "
            "out what else chooses the version, or promote with force and a reason.",
            p=p,
        )


class ForceNeedsReason(Invalid):
    """Who forces a promotion past a broken split says why: give a reason."""

    code = "force-needs-reason"


class QuestionRefused(Invalid):
    """A comparison asks for a metric, and guards as `metric:margin`, that there are."""

    code = "question-refused"


class TooManyStreams(Unavailable):
    """As many comparisons are being followed here as are allowed; close one, or ask for the view without the stream."""

    code = "too-many-streams"


class RampRunning(Conflict):
    """The group has a ramp that is not over; abort it, or let it end."""

    code = "ramp-running"


class NoRamp(NotFound):
    """The group has no such ramp."""

    code = "no-ramp"


class RampRefused(Conflict):
    """The ramp is not in a state for that."""

    code = "ramp-refused"


class UnknownRequest(NotFound):
    """The group has no such request."""

    code = "unknown-request"


class TooMuchToRead(Invalid):
    """This would read more rows than fit into 15 s; narrow it with since and until."""

    code = "too-much-to-read"


class FeedbackRefused(Invalid):
    """A label is a boolean, a number or a text; any other metric is a number or a text of at most 200 characters."""

    code = "feedback-refused"


class FieldRefused(Invalid):
    """A field of the request is not as its protocol has it, or cannot be said to the provider behind this version."""

    code = "field-refused"

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"`{field}` {reason}.", field=field)
        self.field = field


class ProtocolMismatch(Invalid):
    """What stands behind this group does not speak the protocol of this path."""

    code = "protocol-mismatch"


class AddressRefused(Invalid):
    """A provider's address is a plain http(s) URL of a public host, unless the operator allowed another one."""

    code = "address-refused"


class SealBroken(Unavailable):
    """A provider's key cannot be opened: its master key is missing or it was changed; set the key anew."""

    code = "seal-broken"


class UnknownName(Refused):
    """A setting names what is not there."""

    code = "unknown-name"

    def __init__(self, field: str, name: str, why: str, near: Sequence[str]) -> None:
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        super().__init__(f"`settings.{field}` names {name[:300]}, which is {why}.{hint}", field=field, near=list(near))


class UnknownProvider(NotFound):
    """There is no such provider in your workspace."""

    code = "unknown-provider"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no provider {name[:60]!r} in your workspace; GET /router/v1/providers lists them.")


class ProviderNameTaken(Conflict):
    """There is a provider of that name already."""

    code = "provider-name-taken"


class ProviderInUse(Conflict):
    """Groups name this provider; take it out there first."""

    code = "provider-in-use"

    def __init__(self, name: str, groups: Sequence[str]) -> None:
        super().__init__(f"The provider {name!r} is named by {', '.join(groups[:5])}; take it out there first.")


class ProviderRevisionConflict(Conflict):
    """The provider was changed in the meantime; read it again and decide anew."""

    code = "revision-conflict"

    def __init__(self, name: str, expected: int, current: int) -> None:
        super().__init__(
            f"The provider {name!r} is at revision {current}, not {expected}; read it again and decide anew.",
            current=current,
        )


class VersionNotServable(Unavailable):
    """The version that should answer has no verified approval, or no endpoint any more; nothing else is served."""

    code = "version-not-servable"


class GroupUnreadable(Unavailable):
    """What the group is told cannot be read by this gateway, and it never served the group before; others go on."""

    code = "group-unreadable"

    def __init__(self, group: str) -> None:
        super().__init__(
            f"What the group {group!r} is told cannot be read by this gateway, which has served nothing of it yet: "
            "it may have been told by a newer router."
        )


class TargetsUnavailable(Unavailable):
    """Every target of this group failed of late and is left alone for a while; try again after Retry-After."""

    code = "targets-unavailable"

    def __init__(self, targets: Sequence[str], retry_after_s: int) -> None:
        super().__init__(
            f"{', '.join(targets)} failed of late and is left alone; try again in {retry_after_s} s.",
            targets=list(targets),
        )
        self.retry_after = str(retry_after_s).encode()


class RowsUnavailable(Unavailable):
    """The inference table cannot be written just now, and no answer leaves without its row; try again."""

    code = "rows-unavailable"


class Draining(Unavailable):
    """This gateway is shutting down; try again and another one will answer."""

    code = "draining"


class MethodNotAllowed(Invalid):
    """The path takes another method."""

    code = "method-not-allowed"
    status = 405


class UnsupportedMedia(Invalid):
    """Send the body as it is, without Content-Encoding."""

    code = "unsupported-media"
    status = 415


class SlowRequest(Invalid):
    """The request did not arrive in time; send it again in one go."""

    code = "request-timeout"
    status = 408


class HeadersTooLarge(TooLarge):
    """The request's headers are larger than is taken here."""

    code = "headers-too-large"
    status = 431


class UpstreamError(MintmarkError):
    """The model server could not be reached or closed before it answered."""

    code = "upstream-failed"
    status = 502


class UpstreamGarbageError(UpstreamError):
    """The model server's answer is not one that can be passed on and recorded."""

    code = "upstream-garbage"


class UpstreamCut(UpstreamError):
    """The provider's stream ended before its answer did."""

    code = "upstream-cut"


class ProviderAddressRefused(UpstreamError):
    """The provider's name leads to an address that may not be connected to; the operator may allow its network."""

    code = "provider-address-refused"


class UpstreamKeyRefused(UpstreamError):
    """The provider refused the gateway's own key or its account; the operator must set a valid one."""

    code = "upstream-key-refused"


class UpstreamRefused(MintmarkError):
    """The provider understood the request and refused it."""

    code = "upstream-refused"
    status = 502

    def __init__(self, status: int, message: str, retry_after: bytes = b"") -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.upstream_status = status
        """What the client is answered too: the request was refused, or must wait, for the provider's reasons."""


class UpstreamSaturated(Unavailable):
    """The model server has as many requests in flight as it is given, and none ended in time; try again."""

    code = "upstream-saturated"


class UpstreamTimeoutError(MintmarkError):
    """The model server did not answer in time."""

    code = "upstream-timeout"
    status = 504


class StreamCut(UpstreamError):
    """The model server's stream broke off before its end."""

    code = "stream-cut"


class ClientGone(MintmarkError):
    """The caller went away before its answer was complete."""

    code = "client-gone"
    status = 499


class SignatureMismatch(Invalid):
    """An input is not as the model's signature says."""

    code = "signature-mismatch"

    def __init__(self, tensor: str, what: str) -> None:
        super().__init__(f"The input {tensor[:100]!r} does not fit the model's signature: {what}.", tensor=tensor[:100])


class TensorMalformed(Malformed):
    """A tensor's bytes are not what its description says."""

    code = "tensor-malformed"

    def __init__(self, tensor: str, what: str) -> None:
        super().__init__(f"The tensor {tensor[:100]!r} cannot be read: {what}.", tensor=tensor[:100])


class VersionPinned(Invalid):
    """A group chooses the version that answers; leave the version empty."""

    code = "version-pinned"


class TooManyConnections(Unavailable):
    """This gateway has as many connections as it takes; try again, or share one for several requests."""

    code = "too-many-connections"


class BatchRefused(Invalid):
    """The batch cannot be done as it is asked."""

    code = "batch-refused"


class UnknownBatch(NotFound):
    """The group has no such batch."""

    code = "unknown-batch"


class BatchOver(Conflict):
    """The batch is over; there is nothing to cancel."""

    code = "batch-over"


class GatewayAway(Unavailable):
    """The gateway does not answer just now; the batch goes on when it does."""

    code = "gateway-away"
