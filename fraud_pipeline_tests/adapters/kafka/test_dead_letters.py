"""Dead letters on a real broker: every byte kept, each requeued once, all of a request or nothing."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # its stub forgets the second

from fraud_pipeline.adapters.kafka.dead_letters import DeadLetters, moment_of
from fraud_pipeline.adapters.kafka.messages import BadMessage, Place, dead_letter, transaction_message
from fraud_pipeline.adapters.local_services.kafka_server import KafkaServer
from fraud_pipeline.errors import Busy, DependencyError, InputError, NotFound
from fraud_pipeline_tests.entries import payment

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Rig:
    """Topics of one test, and what stands in them."""

    def __init__(self, address: str) -> None:
        self.prefix = f"p{uuid.uuid4().hex[:8]}."
        self.address = address
        self.dead, self.transactions = self.prefix + "transactions.dlq", self.prefix + "transactions"
        admin = AdminClient({"bootstrap.servers": address})
        made = admin.create_topics([NewTopic(self.dead, 2, 1), NewTopic(self.transactions, 4, 1)])
        for future in made.values():
            future.result()

    def letters(self, topic: str = "") -> DeadLetters:
        common: dict[str, Any] = {"bootstrap.servers": self.address}
        return DeadLetters(
            topic or self.dead,
            consumer={**common, "group.id": self.prefix + "dlq"},
            producer={**common, "partitioner": "murmur2_random"},
            trouble=lambda err, doing: DependencyError(f"cannot {doing}: {err}"),
        )

    def bury(
        self, number: int, *, key: bytes | None = b"c1", value: bytes | None = b"{", source_partition: int = 3,
        headers: list[tuple[str, bytes | None]] | None = None, partition: int = 0, code: Any = "not_json",
    ) -> None:  # fmt: skip
        source = Place(self.transactions, source_partition, number)
        error = BadMessage(code, f"letter {number} is broken")
        at = NOW + timedelta(seconds=number)
        letter = dead_letter(key, value, headers, source=source, error=error, at=at)
        producer = Producer({"bootstrap.servers": self.address})
        producer.produce(self.dead, letter.value, letter.key, headers=list(letter.headers), partition=partition)
        assert producer.flush(30) == 0

    def taken(self) -> list[Any]:
        """What stands in `transactions`, as a reader of committed messages sees it."""
        consumer = Consumer(
            {"bootstrap.servers": self.address, "group.id": self.prefix, "isolation.level": "read_committed", "enable.partition.eof": True}
        )  # fmt: skip
        consumer.assign([TopicPartition(self.transactions, partition, 0) for partition in range(4)])
        found, ends = [], 0
        while ends < 4:
            message = consumer.poll(30)
            assert message is not None
            if message.error() is None:
                found.append(message)
            else:
                ends += 1
        consumer.close()
        return found


@pytest.fixture
def rig(kafka: KafkaServer) -> Rig:
    return Rig(kafka.address)


def test_letters_are_listed_with_code_and_places_in_the_order_they_came(rig: Rig) -> None:
    rig.bury(2, partition=0)
    rig.bury(1, partition=1, code="wrong_key")
    first, second = rig.letters().all()
    assert (first.code, first.source, str(first.place)) == (
        "wrong_key", f"{rig.transactions}[3]@1", f"{rig.dead}[1]@0",
    )  # fmt: skip
    assert (second.code, second.error, second.size) == ("not_json", "letter 2 is broken", 1)
    assert moment_of(second) == NOW + timedelta(seconds=2)
    assert not first.requeued


def test_one_letter_is_found_with_its_bytes(rig: Rig) -> None:
    headers: list[tuple[str, bytes | None]] = [("trace", b"\xff\x00"), ("trace", None), ("type", b"transaction")]
    rig.bury(0, key=b"\xfe", value=b"\x00\x01{", headers=headers)
    rig.bury(1, key=None, value=None)
    letters = rig.letters()
    letter = letters.find(Place(rig.dead, 0, 0))
    assert (letter.key, letter.value, list(letter.headers)) == (b"\xfe", b"\x00\x01{", headers)
    empty = letters.find(Place(rig.dead, 0, 1))
    assert [empty.key, empty.value] == [None, None]


@pytest.mark.parametrize(("partition", "offset"), [(0, 7), (1, 0), (5, 0)])
def test_a_letter_that_is_not_there_is_not_found(rig: Rig, partition: int, offset: int) -> None:
    rig.bury(0)
    with pytest.raises(NotFound):
        rig.letters().find(Place(rig.dead, partition, offset))


def test_a_topic_that_is_not_there_is_not_found(rig: Rig) -> None:
    with pytest.raises(NotFound, match="no topic"):
        rig.letters(rig.prefix + "other").all()


def test_a_requeued_letter_is_the_message_it_was_on_the_partition_it_was_on(rig: Rig) -> None:
    headers: list[tuple[str, bytes | None]] = [("trace", b"\xff"), ("version", b"9")]
    rig.bury(0, key=b"c\xff", value=b'{"a": \xff}', headers=headers, source_partition=2)
    letters = rig.letters()
    sent = letters.requeue([Place(rig.dead, 0, 0)], topic=rig.transactions)
    (message,) = rig.taken()
    assert (message.key(), message.value(), message.partition()) == (b"c\xff", b'{"a": \xff}', 2)
    assert message.headers() == [*headers, ("requeued-from", f"{rig.dead}[0]@0".encode())]
    assert [str(letter.place) for letter in sent] == [f"{rig.dead}[0]@0"]
    (letter,) = letters.all()
    assert letter.requeued


def test_a_letter_is_not_requeued_twice_by_accident(rig: Rig) -> None:
    rig.bury(0)
    place = Place(rig.dead, 0, 0)
    rig.letters().requeue([place], topic=rig.transactions)
    with pytest.raises(InputError, match="already"):
        rig.letters().requeue([place], topic=rig.transactions)
    assert len(rig.taken()) == 1
    rig.letters().requeue([place], topic=rig.transactions, again=True)
    assert len(rig.taken()) == 2


def test_all_letters_of_a_request_are_requeued_or_none(rig: Rig) -> None:
    rig.bury(0)
    rig.bury(1)
    letters = rig.letters()
    with pytest.raises(NotFound):
        letters.requeue([Place(rig.dead, 0, 0), Place(rig.dead, 1, 0)], topic=rig.transactions)
    assert rig.taken() == []
    assert not any(letter.requeued for letter in letters.all())
    letters.requeue([Place(rig.dead, 0, 0), Place(rig.dead, 0, 1)], topic=rig.transactions)
    assert len(rig.taken()) == 2
    assert all(letter.requeued for letter in letters.all())


def test_a_mended_letter_goes_where_its_new_key_belongs(rig: Rig) -> None:
    message = transaction_message(payment(1))
    rig.bury(0, key=b"wrong", value=message.value, headers=list(message.headers), code="wrong_key")
    place = Place(rig.dead, 0, 0)
    rig.letters().requeue([place], topic=rig.transactions, value=message.value, key=message.key)
    (taken,) = rig.taken()
    assert (taken.key(), taken.value()) == (message.key, message.value)
    reference = Producer({"bootstrap.servers": rig.address, "partitioner": "murmur2_random"})
    where: list[int] = []
    reference.produce(
        rig.transactions,
        message.value,
        message.key,
        on_delivery=lambda err, sent: where.append(int(sent.partition() or 0)),
    )
    reference.flush(30)
    assert where == [taken.partition()]


def test_what_fails_again_says_which_letter_it_was(rig: Rig) -> None:
    rig.bury(0)
    rig.letters().requeue([Place(rig.dead, 0, 0)], topic=rig.transactions)
    (message,) = rig.taken()
    rig.bury(1, value=message.value(), headers=message.headers())
    first, second = rig.letters().all()
    assert (first.requeued, first.earlier) == (True, None)
    assert (second.requeued, second.earlier) == (False, f"{rig.dead}[0]@0")


def test_of_two_who_requeue_at_once_the_overtaken_one_changes_nothing(rig: Rig) -> None:
    rig.bury(0)
    place = Place(rig.dead, 0, 0)
    quick = rig.letters()

    class Overtaken(DeadLetters):
        def all(self) -> Any:
            stale = super().all()
            quick.requeue([place], topic=rig.transactions)
            return stale

    slow = rig.letters()
    slow.__class__ = Overtaken
    with pytest.raises(Busy, match="in between"):
        slow.requeue([place], topic=rig.transactions)
    assert len(rig.taken()) == 1


def test_a_broker_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fraud_pipeline.adapters.kafka.dead_letters.SILENT_S", 1.0)
    letters = DeadLetters(
        "t.dlq",
        consumer={"bootstrap.servers": "127.0.0.1:9", "group.id": "g", "log_level": 0},
        producer={"bootstrap.servers": "127.0.0.1:9"},
        trouble=lambda err, doing: DependencyError(f"cannot {doing}"),
    )
    with pytest.raises(DependencyError, match=r"cannot read t\.dlq"):
        letters.all()
