"""Apache Kafka as one process, broker and controller in one (KRaft), from its jars."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

from fraud_pipeline.adapters.local_services.kafka_jars import java, kafka_jars
from fraud_pipeline.adapters.local_services.ports import HOST, free_port
from fraud_pipeline.adapters.local_services.server import LOG_LINES, LocalServer, complaint_in
from fraud_pipeline.errors import DependencyError

HEAP: Final = ("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC")
"""A broker's records live in the page cache, not in its heap; and it shares a laptop's cores, which a parallel collector's
threads would take from its clients."""
CLUSTER_ID: Final = "ZnJhdWQtcGlwZWxpbmUtMQ"
"""Any 16 bytes in base64; every folder's cluster has one node and talks to no other."""
FORMAT_S: Final = 60.0
"""Longest format of a new data folder: a JVM's start, on a machine under load."""
STARTED: Final = "Kafka Server started"
"""What it logs when it is registered and serves: its port accepts earlier than that."""
LOGGING: Final = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",  # the line above
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
)


class KafkaServer(LocalServer):
    """One broker; `settings` are more lines of server.properties, over ours."""

    name: ClassVar[str] = "kafka"
    title: ClassVar[str] = "Kafka"
    package: ClassVar[str] = "jgo"
    start_s: ClassVar[float] = 120.0  # it takes 3 s alone, 6 s after a kill; several at once on two cores, a minute
    stop_s: ClassVar[float] = 30.0  # a broker that stops hands its leaders over first, here to nobody

    def __init__(
        self, folder: Path, port: int = 0, *, ends_with_parent: bool = False, settings: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(folder, port, ends_with_parent=ends_with_parent)
        self._more = dict(settings or {})
        self._java = ""

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def exports(self) -> dict[str, str]:
        return {"FRAUD_KAFKA_BOOTSTRAP_SERVERS": self.address}

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    @property
    def _class_path(self) -> str:
        return os.pathsep.join(str(jar) for jar in kafka_jars())

    def _prepare(self) -> None:
        self._java = java()
        self._properties.write_text("".join(f"{key}={value}\n" for key, value in self._settings().items()))
        if not (self.folder / "data" / "meta.properties").exists():
            self._format()

    def _settings(self) -> dict[str, str]:
        return server_settings(self.folder / "data", self.port, controller_port=free_port()) | self._more

    def _format(self) -> None:
        shutil.rmtree(self.folder / "data", ignore_errors=True)  # of a start that was cut off
        arguments = ["format", "--cluster-id", CLUSTER_ID, "--config", str(self._properties)]
        quick = ["-XX:TieredStopAtLevel=1", "-Xshare:auto"]  # it is over before compiling would pay
        made = subprocess.run(
            [self._java, *quick, "-cp", self._class_path, "kafka.tools.StorageTool", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=FORMAT_S,
        )
        if made.returncode != 0:
            shutil.rmtree(self.folder / "data", ignore_errors=True)
            raise DependencyError(
                f"Kafka could not format {self.folder / 'data'}.\n{complaint_in(made.stdout + made.stderr)}"
            )

    def _command(self) -> list[str]:
        return [self._java, *HEAP, *LOGGING, "-cp", self._class_path, "kafka.Kafka", str(self._properties)]

    def _is_ready(self) -> bool:
        return STARTED in self.said(lines=LOG_LINES)


def server_settings(data: Path, port: int, *, controller_port: int) -> dict[str, str]:
    """server.properties of a single node, nothing replicated."""
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",
        # One node is all there is.
        "default.replication.factor": "1",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # 50 each by default, for many nodes to share; every one is a folder with files to make at the first transaction.
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.num.partitions": "4",
        # A group's first member is not to wait 3 s for others.
        "group.initial.rebalance.delay.ms": "0",
        # After a kill the controller waits so long for the broker that was, before it takes the new one: 9 s by default.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        # The cleaner takes 128 MB of the heap otherwise.
        "log.cleaner.dedupe.buffer.size": "16777216",
        "num.network.threads": "2",
        "num.io.threads": "4",
    }
