"""What every event class is made of: the frozen base, its topic's settings, and the values that events share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from shared.events.names import LONGEST_TITLE, addressable

DAY_S = 86_400
LAST_VERSION = 2**31 - 1
"""Version numbers are 32-bit integers in every service's tables."""

Kind = Literal["model", "vendor-model", "retriever", "reranker", "embedder", "prompt", "dataset", "bundle"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"
]
TENSOR_DATATYPES: tuple[Datatype, ...] = get_args(Datatype)
"""The Open Inference Protocol's."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._-]{0,126}[a-z0-9])?$")]
Title = Annotated[
    str,
    StringConstraints(min_length=1, max_length=LONGEST_TITLE, pattern=r"^[^\x00]+$"),
    AfterValidator(addressable),
]
Urn = Annotated[
    str,
    StringConstraints(
        pattern=r"^mm:(model|vendor-model|retriever|reranker|embedder|prompt|dataset|bundle)/[a-z0-9]([a-z0-9._-]{0,126}[a-z0-9])?$"
    ),
]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Workspace = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$")]
GroupName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,47}$")]
Sentence = Annotated[str, StringConstraints(min_length=1, max_length=4000)]


def _in_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a time needs its zone, e.g. 2026-11-20T10:00:00Z")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("the time is outside of the calendar") from None


Moment = Annotated[datetime, AfterValidator(_in_utc)]


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """How a topic is kept. `partitions` bounds how many consumers of one group can share its load."""

    name: str
    partitions: int = 12
    retention_s: int | None = 30 * DAY_S
    compacted: bool = False

    def settings(self) -> dict[str, str]:
        """The Kafka topic configuration that this declares."""
        return {
            "cleanup.policy": "compact" if self.compacted else "delete",
            "retention.ms": "-1" if self.retention_s is None else str(self.retention_s * 1000),
        }


class Value(BaseModel):
    """A part of an event. Frozen; a field that this version does not know is tolerated and dropped."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Event(Value):
    """One fact on one topic. The class is the contract; its version is part of the CloudEvents type.

    `key` names the aggregate whose events stay in order: the asset's URN wherever there is one.
    """

    topic: ClassVar[TopicSpec]
    contract_version: ClassVar[int] = 1
    producers: ClassVar[tuple[str, ...]]
    consumers: ClassVar[tuple[str, ...]]
    external: ClassVar[bool] = False
    """May be published from outside, so that its author must be proven by a signature."""
    permission: ClassVar[str] = "submit"
    """What a proven author of an external event must be allowed to do, as over HTTP (identity/policies)."""

    @classmethod
    def type(cls) -> str:
        """The CloudEvents type, e.g. `asset.registered.v1`."""
        return f"{cls.topic.name}.v{cls.contract_version}"

    @property
    def key(self) -> str:
        """The partition key (and CloudEvents subject) of this event."""
        raise NotImplementedError(f"{type(self).__name__} names no key")


class Actor(Value):
    """Who did it. `proven` is true only where a key, token or signature showed it."""

    id: str = Field(min_length=1, max_length=200, description="principal, e.g. user:ada or pipeline:credit-train")
    proven: bool = False

    def same_person(self, other: Actor) -> bool:
        """True when both are the same principal; someone unproven may be anybody, so counts as the same."""
        return self.id == other.id or not (self.proven and other.proven)


UNVERIFIED = Actor(id="unverified", proven=False)


class AssetRef(Value):
    """One immutable version of one asset. `digest` covers its whole content, not its file alone."""

    urn: Urn
    version: int = Field(ge=1, le=LAST_VERSION)
    digest: Digest

    @property
    def name(self) -> str:
        return self.urn.split("/", 1)[1]

    def __str__(self) -> str:
        return f"{self.urn}@{self.version}"


class Artefact(Value):
    """Bytes by their SHA-256. `uri` says where to fetch them when they were not uploaded before."""

    digest: Digest
    format: str = Field(min_length=1, max_length=40, description="lightgbm, skops, onnx, parquet, csv, text, …")
    size: int | None = Field(default=None, ge=0, description="bytes")
    uri: str | None = Field(default=None, max_length=2000)


class Tensor(Value):
    """One named input or output, in the Open Inference Protocol's datatypes. -1 is a free dimension."""

    name: str = Field(min_length=1, max_length=200)
    datatype: Datatype
    shape: tuple[int, ...] = (-1, 1)
    nullable: bool = False


class Signature(Value):
    """What a model takes and gives."""

    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()


class Interval(Value):
    """A measured value with its confidence interval; `n` is how many rows it rests on."""

    value: float
    low: float
    high: float
    n: int = Field(ge=0)
    level: float = 0.95
    method: str
    unit: str = ""
    higher_is_better: bool = True


Json = dict[str, Any]
