"""The sink on a real broker and real databases."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_outbox import LedgerOutbox
from fraud_pipeline.adapters.ledger_raw import closings, raw_from, raw_pages, raw_through
from fraud_pipeline.adapters.local_services.kafka_server import KafkaServer
from fraud_pipeline_tests.sink_rig import NOW, Stream, counts, decision, label, payment, running, until


@pytest.fixture
def stream(kafka: KafkaServer) -> Stream:
    return Stream(kafka.address)


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with Ledger.open(ledger_url) as opened:
        yield opened


def test_everything_in_the_topics_is_in_the_ledger(stream: Stream, ledger: Ledger):
    payments = [payment(n) for n in range(300)]
    stream.pay(payments)
    stream.decide(payments)
    stream.decide(payments[:100], "BLOCK", role="shadow")
    stream.alert(payments[:20])
    stream.close_minute(1, 29_000_000, 17, by_clock=True)
    with running(stream, ledger):
        whole = {"transactions": 300, "decisions": 400, "alerts": 20, "labels": 0, "minute_closings": 1}
        until(lambda: counts(ledger) == whole)
    raw = {m.value(): m for m in stream.content(stream.names.transactions)}
    places = {(m.partition(), m.offset(), m.timestamp()[1]) for m in raw.values()}
    kept = ledger.transactions([t.transaction_id for t in payments])
    assert sorted(k.transaction.transaction_id for k in kept) == sorted(t.transaction_id for t in payments)
    assert {(int(k.writer[-2]), k.sequence, round(k.received_at.timestamp() * 1000)) for k in kept} == places
    answer = ledger.decision("t7")
    assert answer is not None
    assert (answer.payload, answer.features) == (
        decision(payments[7]).to_json().decode(),
        decision(payments[7]).features,
    )
    shadow = ledger.decision("t7", role="shadow")
    assert shadow is not None
    assert shadow.decision == "BLOCK"
    writer = f"{stream.names.transactions}[1]"
    assert [(c.minute, c.offset, c.by_clock) for c in closings(ledger.database, writer, -1)] == [(29_000_000, 17, True)]


def test_labels_reach_the_partition_of_their_payment_and_find_their_place(stream: Stream, ledger: Ledger):
    payments = [payment(n) for n in range(20)]
    stream.pay(payments[:10])
    stream.alert(payments[3:5])
    outbox = LedgerOutbox(ledger.database)
    with running(stream, ledger) as sink:
        until(lambda: counts(ledger)["alerts"] == 2)
        stream.label([label(3), label(15)])
        until(lambda: outbox.counts() == (1, 0), "the first label's place")
        ledger.record_labels([label(3, is_fraud=False, author="analyst")])  # as the service does
        stream.pay(payments[10:])
        until(lambda: outbox.counts() == (0, 0) and counts(ledger)["transactions"] == 20, "the waiting label's place")
        until(lambda: sink.metric("fraud_sink_labels_sent_total") == 3)
    sent = stream.labels_sent()
    assert [each for each in sent if each[0] == "t3"] == [
        ("t3", 1, stream.partition_of(b"c3")), ("t3", -1, stream.partition_of(b"c3"))
    ]  # fmt: skip
    assert [each for each in sent if each[0] == "t15"] == [("t15", 1, stream.partition_of(b"c15"))]
    assert [a.transaction_id for a in ledger.open_alerts()] == ["t4"]
    for partition in range(2):
        writer = f"{stream.names.transactions}[{partition}]"
        through = raw_through(ledger.database, writer)
        pages = list(raw_pages(ledger.database, writer, -1, through))
        assert sum(len(p.labels) for p in pages) == sum(s[2] == partition for s in sent)


def test_repeats_and_conflicts_are_counted_and_the_first_stays(stream: Stream, ledger: Ledger):
    stream.pay([payment(1), payment(2)])
    stream.pay([payment(1), payment(2, amount_minor=7), payment(3)])
    with running(stream, ledger) as sink:
        until(lambda: counts(ledger)["transactions"] == 3)
        until(lambda: sink.metric("fraud_sink_conflicts_total") == 1)
        assert sink.metric("fraud_sink_repeats_total", table="transactions") == 1
    kept = ledger.transaction("t2")
    assert kept is not None
    assert kept.transaction == payment(2)


def test_what_is_older_than_the_retention_is_deleted_beside_the_loop(stream: Stream, ledger: Ledger):
    payments = [payment(n) for n in range(40)]
    stream.pay(payments)
    stream.decide(payments)
    with running(stream, ledger):
        until(lambda: counts(ledger)["decisions"] == 40 and counts(ledger)["transactions"] == 40)
    with running(stream, ledger, retention_days=98, now=lambda: NOW + timedelta(days=99)) as sink:
        until(lambda: counts(ledger)["decisions"] == 0 and counts(ledger)["transactions"] == 0)
        until(lambda: sink.metric("fraud_sink_deleted_rows_total", table="decisions") == 40)
    for partition in range(2):
        writer = f"{stream.names.transactions}[{partition}]"
        assert raw_from(ledger.database, writer) == raw_through(ledger.database, writer) + 1
