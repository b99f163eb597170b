"""Payments and their labels into the log at a pace, and what became of each: the work of `fraud produce`.

Every message that was handed over is counted once, as delivered or as failed: `delivered + failed = sent` when it has ended.
A full queue is backpressure, not loss. Prints nothing.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from confluent_kafka import KafkaException

from fraud_pipeline.adapters.kafka.messages import HEADERS, inbox_message
from fraud_pipeline.adapters.payment_feed import Chunk, LabelToCome, stamped
from fraud_pipeline.errors import DependencyError

PRODUCER: Final[dict[str, Any]] = {
    "enable.idempotence": True,
    # Batches worth compressing at thousands a second; at one payment a second it costs 10 ms.
    "linger.ms": 10,
    "batch.size": 1_000_000,
    # Two seconds at 100,000/s, some 100 MB: what a broker's short absence takes before we wait for it.
    "queue.buffering.max.messages": 200_000,
}
"""Over the connection's configuration."""
SLICE_S: Final = 0.1
"""Longest wait without a look at whether to stop."""
EARLY_S: Final = 0.001
"""The client waits in whole milliseconds; what is due within one goes now."""
POLL_EVERY: Final = 256
"""Payments between two looks at delivery reports: a call costs as much as a payment."""
STAMP_US: Final = 1_000
"""Payments of one millisecond get one text for now: making it takes longer than sending a payment."""
FLUSH_S: Final = 30.0
"""For what is under way at the end: a broker that has not answered by then is away, and what waits has failed."""


class Producer(Protocol):
    """What this needs of confluent_kafka's Producer."""

    def produce(
        self, topic: str, value: bytes, key: bytes, *, headers: Any, on_delivery: Callable[[Any, Any], None]
    ) -> None: ...
    def poll(self, timeout: float) -> int: ...
    def flush(self, timeout: float) -> int: ...
    def purge(self) -> None: ...
    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducePlan:
    """What to produce, and when. `rate` is payments per second, `speed` the history's seconds per second; 0 is no limit.

    It ends with the feed, after `duration_s` or after `payments` of them, where these are not 0. `labels` names the inbox;
    without it no label is sent.
    """

    topic: str
    labels: str | None = None
    rate: float = 0.0
    speed: float = 0.0
    duration_s: float = 0.0
    payments: int = 0


@dataclass(slots=True)
class Counts:
    """Messages of one topic: handed over, confirmed by the broker, and not."""

    sent: int = 0
    delivered: int = 0
    failed: int = 0
    partitions: Counter[int] = field(default_factory=Counter)
    first_failure: str = ""

    @property
    def in_flight(self) -> int:
        return self.sent - self.delivered - self.failed

    def report(self, err: Any, message: Any) -> None:
        """The client's delivery report."""
        if err is None:
            self.delivered += 1
            self.partitions[message.partition()] += 1
        else:
            self.fail(str(err))

    def fail(self, reason: str) -> None:
        """One that was not confirmed."""
        self.failed += 1
        self.first_failure = self.first_failure or reason

    def as_dict(self) -> dict[str, int]:
        return {"sent": self.sent, "delivered": self.delivered, "failed": self.failed}


@dataclass(slots=True)
class Tally:
    """What came of it so far. `waited` counts how often the queue was full, `labels_left` labels whose time did not come."""

    payments: Counts = field(default_factory=Counts)
    labels: Counts = field(default_factory=Counts)
    frauds: int = 0
    waited: int = 0
    labels_left: int = 0
    stopped: bool = False
    started: float = field(default_factory=time.perf_counter)
    ended: float | None = None
    moment_us: int = 0

    @property
    def elapsed_s(self) -> float:
        return (self.ended or time.perf_counter()) - self.started

    @property
    def failed(self) -> int:
        return self.payments.failed + self.labels.failed

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        seconds = self.elapsed_s
        counts = {"sent": self.payments.sent + self.labels.sent, "failed": self.failed}
        counts["delivered"] = self.payments.delivered + self.labels.delivered
        return {
            **counts,
            "seconds": round(seconds, 3),
            "per_s": round(counts["delivered"] / seconds, 1) if seconds else None,
            "payments": self.payments.as_dict(),
            "labels": {**self.labels.as_dict(), "left": self.labels_left},
            "frauds": self.frauds,
            "partitions": {str(partition): n for partition, n in sorted(self.payments.partitions.items())},
            "queue_full": self.waited,
            "stopped": self.stopped,
            "first_failure": self.payments.first_failure or self.labels.first_failure or None,
        }


class Production:
    """One run: `run` to the end or until `stop` is set, then everything is flushed and counted.

    `hurry`, set too, gives up what is under way; it counts as failed.
    """

    def __init__(
        self,
        producer: Producer,
        plan: ProducePlan,
        *,
        tally: Tally | None = None,
        stop: threading.Event | None = None,
        hurry: threading.Event | None = None,
        now: Callable[[], float] = time.time,
        flush_s: float = FLUSH_S,
    ) -> None:
        self._producer = producer
        self._plan = plan
        self.tally = tally or Tally()
        self._stop = stop or threading.Event()
        self._hurry = hurry or threading.Event()
        self._now = now
        self._flush_s = flush_s
        self._to_come: list[tuple[int, int, LabelToCome]] = []
        self._headers = list(HEADERS["transaction"])
        self._first_us: int | None = None
        self._timed = True
        self._stamp_us, self._stamp = -STAMP_US, ""

    def run(self, feed: Iterable[Chunk]) -> Tally:
        """Send the feed."""
        tally = self.tally
        tally.started, tally.ended = time.perf_counter(), None
        try:
            whole = all(self._chunk(chunk) for chunk in feed)
            if whole and self._timed and not self._plan.speed:
                self._labels_until(tally.started, None)
        finally:
            tally.stopped = self._stop.is_set()
            tally.labels_left = len(self._to_come)
            self._finish()
            tally.ended = time.perf_counter()
        return tally

    def _chunk(self, chunk: Chunk) -> bool:
        """One chunk's payments, each when it is due; False where the run is over."""
        plan, tally, counts = self._plan, self.tally, self.tally.payments
        end = tally.started + plan.duration_s if plan.duration_s else float("inf")
        self._timed = chunk.timed
        paced = bool(plan.rate or plan.speed)
        for row, value in enumerate(chunk.values):
            if (plan.payments and counts.sent >= plan.payments) or self._stop.is_set():
                return False
            due = min(self._due(chunk.moments[row], counts.sent), end) if paced else 0.0
            if self._to_come:
                self._labels_until(due or time.perf_counter(), chunk.moments[row])
            if paced:
                self._wait_until(due)
            if due >= end or time.perf_counter() >= end or self._stop.is_set():
                return False
            moment_us, whole = chunk.moments[row], value
            if not chunk.timed:
                moment_us = int(self._now() * 1e6)
                if moment_us - self._stamp_us >= STAMP_US:
                    self._stamp_us, self._stamp = moment_us, _text(moment_us)
                whole = stamped(value, self._stamp)
            if not self._put(counts, plan.topic, whole, chunk.keys[row], self._headers):
                return False
            tally.moment_us = moment_us
            tally.frauds += row in chunk.frauds
            if row in chunk.labels:
                self._expect(chunk.labels[row], moment_us)
            if not counts.sent % POLL_EVERY:
                self._producer.poll(0)
        return True

    def _expect(self, labels: Iterable[LabelToCome], moment_us: int) -> None:
        """Send these when their time has come."""
        if self._plan.labels is not None:
            for label in labels:
                heapq.heappush(self._to_come, (moment_us + label.after_us, self.tally.payments.sent, label))

    def _due(self, moment_us: int, sent: int) -> float:
        """When a payment is due, on the clock of `perf_counter`."""
        due = self.tally.started
        if self._plan.speed:
            due += self._since_first(moment_us) / self._plan.speed
        if self._plan.rate:
            due = max(due, self.tally.started + sent / self._plan.rate)
        return due

    def _since_first(self, moment_us: int) -> float:
        if self._first_us is None:
            self._first_us = moment_us
        return (moment_us - self._first_us) / 1e6

    def _labels_until(self, due: float, moment_us: int | None) -> None:
        """Send the labels that become known before the payment that is due then; all of them where there is none."""
        inbox = self._plan.labels
        while inbox is not None and self._to_come and not self._stop.is_set():
            known_us, _, label = self._to_come[0]
            if self._timed and not self._plan.speed:
                if moment_us is not None and known_us > moment_us:
                    return
            else:
                at = time.perf_counter() + known_us / 1e6 - self._now()
                if self._timed:
                    at = self.tally.started + self._since_first(known_us) / self._plan.speed
                if at > due:
                    return
                self._wait_until(at)
                if self._stop.is_set():
                    return
            heapq.heappop(self._to_come)
            # A history's labels bring their times; one whose time has not come is known now.
            told = self._timed and known_us <= self._now() * 1e6
            message = inbox_message(label.at(known_us), with_time=told)
            if not self._put(self.tally.labels, inbox, message.value, message.key, list(message.headers)):
                return

    def _wait_until(self, due: float) -> None:
        """Wait, and take delivery reports meanwhile."""
        while (early := due - time.perf_counter()) > EARLY_S and not self._stop.is_set():
            self._producer.poll(min(early, SLICE_S))

    def _put(self, counts: Counts, topic: str, value: bytes, key: bytes, headers: Any) -> bool:
        """Hand one over; where the queue is full, wait for room. False where the run was stopped before there was any."""
        while True:
            try:
                self._producer.produce(topic, value, key, headers=headers, on_delivery=counts.report)
            except BufferError:
                self.tally.waited += 1
                self._producer.poll(SLICE_S)
                if self._stop.is_set():
                    return False
            except KafkaException as err:
                counts.sent += 1
                counts.fail(str(err.args[0]))
                if getattr(err.args[0], "fatal", bool)():
                    raise DependencyError(
                        f"The producer cannot go on after {counts.sent:,} messages to {topic}: {err.args[0]}.",
                        remedy="Look at the broker's log, then produce again from the last one that was delivered.",
                    ) from err
                return True
            else:
                counts.sent += 1
                return True

    def _finish(self) -> None:
        """Flush; what the broker has not confirmed in time is given up, and its reports count it as failed."""
        deadline = time.perf_counter() + self._flush_s
        while len(self._producer) and time.perf_counter() < deadline and not self._hurry.is_set():
            self._producer.flush(SLICE_S)
        if len(self._producer):
            self._producer.purge()
            self._producer.flush(SLICE_S)
        self._producer.poll(0)


def _text(moment_us: int) -> str:
    return datetime.fromtimestamp(moment_us / 1e6, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
