"""A steady stream with known content: payments of few customers at few merchants, and all that a stream brings besides.

Event time runs faster than the clock until it has caught up with it, so that minutes close many times in a short run, first as
in a replay and then live.
"""

from __future__ import annotations

import json
import logging
import queue
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from confluent_kafka import Producer

from fraud_pipeline.adapters.kafka.connection import KafkaSettings, producer_config
from fraud_pipeline.adapters.kafka.messages import (
    HEADERS,
    MAX_VALUE_BYTES,
    Message,
    inbox_message,
    label_message,
    transaction_message,
)
from fraud_pipeline.adapters.kafka.partitions import partition_of
from fraud_pipeline.adapters.kafka.topics import Topics
from fraud_pipeline.domain.transaction import Label, LabelChange, Transaction

TICK_S: Final = 0.05
QUIET: Final = logging.getLogger("fraud_pipeline_tests.faults.kafka")
"""What librdkafka says of a broker that is away: it is meant to be."""
CUSTOMERS: Final = 60
MERCHANTS: Final = 12
DEVICES: Final = 30
REMEMBERED: Final = 3_000
"""Payments that may be repeated, contradicted or labelled later."""
FLUSH_S: Final = 90.0
"""Longer than any outage of the broker in a run."""
MATURE: Final = timedelta(days=7, hours=3)


class Feed:
    """Produces in a thread of its own from `start` on. What the methods ask for, it does at its next turn."""

    def __init__(
        self, settings: KafkaSettings, topics: Topics, *, partitions: int, seed: int, rate: float, speed: float,
        behind: timedelta,
    ) -> None:  # fmt: skip
        self.produced: Counter[str] = Counter()
        self.failed: list[str] = []
        self.ends: dict[int, int] = dict.fromkeys(range(partitions), 0)
        """The next offset of each partition, as far as the broker has confirmed."""
        self._topics = topics
        self._partitions = partitions
        self._random = random.Random(seed)
        self._rate, self._speed = rate, speed
        self._event_time = datetime.now(UTC) - behind
        self._step = timedelta()
        self._quiet: int | None = None
        self._number = 0
        self._recent: deque[Transaction] = deque(maxlen=REMEMBERED)
        self._asked: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        # Whatever happens to the broker, nothing is given up: what was produced is in the log, once and in order.
        more = {"linger.ms": 5, "enable.idempotence": True, "message.timeout.ms": 0}
        self._producer = Producer({**producer_config(settings), **more}, logger=QUIET)
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End, once the broker has all of it."""
        self._stopping.set()
        self._thread.join(FLUSH_S)
        left = self._producer.flush(FLUSH_S)
        if self._failure is not None:
            raise self._failure
        if left or self.failed:
            raise AssertionError(f"{left} messages were not confirmed, {len(self.failed)} failed: {self.failed[:3]}")

    @property
    def unconfirmed(self) -> int:
        return len(self._producer)

    def burst(self, count: int) -> None:
        """So many payments at once."""
        self._asked.put(lambda: self._pay(count))

    def repeats(self, count: int) -> None:
        """Payments that were there before, in another order."""
        self._asked.put(lambda: self._send_all(self._chosen(count)))

    def conflicts(self, count: int) -> None:
        """Ids that were there before, with another amount."""
        self._asked.put(
            lambda: self._send_all([replace(t, amount_minor=t.amount_minor + 1) for t in self._chosen(count)])
        )

    def reordered(self, count: int) -> None:
        """New payments whose times are out of order, by up to ten minutes."""
        self._asked.put(lambda: self._reorder(count))

    def step_clock(self, step: timedelta) -> None:
        """From now on event times are so much later (or earlier)."""
        self._asked.put(lambda: self._set_step(step))

    def quiet(self, partition: int | None) -> None:
        """No payments for this partition until told otherwise."""
        self._asked.put(lambda: setattr(self, "_quiet", partition))

    def poison(self, copies: int) -> None:
        """Each kind of message that no scorer can take."""
        self._asked.put(lambda: self._poison(copies))

    def _run(self) -> None:
        try:
            before = time.monotonic()
            owed = 0.0
            while not self._stopping.wait(TICK_S):
                while not self._asked.empty():
                    self._asked.get()()
                now = time.monotonic()
                owed += (now - before) * self._rate
                elapsed, before = timedelta(seconds=(now - before) * self._speed), now
                self._event_time = min(self._event_time + elapsed, datetime.now(UTC))
                count, owed = int(owed), owed - int(owed)
                self._pay(count)
                self._sprinkle(count)
                self._producer.poll(0)
        except BaseException as err:  # noqa: BLE001 raised again by `stop`
            self._failure = err

    def _pay(self, count: int) -> None:
        self._send_all([self._payment() for _ in range(count)])

    def _payment(self) -> Transaction:
        pick = self._random
        while True:
            customer = f"c{int(CUSTOMERS * pick.random() ** 2)}"
            if self._quiet is None or partition_of(customer.encode(), self._partitions) != self._quiet:
                break
        self._number += 1
        moment = min(self._event_time + self._step, datetime.now(UTC)) - timedelta(milliseconds=pick.randrange(900))
        return Transaction(
            f"p{self._number}", moment, customer, f"m{int(MERCHANTS * pick.random() ** 2)}",
            pick.choice((0, 500, 1_999, 25_000, 990_000)) + pick.randrange(100),
            merchant_category=pick.choice(("groceries", "travel", "food")), channel=pick.choice(("pos", "online", "atm")),
            country=pick.choice(("DE", "FR", "US", None)),
            device_id=f"d{pick.randrange(DEVICES)}" if pick.random() < 0.8 else None,
            attributes={"ip_risk": pick.randrange(10) / 10} if pick.random() < 0.5 else {},
        )  # fmt: skip

    def _sprinkle(self, count: int) -> None:
        """Of each tick a few: repeats, conflicts, labels by the inbox, and label changes as the sink would send them."""
        pick = self._random
        for _ in range(count):
            if pick.random() < 0.01:
                self._send_all(self._chosen(1))
            if pick.random() < 0.003:
                self._send_all([replace(t, amount_minor=t.amount_minor + 7) for t in self._chosen(1)])
            if pick.random() < 0.01:
                for t in self._chosen(1):
                    self._label(t)
            if pick.random() < 0.02:
                self._mature_label()

    def _label(self, t: Transaction) -> None:
        known_at = datetime.now(UTC)
        label = Label(t.transaction_id, self._random.random() < 0.7, "chargeback", "bank", known_at)
        message = inbox_message(label)
        self._produce(self._topics.labels, message, "inbox labels")

    def _mature_label(self) -> None:
        """On a payment of a week ago, so that its merchant's share of fraud changes."""
        pick = self._random
        self._number += 1
        customer, moment = f"c{pick.randrange(CUSTOMERS)}", self._event_time
        change = LabelChange(
            f"old{self._number}", 1, moment, moment - MATURE, customer, f"m{pick.randrange(MERCHANTS)}", "food", "pos", "DE",
            None,
        )  # fmt: skip
        label = Label(change.transaction_id, True, "chargeback", "bank", moment)
        self._produce(self._topics.transactions, label_message(change, label), "label changes")

    def _chosen(self, count: int) -> list[Transaction]:
        return self._random.sample(list(self._recent), min(count, len(self._recent)))

    def _reorder(self, count: int) -> None:
        late = [self._payment() for _ in range(count)]
        for place, t in enumerate(late):
            late[place] = replace(t, event_time=t.event_time - timedelta(seconds=self._random.randrange(600)))
        self._send_all(late)

    def _set_step(self, step: timedelta) -> None:
        self._step = step

    def _send_all(self, payments: list[Transaction]) -> None:
        for t in payments:
            self._recent.append(t)
            self._produce(self._topics.transactions, transaction_message(t), "payments")

    def _poison(self, copies: int) -> None:
        good = transaction_message(self._payment())
        value, plain = json.loads(good.value), HEADERS["transaction"]
        future = {**value, "event_time": (datetime.now(UTC) + timedelta(hours=2)).isoformat()}
        other = (("type", b"transaction"), ("content-type", b"application/json"), ("version", b"9"))
        strange = (("type", b"riddle"), ("content-type", b"application/json"), ("version", b"1"))
        bad: list[tuple[bytes | None, bytes | None, Any]] = [
            (good.key, good.value[: len(good.value) // 2], plain),
            (good.key, b"\xff\xfe" + good.value, plain),
            (good.key, None, plain),
            (good.key, b"null", plain),
            (good.key, b"", plain),
            (b"somebody else", good.value, plain),
            (None, good.value, plain),
            (good.key, json.dumps(future).encode(), plain),
            (good.key, json.dumps({**value, "amount": -1}).encode(), plain),
            (good.key, b" " * (MAX_VALUE_BYTES + 1) + good.value, plain),
            (good.key, good.value, other),
            (good.key, good.value, strange),
            (good.key, b"[1, 2]", plain),
            (good.key, good.value.replace(b'"amount"', b'"amount":1,"amount"'), plain),
        ]
        for _ in range(copies):
            for key, content, headers in bad:
                where = self._random.randrange(self._partitions)
                self._hand_over(self._topics.transactions, key, content, headers, "poison", partition=where)

    def _produce(self, topic: str, message: Message, kind: str) -> None:
        self._hand_over(topic, message.key, message.value, message.headers, kind)

    def _hand_over(self, topic: str, key: Any, value: Any, headers: Any, kind: str, **where: Any) -> None:
        while True:
            try:
                self._producer.produce(
                    topic, value=value, key=key, headers=list(headers), on_delivery=self._confirmed, **where
                )
                break
            except BufferError:
                self._producer.poll(TICK_S)
        self.produced[kind] += 1

    def _confirmed(self, error: Any, message: Any) -> None:
        if error is not None:
            self.failed.append(str(error))
        elif message.topic() == self._topics.transactions:
            self.ends[message.partition()] = max(self.ends[message.partition()], message.offset() + 1)
