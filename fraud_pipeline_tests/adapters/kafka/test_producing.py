"""Producing: everything handed over is counted once, in order, at its pace; a stop loses nothing; a full queue is waited for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from confluent_kafka import KafkaError, KafkaException

from fraud_pipeline.adapters.kafka.producing import ProducePlan, Production, Tally
from fraud_pipeline.adapters.payment_feed import Chunk, LabelToCome
from fraud_pipeline.errors import DependencyError
from fraud_pipeline_tests.adapters.kafka.fake_producer import FakeProducer

START_US = 1_770_000_000_000_000
HOUR_US = 3_600_000_000


def chunk(first: int, rows: int, *, timed: bool = True, label_after_us: int | None = None) -> Chunk:
    """Payments an hour apart; with a delay each one is a fraud that gets a label."""
    numbers = range(first, first + rows)
    values = [
        orjson.dumps({"event_time": f"at {number}", "transaction_id": f"t{number}"} if timed else {"transaction_id": f"t{number}"})
        for number in numbers
    ]  # fmt: skip
    labels = {}
    if label_after_us is not None:
        labels = {
            row: [LabelToCome(f"t{first + row}", label_after_us, True, "simulation", "simulator")]
            for row in range(rows)
        }
    return Chunk(
        moments=[START_US + number * HOUR_US for number in numbers],
        keys=[f"c{number % 3}".encode() for number in numbers],
        values=values,
        frauds=frozenset(labels),
        labels=labels,
        timed=timed,
    )


def plan(**changes: object) -> ProducePlan:
    return ProducePlan(**{"topic": "transactions", "labels": "labels", **changes})  # type: ignore[arg-type]


def told(producer: FakeProducer) -> list[str]:
    """What was produced in its order: `t1`, and `t1!` for its label."""
    marks = {"transactions": "", "labels": "!"}
    return [orjson.loads(message.value)["transaction_id"] + marks[message.topic] for message in producer.produced]


def test_everything_is_sent_in_order_and_counted_once() -> None:
    producer = FakeProducer()
    tally = Production(producer, plan()).run([chunk(0, 5), chunk(5, 5)])
    assert told(producer) == [f"t{number}" for number in range(10)]
    assert tally.payments.as_dict() == {"sent": 10, "delivered": 10, "failed": 0}
    assert sum(tally.payments.partitions.values()) == 10
    assert dict(producer.produced[0].headers) == {
        "type": b"transaction", "content-type": b"application/json", "version": b"1",
    }  # fmt: skip
    assert producer.produced[4].key == b"c1"


def test_what_the_broker_refuses_is_counted_as_failed() -> None:
    producer = FakeProducer(refused=frozenset({b"c1"}))
    tally = Production(producer, plan()).run([chunk(0, 9)])
    assert tally.payments.as_dict() == {"sent": 9, "delivered": 6, "failed": 3}
    result = tally.as_dict()
    assert (result["sent"], result["delivered"] + result["failed"], result["first_failure"]) == (9, 9, "refused")


def test_a_full_queue_is_waited_for_and_nothing_is_lost() -> None:
    producer = FakeProducer(room=2)
    tally = Production(producer, plan()).run([chunk(0, 11)])
    assert told(producer) == [f"t{number}" for number in range(11)]
    assert tally.payments.delivered == 11
    assert tally.waited > 0


def test_labels_come_when_the_history_reaches_their_time() -> None:
    producer = FakeProducer()
    tally = Production(producer, plan()).run([chunk(0, 4, label_after_us=HOUR_US * 3 // 2)])
    assert told(producer) == ["t0", "t1", "t0!", "t2", "t1!", "t3", "t2!", "t3!"]
    assert tally.labels.as_dict() == {"sent": 4, "delivered": 4, "failed": 0}
    assert tally.frauds == 4
    label = producer.produced[2]
    assert label.key == b"t0"
    assert orjson.loads(label.value)["is_fraud"] is True


def test_without_an_inbox_no_label_is_sent() -> None:
    producer = FakeProducer()
    tally = Production(producer, plan(labels=None)).run([chunk(0, 4, label_after_us=1)])
    assert told(producer) == ["t0", "t1", "t2", "t3"]
    assert tally.labels_left == 0


def test_a_count_ends_the_run_and_labels_whose_time_did_not_come_are_left() -> None:
    producer = FakeProducer()
    tally = Production(producer, plan(payments=3)).run([chunk(0, 10, label_after_us=5 * HOUR_US)])
    assert told(producer) == ["t0", "t1", "t2"]
    assert tally.labels_left == 3


def test_payments_of_now_get_the_clocks_time_and_labels_after_their_delay() -> None:
    producer = FakeProducer()
    at = iter(range(1_000_000))
    run = Production(producer, plan(), now=lambda: 1_770_000_000 + next(at))
    tally = run.run([chunk(0, 3, timed=False, label_after_us=30_000_000)])
    values = [orjson.loads(message.value) for message in producer.produced if message.topic == "transactions"]
    moments = [datetime.fromisoformat(value["event_time"]) for value in values]
    assert moments == sorted(moments)
    assert moments[0] >= datetime.fromtimestamp(1_770_000_000, UTC)
    assert moments[0] - datetime.fromtimestamp(1_770_000_000, UTC) < timedelta(minutes=1)
    assert tally.labels.sent + tally.labels_left == 3


def test_speed_replays_at_a_multiple_of_real_time() -> None:
    producer = FakeProducer()
    tally = Production(producer, plan(speed=HOUR_US / 1e6 * 100)).run([chunk(0, 6, label_after_us=HOUR_US // 2)])
    assert told(producer) == ["t0", "t0!", "t1", "t1!", "t2", "t2!", "t3", "t3!", "t4", "t4!", "t5"]
    assert tally.elapsed_s >= 0.049  # five hours at a hundred hours a second
    assert tally.labels_left == 1


def test_rate_spaces_the_payments() -> None:
    tally = Production(FakeProducer(), plan(rate=200)).run([chunk(0, 11)])
    assert tally.elapsed_s >= 0.049


def test_a_duration_ends_a_run_without_end() -> None:
    def endless() -> Iterator[Chunk]:
        first = 0
        while True:
            yield chunk(first, 4)
            first += 4

    tally = Production(FakeProducer(), plan(rate=500, duration_s=0.1)).run(endless())
    assert 0 < tally.payments.sent <= 51
    assert tally.payments.delivered == tally.payments.sent


def test_a_stop_flushes_and_counts_everything() -> None:
    producer, stop = FakeProducer(room=5), threading.Event()
    producer.when_polled = stop.set
    tally = Production(producer, plan(), stop=stop).run([chunk(0, 1_000)])
    assert tally.stopped
    assert 0 < tally.payments.sent < 1_000
    assert tally.payments.delivered == tally.payments.sent == len(producer.produced)


def test_a_stop_while_the_queue_is_full_does_not_wait_for_room() -> None:
    producer, stop = FakeProducer(room=5, answers=False), threading.Event()
    producer.when_polled = stop.set
    tally = Production(producer, plan(), stop=stop, flush_s=0.0).run([chunk(0, 100)])
    assert tally.payments.as_dict() == {"sent": 5, "delivered": 0, "failed": 5}


def test_a_second_stop_gives_up_what_is_under_way_and_counts_it_as_failed() -> None:
    producer, stop, hurry = FakeProducer(room=5, answers=False), threading.Event(), threading.Event()

    def asked_twice() -> None:
        (hurry if stop.is_set() else stop).set()

    producer.when_polled = asked_twice
    tally = Production(producer, plan(), stop=stop, hurry=hurry).run([chunk(0, 100)])
    assert tally.payments.failed == tally.payments.sent == 5
    assert tally.payments.first_failure == "purged"


def test_an_error_that_ends_the_producer_ends_the_run_with_all_counted() -> None:
    class Fatal(FakeProducer):
        def produce(self, topic: str, value: bytes, key: bytes, **options: object) -> None:
            if len(self.produced) == 3:
                raise KafkaException(KafkaError(KafkaError._FATAL, "fenced", fatal=True))
            super().produce(topic, value, key, **options)  # type: ignore[arg-type]

    tally = Tally()
    with pytest.raises(DependencyError, match="after 4 messages"):
        Production(Fatal(), plan(), tally=tally).run([chunk(0, 10)])
    assert tally.payments.as_dict() == {"sent": 4, "delivered": 3, "failed": 1}


def test_a_message_that_the_client_refuses_is_counted_and_the_run_goes_on() -> None:
    class Refusing(FakeProducer):
        def produce(self, topic: str, value: bytes, key: bytes, **options: object) -> None:
            if b'"t3"' in value:
                raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
            super().produce(topic, value, key, **options)  # type: ignore[arg-type]

    tally = Production(Refusing(), plan()).run([chunk(0, 10)])
    assert tally.payments.as_dict() == {"sent": 10, "delivered": 9, "failed": 1}
