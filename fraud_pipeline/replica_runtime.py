"""The scoring service as one of any number of replicas on the Kafka log: the adapters that it has instead of the one writer's."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

import orjson
from confluent_kafka import Consumer, KafkaException, Producer

from fraud_pipeline.adapters.checkpoint_store import CheckpointStore
from fraud_pipeline.adapters.kafka.connection import admin, consumer_config, dependency_error, producer_config
from fraud_pipeline.adapters.kafka.relay import PRODUCER
from fraud_pipeline.adapters.kafka.shared_follower import CONSUMER, SharedFollower
from fraud_pipeline.adapters.kafka.topics import Topics
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.live_decisions import DecisionMaker
from fraud_pipeline.adapters.live_state import LiveStateStore
from fraud_pipeline.adapters.model_slot import ModelSlot, fetcher
from fraud_pipeline.adapters.replica import Replica
from fraud_pipeline.adapters.replica_deciding import LOG_AWAY
from fraud_pipeline.adapters.replica_features import SHARED_LAG, STATE_VIEW
from fraud_pipeline.adapters.shadow import ShadowScorer
from fraud_pipeline.adapters.state_view import StateView, view_prefix
from fraud_pipeline.adapters.state_view_reader import StateViewReader
from fraud_pipeline.adapters.stream.writer_states import WriterStates
from fraud_pipeline.domain import customer_record, feature_batch
from fraud_pipeline.domain.feature_state import FeatureState
from fraud_pipeline.errors import DependencyError, FraudError
from fraud_pipeline.live_runtime import LiveRuntime, ReplicaCounts, utc_now

METADATA_TIMEOUT_S: Final = 5.0
"""For the number of partitions; without a broker, the last one that was seen serves."""
log = logging.getLogger(__name__)


class ReplicaRuntime(LiveRuntime):
    """`replica` is there when `problems` is empty."""

    replica: Replica | None = None
    follower: SharedFollower | None = None
    view: StateView | None = None

    @property
    def lacking(self) -> tuple[str, ...]:
        replica, follower = self.replica, self.follower
        if replica is None or follower is None:
            return ()
        told = {
            LOG_AWAY: replica.relay.late,
            STATE_VIEW: bool(replica.view_error),
            SHARED_LAG: bool(follower.broken or follower.last_error),
        }
        return tuple(name for name, is_so in told.items() if is_so)

    def more_health(self) -> dict[str, Any]:
        replica, follower, view = self.replica, self.follower, self.view
        if replica is None or follower is None or view is None:
            return {}
        try:
            reaches: dict[str, Any] = {"status": "ok", "reach": view.reaches()}
            missing = sorted(set(replica.writers) - set(reaches["reach"]))
            if missing:
                remedy = f"{', '.join(missing)} has not written all customers: does its scorer run?"
                reaches |= {"status": "incomplete", "remedy": remedy}
        except FraudError as err:
            reaches = {"status": "away", "error": err.message, "remedy": err.remedy}
        problem = follower.broken or follower.last_error
        shared = {"status": "away" if problem else "ok", "error": problem, "closed_through": dict(follower.closed)}
        return {
            "state": {"status": "view", "records_not_readable": replica.features.damaged},
            "state_view": {"address": view.address, **reaches},
            "shared_state": shared,
            **replica.health(),
        }

    def replica_counts(self) -> ReplicaCounts | None:
        replica, follower = self.replica, self.follower
        if replica is None or follower is None:
            return None
        return ReplicaCounts(
            log_away=replica.relay.late,
            relayed=replica.relay.relayed,
            in_flight=replica.relay.in_flight,
            relay_errors=replica.relay.errors,
            own_payments=len(replica.own),
            forgotten=replica.own.forgotten,
            overtaken=replica.scorer.overtaken,
            unsettled=replica.commits.unsettled,
            view_errors=replica.reader.errors,
            damaged=replica.features.damaged,
            closed=dict(follower.closed),
        )

    # Within

    def _open(self) -> None:
        """Everything but what belongs to the event loop."""
        settings = self.settings
        self.ledger = Ledger.open(settings.ledger_url)
        self.keys.refresh()
        feature_batch.warm()
        customer_record.warm()
        fetch = fetcher(settings.bundles_dir, settings.mlflow_tracking_uri, settings.artifacts_dir)
        self.models = ModelSlot(self.ledger, fetch, now=utc_now, challenger_share=settings.challenger_share)
        self.models.refresh()
        if self.models.champion is None:
            self._wait_for_champion(self.models)
        topics = Topics(settings.topic_prefix)
        partitions = self._partitions(topics.transactions)
        self.view = StateView(
            settings.state_view_url, prefix=view_prefix(settings.state_view_prefix, settings.topic_prefix)
        )
        self.follower = self._follower(topics, partitions, self.ledger)
        self.shadow = ShadowScorer(
            self.ledger, self.models, self.metrics, control_share=settings.control_share, now=utc_now
        )
        decisions = DecisionMaker(
            self.models, self.metrics, control_share=settings.control_share, now=utc_now, shadow=self.shadow.offer
        )
        reader = StateViewReader(
            settings.state_view_url, prefix=view_prefix(settings.state_view_prefix, settings.topic_prefix)
        )
        config = {**producer_config(settings), **PRODUCER}
        self.replica = Replica(
            self.ledger, decisions, self.metrics,
            view=self.view, reader=reader, shared=self.follower, producer=lambda: Producer(config, logger=log),
            topic=topics.transactions, partitions=partitions, journals=self._folder, journal_limit=settings.journal_limit,
            currency=settings.currency, time_zone=settings.time_zone,
        )  # fmt: skip

    def _wait_for_champion(self, models: ModelSlot) -> None:
        """By failing, which is tried again: the state begins from the landed history, whole when a champion was trained on it."""
        if (refused := models.refused) is not None:
            raise DependencyError(f"Version {refused.version} is refused: {refused.reason}")
        raise DependencyError("There is no champion yet.", remedy="Train and promote one: `fraud run`.")

    async def _start_scorer(self) -> None:
        assert self.replica is not None
        assert self.follower is not None
        assert self.models is not None
        assert self.shadow is not None
        self.follower.start()
        await self.replica.start()
        self.scorer = self.replica.scorer
        self.models.watch()
        self.shadow.start()
        self.keys.start()

    def _chores(self) -> tuple[()]:
        """None: labels of a landed history and checkpoints are the sink's and the scorers'."""
        return ()

    def _close(self) -> None:
        replica, self.replica = self.replica, None
        if replica is not None:
            replica.close_log()
        for part in (self.follower, self.view):
            if part is not None:
                part.close()
        self.follower = self.view = None
        super()._close()

    @property
    def _folder(self) -> Path:
        return self.settings.home / "replicas"

    def _partitions(self, topic: str) -> int:
        """How many the topic has. Remembered, so that a replica can start while the broker is away."""
        path = self._folder / "partitions.json"
        try:
            found = admin(self.settings).list_topics(topic, timeout=METADATA_TIMEOUT_S).topics[topic]
        except KafkaException as err:
            known = orjson.loads(path.read_bytes()) if path.exists() else {}
            if topic not in known:
                raise dependency_error(self.settings, err, f"look at {topic}") from err
            log.warning("the broker is away; %s had %d partitions", topic, known[topic])
            return int(known[topic])
        if found.error is not None:
            raise DependencyError(f"{topic}: {found.error.str()}.", remedy="`fraud topics create` makes the topics.")
        self._folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(orjson.dumps({topic: len(found.partitions)}))
        return len(found.partitions)

    def _follower(self, topics: Topics, partitions: int, ledger: Ledger) -> SharedFollower:
        settings = self.settings
        store = CheckpointStore(settings.checkpoint_url)
        history = _History(LiveStateStore(settings.home, store, ledger, time_zone=settings.time_zone))
        states = WriterStates(
            store, _Named(topics.transactions), history, partitions=partitions,  # type: ignore[arg-type]  # it only names it
            currency=settings.currency, time_zone=settings.time_zone,
        )  # fmt: skip
        merged, offsets = states.merged()
        config = {**consumer_config(settings, group=f"{settings.topic_prefix}fraud-replica"), **CONSUMER}
        return SharedFollower(
            merged, topics.shared_state, partitions=partitions, offsets=offsets,
            consumer=lambda: Consumer(config, logger=log),
        )  # fmt: skip


class _History:
    """The landed history before the log, as the scorers have it."""

    def __init__(self, states: LiveStateStore) -> None:
        self._states = states

    def history(self) -> str:
        return self._states.history()

    def base_state(self) -> FeatureState:
        return self._states.base().state


class _Named:
    """A log of which only the name is asked."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
