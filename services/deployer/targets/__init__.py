"""Where a bundle can be put to serve, and the table of the targets.

A new target is one module with a class that follows `Target` and one line in `TARGETS`; the conformance suite
(tests/integration/test_targets.py) then asks for a place to run it on and holds it to what is written here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from typing import Any, Final, Protocol, cast

from services.deployer.bundle import Bundle
from shared.errors import Refused, Unavailable


class TargetRefused(Refused):
    """The target understood and will not do it; trying again changes nothing."""

    code = "target-refused"


class TargetUnavailable(Unavailable):
    """The target does not answer just now; try again."""

    code = "target-unavailable"


class State(StrEnum):
    READY = "ready"
    FAILED = "failed"
    """The target knows the version and cannot serve it; the reason says why."""
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one version answers, in the Open Inference Protocol: POST to `url`."""

    target: str
    url: str
    model_name: str
    version: str
    bundle_digest: str


@dataclass(frozen=True, slots=True)
class Status:
    state: State
    reason: str = ""


class Target(Protocol):
    """One place that serves bundles. Every call may be repeated: the second changes nothing and says the same.

    All raise TargetUnavailable when asking again may help, and TargetRefused when it will not.
    """

    name: str

    async def deploy(self, bundle: Bundle) -> Endpoint:
        """Serve the bundle and return once it does. Other versions of the model are left as they are."""

    async def undeploy(self, model_name: str, version: str) -> None:
        """Serve it no more, and keep nothing of it; one that is absent is undeployed already."""

    async def status(self, model_name: str, version: str) -> Status:
        """What the target itself says of it now, nothing remembered."""

    async def metadata(self, model_name: str, version: str) -> Mapping[str, Any]:
        """What it says of a version that it serves, as the Open Inference Protocol's model metadata.

        `parameters` has the `bundle` that it is served from and the `asset_digest` in it.
        """

    async def serving(self) -> Mapping[tuple[str, str], Endpoint]:
        """Everything that is ready on it now, by model name and version; bundle digests are left empty."""

    async def aclose(self) -> None:
        """Give back connections."""


class TargetFactory(Protocol):
    def __call__(self, url: str, *, token: str | None = None) -> Target: ...


TARGETS: Final[Mapping[str, str]] = {"local": "services.deployer.targets.local:LocalTarget"}
"""Name to class; imported when used, so that no target's library is needed but that of the targets in use."""


def target(name: str, url: str, *, token: str | None = None) -> Target:
    """The target `name` at `url`. Raises TargetRefused for a name that is not in the table."""
    if name not in TARGETS:
        raise TargetRefused(f"there is no target {name!r}; there are {', '.join(sorted(TARGETS))}")
    module, _, attribute = TARGETS[name].partition(":")
    return cast(TargetFactory, getattr(import_module(module), attribute))(url, token=token)
