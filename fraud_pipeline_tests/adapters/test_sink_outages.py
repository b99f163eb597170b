"""The sink through what may happen to it, to its database and to its broker: nothing lost, nothing twice."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from fraud_pipeline.adapters.kafka.messages import Message, header_text
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_outbox import LedgerOutbox
from fraud_pipeline.adapters.ledger_raw import raw_from, raw_through
from fraud_pipeline.adapters.local_services.kafka_server import KafkaServer
from fraud_pipeline.adapters.local_services.postgres_server import PostgresServer
from fraud_pipeline.errors import StateError
from fraud_pipeline_tests.servers import server_of_my_own
from fraud_pipeline_tests.sink_rig import (
    PATIENCE_S,
    RunningSink,
    Stream,
    counts,
    label,
    payment,
    running,
    sink_process,
    until,
)


@pytest.fixture
def stream(kafka: KafkaServer) -> Stream:
    return Stream(kafka.address)


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with Ledger.open(ledger_url) as opened:
        yield opened


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


def numbers(ledger: Ledger) -> list[int]:
    """The payments in the ledger, each place once."""
    with ledger.database.reading() as connection:
        rows = connection.exec_driver_sql("SELECT transaction_id, writer, sequence FROM transactions").all()
    assert len({(writer, sequence) for _, writer, sequence in rows}) == len(rows)
    return sorted(int(identity[1:]) for identity, _, _ in rows)


def has_reached(ledger: Ledger, payments: int) -> bool:
    return counts(ledger)["transactions"] >= payments


def end(process: subprocess.Popen[str], how: signal.Signals) -> tuple[int, str]:
    process.send_signal(how)
    output, _ = process.communicate(timeout=PATIENCE_S)
    return process.returncode, output


def test_killed_again_and_again_it_loses_nothing_and_doubles_nothing(stream: Stream, ledger: Ledger, ledger_url: str):
    stream.pay([payment(n) for n in range(20_000)])
    stream.decide([payment(n) for n in range(20_000)])
    labels = [label(n) for n in range(0, 20_000, 100)]
    stream.label(labels)
    outbox = LedgerOutbox(ledger.database)
    for reached in (1, 8_000):
        process = sink_process(stream, ledger_url)
        until(partial(has_reached, ledger, reached))
        assert end(process, signal.SIGKILL)[0] == -signal.SIGKILL
    process = sink_process(stream, ledger_url)
    until(lambda: counts(ledger)["decisions"] == 20_000, "all decisions")
    until(lambda: outbox.counts() == (0, 0) and counts(ledger)["labels"] == len(labels), "the labels' places")
    assert end(process, signal.SIGTERM)[0] == 0
    assert numbers(ledger) == list(range(20_000))
    assert counts(ledger) == {
        "transactions": 20_000, "decisions": 20_000, "alerts": 0, "labels": len(labels), "minute_closings": 0,
    }  # fmt: skip
    assert sorted(stream.labels_sent()) == sorted(
        (each.transaction_id, 1, stream.partition_of(f"c{int(each.transaction_id[1:]) % 50}".encode()))
        for each in labels
    )


def test_a_database_that_stops_is_waited_for(stream: Stream):
    with server_of_my_own(PostgresServer) as server, Ledger.open(server.address) as ledger:
        stream.pay([payment(n) for n in range(1_000)])
        with running(stream, ledger) as sink:
            until(lambda: counts(ledger)["transactions"] == 1_000)
            server.stop()
            stream.pay([payment(n) for n in range(1_000, 2_000)])
            stream.label([label(5), label(1_500)])
            until(lambda: sink.metric("fraud_sink_errors_total", system="ledger") > 0, "an error")
            server.start()
            until(lambda: counts(ledger)["transactions"] == 2_000, "the rest")
            server.kill()
            stream.pay([payment(n) for n in range(2_000, 2_100)])
            server.start()
            until(lambda: counts(ledger)["transactions"] == 2_100, "what came last")
            until(lambda: LedgerOutbox(ledger.database).counts() == (0, 0) and counts(ledger)["labels"] == 2)
        assert numbers(ledger) == list(range(2_100))
        assert sorted(each[0] for each in stream.labels_sent()) == ["t1500", "t5"]


def test_a_broker_that_dies_is_waited_for(sqlite: Ledger):
    with server_of_my_own(KafkaServer) as server:
        stream = Stream(server.address)
        stream.pay([payment(n) for n in range(500)])
        with running(stream, sqlite):
            until(lambda: counts(sqlite)["transactions"] == 500)
            server.kill()
            server.start()
            stream.pay([payment(n) for n in range(500, 900)])
            stream.label([label(700)])
            until(lambda: counts(sqlite)["transactions"] == 900, "the rest")
            until(lambda: LedgerOutbox(sqlite.database).counts() == (0, 0) and counts(sqlite)["labels"] == 1)
        assert numbers(sqlite) == list(range(900))
        assert [each[0] for each in stream.labels_sent()] == ["t700"]


def test_sinks_that_come_and_go_share_the_partitions(stream: Stream, ledger: Ledger):
    stream.pay([payment(n) for n in range(3_000)])
    with running(stream, ledger) as first:
        until(lambda: counts(ledger)["transactions"] > 0)
        with running(stream, ledger) as second:
            until(lambda: second.metric("fraud_sink_rebalances") > 0, "the second one's share")
            stream.pay([payment(n) for n in range(3_000, 6_000)])
            stream.label([label(n) for n in range(0, 6_000, 1_000)])
            until(lambda: counts(ledger)["transactions"] == 6_000)
        stream.pay([payment(n) for n in range(6_000, 6_500)])
        until(lambda: counts(ledger)["transactions"] == 6_500)
        until(lambda: LedgerOutbox(ledger.database).counts() == (0, 0) and counts(ledger)["labels"] == 6)
        assert first.is_running
    assert numbers(ledger) == list(range(6_500))
    assert len(stream.labels_sent()) == 6


def test_a_database_that_holds_still_does_not_hold_up_the_end(stream: Stream):
    with server_of_my_own(PostgresServer) as server:
        with Ledger.open(server.address) as ledger:
            stream.pay([payment(n) for n in range(100)])
            process = sink_process(stream, server.address)
            until(lambda: counts(ledger)["transactions"] == 100)
        server.pause()
        try:
            stream.pay([payment(n) for n in range(100, 200)])
            code, output = end(process, signal.SIGTERM)
        finally:
            server.resume()
        assert code == 0, output
        with Ledger.open(server.address) as ledger:
            with running(stream, ledger):
                until(lambda: counts(ledger)["transactions"] == 200)
            assert numbers(ledger) == list(range(200))


def test_what_kafka_deleted_before_it_was_read_stops_the_sink_until_someone_accepts_it(stream: Stream, sqlite: Ledger):
    topic, partition = stream.names.transactions, stream.partition_of(b"c1")
    writer = f"{topic}[{partition}]"
    stream.pay([payment(1)])
    with running(stream, sqlite):
        until(lambda: raw_through(sqlite.database, writer) == 0)
    stream.pay([payment(51), payment(101), payment(151)])
    admin = AdminClient({"bootstrap.servers": stream.address})
    for deleted in admin.delete_records([TopicPartition(topic, partition, 3)]).values():
        deleted.result(timeout=PATIENCE_S)
    stopped = RunningSink(stream, sqlite)
    until(lambda: not stopped.is_running)
    with pytest.raises(StateError, match=r"Offsets 1 to 2 of .*transactions\[\d\] are gone.*--skip-lost"):
        stopped.end()
    with running(stream, sqlite, skip_lost=True):
        until(lambda: raw_through(sqlite.database, writer) == 3)
    assert (numbers(sqlite), raw_from(sqlite.database, writer)) == ([1, 151], 3)


def test_a_topic_made_anew_stops_the_sink(stream: Stream, sqlite: Ledger):
    with running(stream, sqlite):
        until(lambda: f"{stream.names.transactions}" in _known(sqlite))
    with sqlite.database.writing() as connection:
        connection.exec_driver_sql("UPDATE sink_positions SET next_offset = 17 WHERE partition = 1")
    stopped = RunningSink(stream, sqlite)
    until(lambda: not stopped.is_running)
    with pytest.raises(StateError, match=r"up to offset 16, and it ends at -1.*made anew"):
        stopped.end()


def test_bad_messages_are_left_out_and_those_of_the_inbox_become_dead_letters(stream: Stream, sqlite: Ledger):
    bad = [
        Message(b"c1", b"{", ()),
        Message(b"c1", b'{"transaction_id": "t9"}', (("type", b"transaction"),)),
        Message(b"c1", b"{}", (("type", b"label"),)),
    ]
    stream.send(stream.names.transactions, bad)
    stream.pay([payment(1)])
    for topic in (stream.names.decisions, stream.names.alerts, stream.names.shared_state):
        stream.send(topic, [Message(b"c1", b'{"minute": "x"}', ())])
    refused = Message(b"t1", b'{"transaction_id": "t1"}', (("type", b"label"), ("trace", b"\xff")))
    stream.send(stream.names.labels, [refused])
    stream.label([label(1)])
    with running(stream, sqlite) as sink:
        until(lambda: counts(sqlite)["transactions"] == 1 and LedgerOutbox(sqlite.database).counts() == (0, 0))
        until(lambda: counts(sqlite)["labels"] == 1)
        until(lambda: sink.metric("fraud_sink_bad_messages_total", topic="labels", code="invalid_label") == 1)
        codes = ("not_json", "invalid_transaction", "invalid_label")
        assert [sink.metric("fraud_sink_bad_messages_total", topic="transactions", code=c) for c in codes] == [1, 1, 1]
    (letter,) = stream.content(stream.names.dead_letters)
    assert (letter.key(), letter.value()) == (refused.key, refused.value)
    assert header_text(letter.headers(), "dlq-code") == "invalid_label"
    assert header_text(letter.headers(), "dlq-source") == f"{stream.names.labels}[{stream.partition_of(b't1')}]@0"
    assert dict(letter.headers())["trace"] == b"\xff"


def _known(ledger: Ledger) -> set[str]:
    with ledger.database.reading() as connection:
        return set(connection.exec_driver_sql("SELECT topic FROM sink_positions").scalars())
