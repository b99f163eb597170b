"""What scorers wrote, judged in windows: clean streams agree, and each kind of harm is found."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from confluent_kafka import Producer

from fraud_pipeline.adapters.decision_check import may_differ
from fraud_pipeline.adapters.kafka import topic_admin
from fraud_pipeline.adapters.kafka.connection import producer_config
from fraud_pipeline.adapters.kafka.messages import Place, header_text, read_decision, transaction_message
from fraud_pipeline.adapters.kafka.topics import Topics
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.local_services.kafka_server import KafkaServer
from fraud_pipeline.adapters.stream import past_run
from fraud_pipeline.adapters.stream.past_run import cursor
from fraud_pipeline.adapters.stream.stream_check import DecidedLog, Mutation, StreamCheck
from fraud_pipeline.adapters.stream.stream_parity import StreamParity, Written
from fraud_pipeline.commands.stream_checks import check_written
from fraud_pipeline.settings import Settings
from fraud_pipeline.stream_runtime import StreamRuntime, kafka_log
from fraud_pipeline_tests.adapters.test_stream_past import bundle, filled, models_of
from fraud_pipeline_tests.memory_stream import MemoryBroker, MemoryScorer, Stored, payments, writer_states
from fraud_pipeline_tests.serving.home import empty_home
from fraud_pipeline_tests.sink_rig import until

DAYS = timedelta(minutes=40)
"""Between two payments: labels count when their payments are seven days old."""


@dataclass
class Decided:
    """A stream that was decided, and where its scorer kept checkpoints."""

    broker: MemoryBroker
    folder: Path


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Decided:
    broker, folder = filled(step=DAYS), tmp_path_factory.mktemp("decided")
    with models_of(empty_home(folder / "home")) as (_, models):
        MemoryScorer(broker, models, folder).work()
    return Decided(broker, folder)


def written(messages: list[Stored]) -> Iterator[Written]:
    for each in messages:
        place = Place.parse(header_text(each.headers(), "source") or "")
        yield Written(
            place.partition, place.offset, header_text(each.headers(), "role") or "", read_decision(each.value())[0]
        )


def checked(
    broker: MemoryBroker, folder: Path, *, mutate: Mutation | None = None, whole: bool = True,
    decisions: dict[int, list[Stored]] | None = None,
) -> StreamParity:  # fmt: skip
    topics, states = broker.topics, writer_states(broker, folder)
    merged, _ = states.kept.merged_beginning()
    cuts: dict[str, list[tuple[int, int]]] = {writer: [] for writer in states.writers}
    for message in broker.messages(topics.shared_state):
        told = orjson.loads(message.value())
        if told["by_clock"]:
            cuts[told["writer"]].append((told["offset"], told["minute"]))
    ends = {place: len(broker.content[topics.transactions, place]) for place in range(broker.partitions)}
    given = decisions or {place: broker.content[topics.decisions, place] for place in ends}
    check = StreamCheck(
        {w: states.kept.writer_beginning(place, merged) for place, w in enumerate(states.writers)}, merged,
        {w: cursor(states.items(place, 0, ends[place]), cuts[w]) for place, w in enumerate(states.writers)},
        {place: DecidedLog(written(given[place]), 0, ends[place], whole=whole) for place in ends},
        bundle_of=bundle, mutate=mutate,
    )  # fmt: skip
    return check.run()


@pytest.mark.parametrize("window", [30, 5_000])
def test_what_a_scorer_wrote_agrees_with_its_logs(
    decided: Decided, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    monkeypatch.setattr(past_run, "WINDOW", window)
    report = checked(decided.broker, decided.folder)
    assert report.equal
    assert (report.payments, report.decisions, report.repeats_and_conflicts, report.labels) == (600, 600, 15, 46)
    assert report.compared_values > 600 * 40


@pytest.mark.parametrize("mutate", ["ulp", "drop_event", "drop_label"])
def test_each_harm_is_found(decided: Decided, mutate: Mutation) -> None:
    report = checked(decided.broker, decided.folder, mutate=mutate)
    assert not report.equal
    assert (report.lost, report.doubled, report.stray) == (0, 0, 0)
    differing = report.differing_customer_values + report.differing_shared_values
    assert differing == 1 if mutate == "ulp" else differing > 0
    assert (report.differing_customer_values == 0) == (mutate == "drop_label")


def test_lost_and_doubled_decisions_are_counted(decided: Decided) -> None:
    topic = decided.broker.topics.decisions
    given = {place: list(decided.broker.content[topic, place]) for place in range(3)}
    given[0].pop(4)
    given[1].insert(9, given[1][2])
    given[2].append(given[2][0])
    report = checked(decided.broker, decided.folder, decisions=given)
    assert (report.lost, report.doubled, report.stray) == (1, 2, 0)
    assert not report.equal


def test_decisions_that_retention_has_deleted_are_not_lost(decided: Decided, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fraud_pipeline.adapters.stream.stream_check.WITHIN_A_BATCH", 50)
    topic = decided.broker.topics.decisions
    given = {place: decided.broker.content[topic, place][60:] for place in range(3)}
    report = checked(decided.broker, decided.folder, decisions=given, whole=False)
    assert report.equal
    assert 100 < report.payments < 420


def test_the_command_judges_what_scorers_wrote_to_a_broker(kafka: KafkaServer, tmp_path: Path) -> None:
    empty_home(tmp_path / "home")
    settings = Settings(home=tmp_path / "home", kafka_bootstrap_servers=kafka.address, topic_prefix="check.")
    topics = Topics("check.")
    topic_admin.create(settings, topics, partitions=2)
    producer = Producer(producer_config(settings))
    for payment in payments(300, start=datetime.now(UTC) - timedelta(hours=3)):
        message = transaction_message(payment)
        producer.produce(topics.transactions, message.value, message.key, headers=list(message.headers))
    assert producer.flush(60) == 0
    runtime = StreamRuntime(settings, kafka_log)
    thread = threading.Thread(target=runtime.run, daemon=True)
    thread.start()
    until(lambda: runtime.metrics.records == 300 or not thread.is_alive(), "all payments decided")
    runtime.stop()
    thread.join(60)
    with Ledger.open(settings.ledger_url) as ledger:
        report = check_written(settings, ledger)
        assert report.equal
        assert report.payments == 300
        harmed = check_written(settings, ledger, mutate="drop_event")
        assert not harmed.equal
        assert harmed.differing_customer_values > 0


@pytest.mark.parametrize(
    ("said", "shared", "own"),
    [((), False, False), (("ledger",), False, False), (("shared_state_lag",), True, False), (("log",), True, False),
     (("ledger", "state_view"), True, True)],
)  # fmt: skip
def test_what_a_decision_says_it_lacked_may_differ_and_nothing_else(
    said: tuple[str, ...], shared: bool, own: bool
) -> None:
    assert (may_differ(said, is_shared=True), may_differ(said, is_shared=False)) == (shared, own)
