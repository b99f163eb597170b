"""Everything that a run needs: broker, Valkey, PostgreSQL, topics, scorers and sinks as processes, and the feed."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from fraud_pipeline.adapters.kafka import topic_admin
from fraud_pipeline.adapters.kafka.connection import consumer_config
from fraud_pipeline.adapters.kafka.topics import Topics
from fraud_pipeline.adapters.local_services.kafka_server import KafkaServer
from fraud_pipeline.adapters.local_services.postgres_server import PostgresServer
from fraud_pipeline.adapters.local_services.valkey_server import ValkeyServer
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.bundle_files import read_directory
from fraud_pipeline.settings import Settings
from fraud_pipeline.stream_runtime import GROUP
from fraud_pipeline_tests.faults.feed import QUIET, Feed
from fraud_pipeline_tests.faults.members import Member, NotInTime, Supervisor, until
from fraud_pipeline_tests.serving.home import append_promotion, made_bundle

PREFIX: Final = "faults."
ASK_S: Final = 5.0
SCORER: Final = (sys.executable, "-m", "streaming.scorer", "--log", "--metrics-port", "0")
SINK: Final = (sys.executable, "-m", "streaming.sink", "--metrics-port", "0")
SCORER_READY: Final = "the scorer reads"
SINK_READY: Final = "Sink from"


@dataclass(frozen=True)
class Plan:
    """How large a run is. `speed`: seconds of event time in a second, until it has caught up with the clock."""

    seed: int
    partitions: int = 4
    scorers: int = 2
    most_scorers: int = 4
    rate: float = 200.0
    speed: float = 60.0
    behind: timedelta = timedelta(hours=2)
    scorer: Sequence[str] = SCORER
    scorer_environment: Mapping[str, str] | None = None


class Rig:
    """`open` starts it all, `close` ends it all, whatever state it is in."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        self.plan = plan
        self.random = random.Random(plan.seed)
        self.kafka = KafkaServer(folder / "kafka", ends_with_parent=True)
        self.valkey = ValkeyServer(folder / "valkey", ends_with_parent=True)
        self.postgres = PostgresServer(folder / "postgres", ends_with_parent=True)
        self.supervisor = Supervisor()
        self.sinks: list[Member] = []
        self.scorers: list[Member] = []
        self.versions: dict[str, Path] = {}
        self.slow_stops: list[str] = []
        self.topics = Topics(PREFIX)
        self.checkpoints = folder / "checkpoints"
        self.settings: Settings
        self.feed: Feed
        self._progress: Consumer

    def open(self) -> None:
        for server in (self.kafka, self.valkey, self.postgres):
            server.start()
        self.settings = self._settings("harness")
        topic_admin.create(self.settings, self.topics, partitions=self.plan.partitions)
        self.promote()
        group = f"{PREFIX}{GROUP}"
        # Only asks how far the group is: as it stands, with transactions open or not.
        config = {**consumer_config(self.settings, group=group), "isolation.level": "read_uncommitted"}
        self._progress = Consumer(config, logger=QUIET)
        plan = self.plan
        self.feed = Feed(
            self.settings, self.topics, partitions=plan.partitions, seed=plan.seed, rate=plan.rate, speed=plan.speed,
            behind=plan.behind,
        )  # fmt: skip
        for _ in range(plan.scorers):
            self.join_scorer()
        environment = self._environment("sink-0")
        sink = Member("sink-0", SINK, environment, folder=self._logs, ready=SINK_READY)
        self.sinks.append(self.supervisor.add(sink))
        until(lambda: all(each.is_ready for each in self.supervisor.members), "the start of all processes")
        self.feed.start()
        until(lambda: sum(self.feed.ends.values()) > 0, "the first payments")
        self.wait_until_decided("the first decisions")

    def close(self) -> None:
        self.supervisor.close()
        for server in (self.kafka, self.valkey, self.postgres):
            server.kill()

    # Scorers

    def ready_scorers(self) -> list[Member]:
        return [each for each in self.scorers if each.wanted and each.is_ready]

    def any_scorer(self) -> Member:
        until(self.ready_scorers, "a scorer that works")
        return self.random.choice(self.ready_scorers())

    def join_scorer(self) -> Member:
        """One more, under the first name that is free."""
        free = [each for each in self.scorers if not each.wanted]
        if free:
            free[0].start()
            return free[0]
        name = f"scorer-{len(self.scorers)}"
        member = Member(name, self.plan.scorer, self._environment(name), folder=self._logs, ready=SCORER_READY)
        self.scorers.append(self.supervisor.add(member))
        return member

    # Models

    def promote(self) -> str:
        """Promote one more bundle; its version."""
        version = len(self.versions) + 1
        made = made_bundle(review=0.05 + 0.001 * version, block=0.5)
        place = self.folder / "bundles" / read_directory(made)[1][:16]
        shutil.copytree(made, place, dirs_exist_ok=True)
        fingerprint = read_directory(made)[1]
        append_promotion(self.settings.ledger_url, version, fingerprint)
        self.versions[str(version)] = place
        return str(version)

    def bundle(self, version: str) -> ModelBundle:
        return ModelBundle.load(self.versions[version], version=version)

    # Waiting

    def decided(self) -> dict[int, int] | None:
        """Up to where the group has decided, by partition; None while nobody says."""
        wanted = [TopicPartition(self.topics.transactions, each) for each in range(self.plan.partitions)]
        try:
            found = self._progress.committed(wanted, timeout=ASK_S)
        except KafkaException:
            return None
        return {each.partition: max(0, each.offset) for each in found if each.error is None}

    def wait_until_decided(self, what: str) -> None:
        """Until everything that has been produced by now is decided, in every partition."""
        ends = dict(self.feed.ends)

        def done() -> bool:
            decided = self.decided()
            return decided is not None and all(decided.get(each, 0) >= end for each, end in ends.items())

        try:
            until(done, what)
        except NotInTime as err:
            raise NotInTime(f"{err}; decided {self.decided()} of {ends}") from None

    # Processes' surroundings

    @property
    def _logs(self) -> Path:
        logs = self.folder / "logs"
        logs.mkdir(exist_ok=True)
        return logs

    def _settings(self, name: str) -> Settings:
        return Settings(
            home=self._home(name), kafka_bootstrap_servers=self.kafka.address, topic_prefix=PREFIX,
            ledger_url=self.postgres.address, checkpoint_url=self.checkpoints.as_uri(),
        )  # fmt: skip

    def _home(self, name: str) -> Path:
        """A home of its own, with the bundles of all."""
        home = self.folder / "homes" / name
        bundles = Settings(home=home).bundles_dir
        (self.folder / "bundles").mkdir(exist_ok=True)
        if not bundles.is_symlink():
            bundles.parent.mkdir(parents=True, exist_ok=True)
            bundles.symlink_to(self.folder / "bundles", target_is_directory=True)
        return home

    def _environment(self, name: str) -> dict[str, str]:
        plain = {key: value for key, value in os.environ.items() if not key.startswith("FRAUD_")}
        return {
            **plain, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", "OMP_WAIT_POLICY": "PASSIVE", "FRAUD_HOME": str(self._home(name)),
            "FRAUD_KAFKA_BOOTSTRAP_SERVERS": self.kafka.address, "FRAUD_TOPIC_PREFIX": PREFIX,
            "FRAUD_LEDGER_URL": self.postgres.address, "FRAUD_STATE_VIEW_URL": self.valkey.address,
            "FRAUD_CHECKPOINT_URL": self.checkpoints.as_uri(), "FRAUD_SCORER_INSTANCE": name,
            "FRAUD_KAFKA_CLIENT_ID": name,
            "FRAUD_SINK_METRICS_PORT": "0", "FRAUD_SCORER_METRICS_PORT": "0", **(self.plan.scorer_environment or {}),
        }  # fmt: skip

    # The end

    def drain(self) -> None:
        """Stop the feed; wait until all is decided and in the ledger, and nothing more comes of it; end the processes."""
        self.feed.stop()
        before: Any = None
        while True:
            ends = self.ends()
            self._wait_for_group(ends[self.topics.transactions])
            self._wait_for_ledger(ends)
            ends = self.ends()
            if ends == before and not self.unsent_labels():
                break
            before = ends
        for member in [*self.scorers, *self.sinks]:
            self.leave(member)

    def leave(self, member: Member) -> None:
        """SIGTERM."""
        took = member.stop()
        if took > 5.0:
            self.slow_stops.append(f"{member.name}: {took:.1f} s")

    def ends(self) -> dict[str, dict[int, int]]:
        """The committed end of every topic's partitions."""
        reader = Consumer(consumer_config(self.settings, group=f"{PREFIX}ends"), logger=QUIET)
        try:
            found = {}
            for topic in (
                self.topics.transactions, self.topics.decisions, self.topics.alerts, self.topics.shared_state,
                self.topics.labels,
            ):  # fmt: skip
                partitions = reader.list_topics(topic, timeout=ASK_S).topics[topic].partitions
                found[topic] = {
                    each: int(reader.get_watermark_offsets(TopicPartition(topic, each), timeout=ASK_S)[1])
                    for each in partitions
                }
            return found
        finally:
            reader.close()

    def _wait_for_group(self, ends: Mapping[int, int]) -> None:
        """The last message of a partition may be followed by a mark of its producer's transaction."""

        def done() -> bool:
            decided = self.decided()
            return decided is not None and all(
                decided.get(each, 0) >= min(end, self.feed.ends[each]) for each, end in ends.items()
            )

        until(done, "the decisions of all that was produced")

    def _wait_for_ledger(self, ends: Mapping[str, Mapping[int, int]]) -> None:
        def done() -> bool:
            at = self._positions()
            return all(
                at.get((topic, each), 0) >= end
                for topic, partitions in ends.items()
                for each, end in partitions.items()
            )

        until(done, "all of the topics in the ledger")

    def _positions(self) -> dict[tuple[str, int], int]:
        rows = self.ledger_rows("SELECT topic, partition, next_offset FROM sink_positions")
        return {(topic, partition): at for topic, partition, at in rows}

    def unsent_labels(self) -> int:
        """Recorded labels that wait for their place in the log."""
        return int(self.ledger_rows("SELECT count(*) FROM labels WHERE writer IS NOT NULL AND sequence IS NULL")[0][0])

    def ledger_rows(self, query: str) -> list[Any]:
        import sqlalchemy as sa

        engine = sa.create_engine(self.postgres.address, poolclass=sa.NullPool)
        try:
            with engine.connect() as connection:
                return list(connection.exec_driver_sql(query))
        finally:
            engine.dispose()


def keep(folder: Path, name: str, content: Any) -> None:
    """Something of a run, for who examines it."""
    (folder / name).write_text(json.dumps(content, indent=1, default=str))
