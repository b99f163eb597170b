"""`fraud produce` and `fraud dlq` on a real broker, from the command line: what a person types and what comes of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from fraud_pipeline.adapters.kafka.messages import BadMessage, Place, dead_letter, read_inbox_label, read_log_message
from fraud_pipeline.adapters.local_services.kafka_server import KafkaServer
from fraud_pipeline.cli import run
from fraud_pipeline.domain.transaction import Transaction

DEADLINE_S = 60.0


@pytest.fixture
def prefix(kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch, home: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Topics of this test's own, made by the command that makes them."""
    name = f"p{uuid.uuid4().hex[:8]}."
    monkeypatch.setenv("FRAUD_KAFKA_BOOTSTRAP_SERVERS", kafka.address)
    monkeypatch.setenv("FRAUD_TOPIC_PREFIX", name)
    monkeypatch.setenv("FRAUD_CUSTOMERS", "40")
    monkeypatch.setenv("FRAUD_MERCHANTS", "20")
    monkeypatch.setenv("FRAUD_DAYS", "5")
    assert run(["topics", "create"]) == 0
    capsys.readouterr()
    return name


def messages(kafka: KafkaServer, topic: str) -> list[Any]:
    """Everything in a topic."""
    whole = {"isolation.level": "read_committed", "enable.partition.eof": True}
    consumer = Consumer({"bootstrap.servers": kafka.address, "group.id": topic, **whole})
    partitions = consumer.list_topics(topic, timeout=DEADLINE_S).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    found, ends = [], 0
    while ends < len(partitions):
        message = consumer.poll(DEADLINE_S)
        assert message is not None
        if message.error() is None:
            found.append(message)
        else:
            ends += 1
    consumer.close()
    return found


def read(message: Any) -> Transaction:
    received_at = datetime.fromtimestamp(message.timestamp()[1] / 1e3, UTC)
    event = read_log_message(message.key(), message.value(), message.headers(), currency="USD", received_at=received_at)
    assert isinstance(event, Transaction)
    return event


def result(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def test_a_live_world_is_produced_as_payments_of_now(
    kafka: KafkaServer, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = datetime.now(UTC)
    options = ["--rate", "0", "--count", "500", "--fraud-rate", "0.3", "--drift", "inflation", "--json"]
    assert run(["produce", *options]) == 0
    said = result(capsys)
    assert (said["sent"], said["delivered"], said["failed"], said["stopped"]) == (500, 500, 0, False)
    assert 0 < said["frauds"] < 500
    produced = messages(kafka, prefix + "transactions")
    payments = [read(message) for message in produced]
    assert len({payment.transaction_id for payment in payments}) == 500
    assert all(before - timedelta(seconds=1) <= payment.event_time <= datetime.now(UTC) for payment in payments)
    where: dict[str, set[int]] = {}
    for message, payment in zip(produced, payments, strict=True):
        where.setdefault(payment.customer_id, set()).add(message.partition())
    assert all(len(partitions) == 1 for partitions in where.values())
    assert said["partitions"] == {
        str(partition): sum(message.partition() == partition for message in produced)
        for partition in sorted({message.partition() for message in produced})
    }


def test_a_history_is_replayed_with_its_own_times_and_its_labels(
    kafka: KafkaServer, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = datetime.now(UTC)
    assert run(["produce", "--speed", "0", "--fraud-rate", "0.3", "--label-delay", "1", "2", "--json"]) == 0
    said = result(capsys)
    payments = [read(message) for message in messages(kafka, prefix + "transactions")]
    assert len(payments) == said["payments"]["delivered"] > 100
    assert max(p.event_time for p in payments) - min(p.event_time for p in payments) > timedelta(days=3)
    labels = [
        read_inbox_label(message.value(), message.headers(), known_at=datetime.now(UTC))
        for message in messages(kafka, prefix + "labels")
    ]
    assert len(labels) == said["labels"]["delivered"] > 0
    made = {payment.transaction_id: payment.event_time for payment in payments}
    # As they were, not when they came; but those of the last days, whose time has not come, are known from now on.
    delays = [label.known_at - made[label.transaction_id] for label in labels if label.known_at < before]
    assert delays
    assert timedelta(days=1) <= min(delays) <= max(delays) <= timedelta(days=2)


def test_a_producer_that_is_asked_to_stop_flushes_and_says_what_it_did(kafka: KafkaServer, prefix: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "streaming.producer", "--rate", "200", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + DEADLINE_S
    while not messages(kafka, prefix + "transactions"):
        assert time.monotonic() < deadline
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=DEADLINE_S)
    said = json.loads(out)
    assert process.returncode == 0, err
    assert said["stopped"]
    assert said["failed"] == 0
    assert said["delivered"] == said["sent"] == len(messages(kafka, prefix + "transactions"))


def test_without_topics_nothing_is_produced(
    kafka: KafkaServer, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FRAUD_TOPIC_PREFIX", prefix + "other.")
    assert run(["produce", "--count", "1"]) == 2
    assert "fraud topics create" in capsys.readouterr().err


def test_a_time_that_is_none_is_refused(prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["produce", "--speed", "0", "--start-at", "soon"]) == 2
    assert "--start-at 'soon' is no time" in capsys.readouterr().err


def bury(kafka: KafkaServer, prefix: str, value: bytes) -> None:
    source = Place(prefix + "transactions", 0, 5)
    error = BadMessage("not_json", "The body is not JSON \x1b[31m")
    letter = dead_letter(b"c1", value, [("trace", b"\x1b[2J")], source=source, error=error, at=datetime.now(UTC))
    producer = Producer({"bootstrap.servers": kafka.address})
    producer.produce(prefix + "transactions.dlq", letter.value, letter.key, headers=list(letter.headers))
    assert producer.flush(DEADLINE_S) == 0


def test_dead_letters_are_listed_shown_mended_and_requeued(
    kafka: KafkaServer, prefix: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    broken = b'{"transaction_id":"t1\x07'
    bury(kafka, prefix, broken)
    assert run(["dlq", "list", "--json"]) == 0
    listed = result(capsys)
    (row,) = listed["letters"]
    assert (listed["count"], listed["codes"], row["source"]) == (1, {"not_json": 1}, f"{prefix}transactions[0]@5")
    assert run(["dlq", "list", "--code", "too_large", "--json"]) == 0
    assert result(capsys)["count"] == 0
    assert run(["dlq", "show", row["place"], "--out", str(tmp_path / "value")]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert (tmp_path / "value").read_bytes() == broken

    mended = tmp_path / "mended"
    mended.write_bytes(broken)
    assert run(["dlq", "requeue", row["place"], "--value", str(mended)]) == 2
    assert "dead letter again (not_json)" in capsys.readouterr().err
    now = datetime.now(UTC).isoformat()
    payment = {"transaction_id": "t1", "event_time": now, "customer_id": "c1", "merchant_id": "m1", "amount": 1}
    mended.write_text(json.dumps(payment))
    assert run(["dlq", "requeue", row["place"], "--value", str(mended), "--json"]) == 0
    assert result(capsys)["requeued"] == [row["place"]]
    (message,) = messages(kafka, prefix + "transactions")
    assert read(message).transaction_id == "t1"
    assert dict(message.headers())["requeued-from"] == row["place"].encode()

    assert run(["dlq", "requeue", row["place"]]) == 2
    assert "already" in capsys.readouterr().err
    assert run(["dlq", "requeue", "--code", "not_json", "--json"]) == 0
    assert result(capsys)["requeued"] == []


def test_who_names_no_letter_is_told_so(prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["dlq", "requeue"]) == 2
    assert run(["dlq", "show", "somewhere"]) == 2
    assert "transactions[3]@123" in capsys.readouterr().err
