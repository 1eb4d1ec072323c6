"""Which ports this installation uses, all moved together by one number, and who holds a port that should be free."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields

import psutil

from deploy.local.errors import LocalError, PortTakenError

HOST = "127.0.0.1"
DEFAULT_FRONT = 8700
RANDOM_FRONTS = range(10_000, 32_000)
"""Linux gives 32768-60999 to outgoing connections, other systems 49152-65535."""


@dataclass(frozen=True)
class Ports:
    """Every port of one installation, all bound on 127.0.0.1; those named like a service serve `--separate` only."""

    front: int
    gateway: int
    grpc: int
    shipper: int
    model_server: int
    postgres: int
    kafka: int
    controller: int
    registry: int
    prompts: int
    evaluator: int
    deployer: int
    router: int
    policy: int

    @classmethod
    def at(cls, front: int) -> Ports:
        """The fixed distances from the front port: 8700 (8701-8706), 8710-8712, 8720, 8732, 8792, 8793."""
        if not 1024 <= front <= 65535 - 93:
            raise LocalError(
                f"Port {front} does not work: choose --port between 1024 and 65442 (93 ports above it are used)."
            )
        return cls(
            front=front,
            gateway=front + 10,
            grpc=front + 11,
            shipper=front + 12,
            model_server=front + 20,
            postgres=front + 32,
            kafka=front + 92,
            controller=front + 93,
            registry=front + 1,
            prompts=front + 2,
            evaluator=front + 3,
            deployer=front + 4,
            router=front + 5,
            policy=front + 6,
        )

    @classmethod
    def free(cls) -> Ports:
        """Ports that were free a moment ago, all different. For tests: `--port 0`.

        One after the other from a random one on, and below those that the system gives to outgoing connections: until
        the last of them is bound, half a minute on a busy machine, thousands of such connections come and go.
        """
        names = [field.name for field in fields(cls)]
        found: list[int] = []
        port = RANDOM_FRONTS.start + secrets.randbelow(len(RANDOM_FRONTS))
        while len(found) < len(names):
            if is_free(port):
                found.append(port)
            port += 1
        return cls(**dict(zip(names, found, strict=True)))

    @classmethod
    def remembered(cls, saved: dict[str, int]) -> Ports:
        """As an `up` wrote them; a port that its version did not know yet is at its distance from the front.

        Raises KeyError, TypeError or LocalError for what no version wrote.
        """
        unknown = {field.name for field in fields(cls)} - set(saved)
        return cls(**({**cls.at(saved["front"]).as_dict(), **saved} if unknown else saved))

    def as_dict(self) -> dict[str, int]:
        return asdict(self)

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self.as_dict().items())


def is_free(port: int) -> bool:
    """True when the port can be bound now. SO_REUSEADDR, as servers do, so that TIME_WAIT does not count as taken."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def is_listening(port: int) -> bool:
    """True when something accepts connections on the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((HOST, port)) == 0


def holder_of(port: int) -> psutil.Process | None:
    """The process that listens on the port; None when nobody does or the system does not tell us."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return psutil.Process(connection.pid)
    except psutil.Error:
        return None
    return None


def require_free(port: int, what: str) -> None:
    """Raise PortTakenError, naming the holder when it is known, unless the port can be bound."""
    if is_free(port):
        return
    holder = holder_of(port)
    by = "another program"
    if holder is not None:
        try:
            by = f"process {holder.pid} ({holder.name()})"
        except psutil.Error:
            by = f"process {holder.pid}"
    raise PortTakenError(
        f"Port {port}, needed for {what}, is taken by {by}: stop it, or move all ports with --port (say --port 9700)."
    )
