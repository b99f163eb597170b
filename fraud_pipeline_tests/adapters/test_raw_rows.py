"""Recovery where the log holds no more: the ledger's rows give the very state that the whole log gives."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition

from fraud_pipeline.adapters.checkpoint_store import CheckpointStore
from fraud_pipeline.adapters.kafka import topic_admin
from fraud_pipeline.adapters.kafka.connection import admin, producer_config
from fraud_pipeline.adapters.kafka.kafka_log import KafkaLog
from fraud_pipeline.adapters.kafka.messages import Message
from fraud_pipeline.adapters.kafka.topics import Topics
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.local_services.kafka_server import KafkaServer
from fraud_pipeline.adapters.stream.raw_rows import LedgerRawRows
from fraud_pipeline.adapters.stream.writer_states import WriterStates
from fraud_pipeline.domain.feature_merged import MergedState, closed_at_watermark
from fraud_pipeline.domain.feature_state import microseconds
from fraud_pipeline.domain.minute_closing import Closing
from fraud_pipeline.errors import StateError
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.memory_stream import Base, MemoryBroker, payments, sink, writer_states

START = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)
CLOCK = closed_at_watermark(microseconds(START + timedelta(minutes=50)))
"""The newest minute that a clock has closed, early in the logs."""


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


def filled(topics: Topics | None = None) -> MemoryBroker:
    """Two partitions of payments, labels among them, a repeat, a bad message, and a minute that the clock closed."""
    broker = MemoryBroker(topics or Topics(), 2)
    for number, payment in enumerate(payments(400, start=START)):
        broker.pay([payment])
        if number % 11 == 5:
            broker.label(payment, payment.event_time + timedelta(minutes=3))
        if number % 50 == 7:
            broker.pay([payment])
        if number == 60:
            broker.append(broker.topics.transactions, 0, Message(b"c1", b"{", ()), payment.event_time)
    return broker


def closed_by_clock(states: WriterStates, merged: MergedState, at: int = 40) -> None:
    for writer in states.writers:
        merged.merge(Closing(writer, CLOCK, at, True))


def note_in_ledger(ledger: Ledger, states: WriterStates, at: int = 40) -> None:
    with ledger.database.writing() as connection:
        for writer in states.writers:
            connection.exec_driver_sql(
                f"INSERT INTO minute_closings (writer, minute, sequence, by_clock) VALUES ('{writer}', {CLOCK}, {at}, true)"
            )


def test_a_log_whose_beginning_is_gone_and_the_ledger_give_the_state_of_the_whole_log(ledger: Ledger, tmp_path: Path):
    broker = filled()
    sink(broker, ledger)
    states = writer_states(broker, tmp_path / "a", raw=LedgerRawRows(ledger.database))
    note_in_ledger(ledger, states)
    for partition in (0, 1):
        until = len(broker.content[broker.topics.transactions, partition])
        known, unknown = MergedState(states.writers), MergedState(states.writers)
        closed_by_clock(states, known)
        whole = states.recover(partition, until, known).snapshot()
        for gone in (1, 90, until - 3, until):
            broker.forget_before(broker.topics.transactions, partition, gone)
            for merged in (known, unknown):  # `shared-state` may hold the clock's closings no more
                found = states.recover(partition, until, merged)
                found.forget_closed(known.closed[found.writer])
                found.commit()
                assert found.snapshot() == whole
        assert states.recover(partition, until, known).offset == until


def test_a_gap_between_ledger_and_log_stops_the_writer_and_says_what_to_do(ledger: Ledger, tmp_path: Path):
    broker = filled()
    sink(broker, ledger, through={0: 100})
    broker.forget_before(broker.topics.transactions, 0, 150)
    states = writer_states(broker, tmp_path / "a", raw=LedgerRawRows(ledger.database))
    with pytest.raises(StateError, match=r"holds transactions\[0\] from offset 0 to 99, not all of 0 to 149") as told:
        states.recover(0, 160, MergedState(states.writers))
    assert "sink has caught up" in told.value.remedy
    without = writer_states(broker, tmp_path / "a")
    with pytest.raises(StateError, match="begins at 150, and its state stands at 0"):
        without.recover(0, 160, MergedState(states.writers))


def test_recovery_on_a_broker_whose_retention_has_passed(kafka: KafkaServer, ledger: Ledger, tmp_path: Path):
    settings = Settings(home=tmp_path, kafka_bootstrap_servers=kafka.address, topic_prefix=f"raw{tmp_path.name}.")
    topics = Topics(settings.topic_prefix)
    topic_admin.create(settings, topics, partitions=2)
    broker = filled(topics)
    producer = Producer(producer_config(settings))
    for stored in broker.messages(broker.topics.transactions):
        producer.produce(
            topics.transactions, stored.value(), stored.key(), stored.partition(), headers=list(stored.headers())
        )
    assert producer.flush(60) == 0
    sink(broker, ledger)
    log = KafkaLog(
        settings, topic=topics.transactions, shared_topic=topics.shared_state, group=f"{topics.prefix}g", instance="1"
    )

    def state(partition: int) -> bytes:
        states = WriterStates(
            CheckpointStore(str(tmp_path / "checkpoints")), log, Base(), partitions=2, currency="USD", time_zone="UTC",
            raw=LedgerRawRows(ledger.database),
        )  # fmt: skip
        until = len(broker.content[topics.transactions, partition])
        return states.recover(partition, until, MergedState(states.writers)).snapshot()

    whole = [state(0), state(1)]
    gone = [TopicPartition(topics.transactions, partition, 120) for partition in (0, 1)]
    asking = admin(settings)  # its answers end with it
    for each in asking.delete_records(gone).values():
        each.result(60)
    assert [log.begins_at(0), log.begins_at(1)] == [120, 120]
    assert [state(0), state(1)] == whole
    log.close()
