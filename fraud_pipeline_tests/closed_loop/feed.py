"""The world goes on: its payments in order at a compressed clock, some customers' by REST and the others' by Kafka, its
chargebacks, and analysts who work what was blocked.
"""

from __future__ import annotations

import heapq
import http.client
import json
import logging
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from typing import Any, Final

import orjson
from confluent_kafka import Producer

from fraud_pipeline.adapters.history_labels import HistoryLabels
from fraud_pipeline.adapters.kafka.connection import KafkaSettings, producer_config
from fraud_pipeline.adapters.kafka.messages import HEADERS
from fraud_pipeline.adapters.kafka.topics import Topics
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.payment_feed import Chunk, LabelToCome, world_feed
from fraud_pipeline.adapters.source_store import SourceStore
from fraud_pipeline.domain.simulation_config import WorldConfig
from fraud_pipeline.settings import Settings

QUIET: Final = logging.getLogger("fraud_pipeline_tests.closed_loop.kafka")
TICK_S: Final = 0.1
REST_THREADS: Final = 3
REQUEST_S: Final = 12.0
"""The service answers within 10 s or says 503."""
AGAIN_S: Final = 0.25
GIVE_UP_S: Final = 90.0
"""A payment that is not decided by then counts as failed: a killed service is back long before."""
FLUSH_S: Final = 60.0
LABELS_AHEAD_US: Final = 18 * 3_600_000_000
"""How long before its `known_at` a label is handed to the sink: some seconds here, and they would be days if it took them after.
Its payment is older than that: the quickest chargeback takes a day."""
DAY_US: Final = 86_400_000_000
ANALYST: Final = "analyst"
WORKED_AFTER_US: Final = DAY_US // 2
"""An analyst works each blocked payment half a day later: the alert budget is what analysts can work, and a blocked payment brings no
chargeback. Without them nobody would know what the champion had caught, and no model after it could be judged."""


class Gateway:
    """`POST /score` as a payment gateway does it: again under the same id until there is an answer."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._own = threading.local()
        self._lock = threading.Lock()
        self.answered = 0
        self.failed: list[str] = []
        self.refused: list[str] = []
        """Attempts without a decision, each asked again."""
        self.slowest_s = 0.0

    def score(self, body: bytes) -> None:
        """One payment."""
        started = time.monotonic()
        while True:
            said = self._ask(body)
            if not said:
                self._count(time.monotonic() - started)
                return
            with self._lock:
                self.refused.append(said)
            if time.monotonic() - started > GIVE_UP_S:
                with self._lock:
                    self.failed.append(said)
                return
            time.sleep(AGAIN_S)

    def _ask(self, body: bytes) -> str:
        """Why there is no decision; empty where there is one."""
        connection = getattr(self._own, "connection", None)
        fresh = connection is None
        if connection is None:
            connection = self._own.connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=REQUEST_S)
        try:
            connection.request("POST", "/score", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as err:
            connection.close()
            self._own.connection = None
            return f"{type(err).__name__}: {err}" if fresh else self._ask(body)  # an idle connection may be closed
        if answer.status == 200:
            return ""
        return f"{answer.status}: {content[:200].decode(errors='replace')}"

    def _count(self, took_s: float) -> None:
        with self._lock:
            self.answered += 1
            self.slowest_s = max(self.slowest_s, took_s)


def record_history_labels(settings: Settings) -> int:
    """What becomes known of the history after its end, in the ledger before the stream begins; how many.

    Each has its own `known_at`, before which nothing reads it. The sensor `history_labels` would tell them one by one as the
    log's clock goes on, which at this pace is days late.
    """
    with Ledger.open(settings.ledger_url) as ledger:
        history = HistoryLabels(SourceStore(settings.home))
        due = history.due(after=None, until=datetime.now(UTC))
        ledger.adopt(history.payments({label.transaction_id for label in due}))
        return len(ledger.record_labels(due).released)


class LiveWorld:
    """Feeds in a thread of its own, from `start` to `stop`. `may_begin(day)` holds the clock up before a day; `newly_blocked()`
    tells the payments that were blocked since it was last asked.
    """

    def __init__(
        self, settings: KafkaSettings, topics: Topics, gateway: Gateway, *, world: WorldConfig, since: date,
        day_s: float, rest_share: float, may_begin: Callable[[date], bool], newly_blocked: Callable[[], list[str]],
    ) -> None:  # fmt: skip
        self.sent: dict[str, str] = {}
        """Transaction id -> its route."""
        self.frauds: set[str] = set()
        self.labels = 0
        self.worked = 0
        """Blocked payments that an analyst has labelled."""
        self._blocked: set[str] = set()
        self.kafka_failed: list[str] = []
        self.held_s = 0.0
        self.day_began: dict[date, float] = {}
        self._topics, self._gateway = topics, gateway
        self._world, self._since = world, since
        self._day_s, self._rest_share = day_s, rest_share
        self._may_begin, self._newly_blocked = may_begin, newly_blocked
        self._to_come = list[tuple[int, str, LabelToCome]]()
        self._now_us = _us(since)
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        more = {"linger.ms": 5, "enable.idempotence": True, "message.timeout.ms": 0}
        self._producer = Producer({**producer_config(settings), **more}, logger=QUIET)
        self._pool = ThreadPoolExecutor(REST_THREADS, thread_name_prefix="gateway")
        self._thread = threading.Thread(target=self._run, name="world", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the tick at hand, once the broker has all of it."""
        self._stopping.set()
        self._thread.join(GIVE_UP_S + FLUSH_S)
        self._pool.shutdown()
        left = self._producer.flush(FLUSH_S)
        if self._failure is not None:
            raise self._failure
        if left:
            self.kafka_failed.append(f"{left} messages were not confirmed")

    @property
    def now(self) -> datetime:
        """The simulated moment."""
        return datetime.fromtimestamp(self._now_us / 1e6, UTC)

    @property
    def days(self) -> float:
        """Simulated days since the history's end."""
        return (self._now_us - _us(self._since)) / DAY_US

    @property
    def failure(self) -> BaseException | None:
        return self._failure

    # Within

    def _run(self) -> None:
        try:
            for day, chunks in self._by_day():
                if not self._wait_for(day):
                    return
                self.day_began[day] = time.monotonic()
                self._tell(day, chunks)
                if self._stopping.is_set():
                    return
        except BaseException as err:  # noqa: BLE001 raised again by `stop`
            self._failure = err

    def _by_day(self) -> Iterator[tuple[date, list[Chunk]]]:
        first, chunks, current = _us(self._since), list[Chunk](), self._since
        for chunk in world_feed(self._world):
            if chunk.moments[0] < first:
                continue  # the landed history, whose labels are landed too
            day = datetime.fromtimestamp(chunk.moments[0] / 1e6, UTC).date()
            if day != current:
                yield current, chunks
                current, chunks = day, []
            chunks.append(chunk)

    def _wait_for(self, day: date) -> bool:
        """The clock stands still where too many ended days wait for the automation; False where it is over."""
        started = time.monotonic()
        while not self._may_begin(day):
            if self._stopping.wait(TICK_S):
                return False
            self._producer.poll(0)
        self.held_s += time.monotonic() - started
        return not self._stopping.is_set()

    def _tell(self, day: date, chunks: list[Chunk]) -> None:
        """One day, as its payments come."""
        started, begins = time.monotonic(), _us(day)
        for chunk in chunks:
            self._expect(chunk)
        rows = [(chunk, row) for chunk in chunks for row in range(len(chunk))]
        at = 0
        while at < len(rows) and not self._stopping.is_set():
            passed = min(1.0, (time.monotonic() - started) / self._day_s)
            now = begins + int(passed * DAY_US)
            due = at
            while due < len(rows) and rows[due][0].moments[rows[due][1]] <= now:
                due += 1
            self._send(rows[at:due])
            at, self._now_us = due, now
            self._hand_to_analysts(now)
            self._send_labels(now)
            self._producer.poll(0)
            self._stopping.wait(TICK_S if at < len(rows) else 0)

    def _send(self, rows: list[tuple[Chunk, int]]) -> None:
        asked: dict[bytes, list[bytes]] = {}
        for chunk, row in rows:
            key, value = chunk.keys[row], chunk.values[row]
            identity = json.loads(value)["transaction_id"]
            by_rest = zlib.crc32(key) % 1_000 < self._rest_share * 1_000
            self.sent[identity] = "rest" if by_rest else "kafka"
            if row in chunk.frauds:
                self.frauds.add(identity)
            if by_rest:
                asked.setdefault(key, []).append(value)
            else:
                self._produce(self._topics.transactions, key, value, HEADERS["transaction"])
        # A customer's payments one after the other; the tick ends when all are answered, so that the log keeps the order of time.
        list(self._pool.map(self._ask_in_turn, asked.values()))

    def _ask_in_turn(self, bodies: list[bytes]) -> None:
        for body in bodies:
            self._gateway.score(body)

    def _expect(self, chunk: Chunk) -> None:
        """Each label when its time has come: a day later at the soonest."""
        for row, labels in chunk.labels.items():
            for label in labels:
                heapq.heappush(self._to_come, (chunk.moments[row] + label.after_us, label.transaction_id, label))

    def _hand_to_analysts(self, now_us: int) -> None:
        for identity in self._newly_blocked():
            self._blocked.add(identity)
            label = LabelToCome(identity, WORKED_AFTER_US, identity in self.frauds, "simulation", ANALYST)
            heapq.heappush(self._to_come, (now_us + WORKED_AFTER_US, identity, label))

    def _send_labels(self, now_us: int) -> None:
        while self._to_come and self._to_come[0][0] <= now_us + LABELS_AHEAD_US:
            known_us, identity, label = heapq.heappop(self._to_come)
            if label.author == ANALYST:
                self.worked += 1
            elif identity in self._blocked:
                continue  # nobody charges back what was not paid
            known = label.at(known_us)
            value = {
                "transaction_id": identity, "is_fraud": known.is_fraud, "source": known.source, "author": known.author,
                "known_at": known.known_at,
            }  # fmt: skip
            self._produce(
                self._topics.labels, identity.encode(), orjson.dumps(value, option=orjson.OPT_UTC_Z), HEADERS["label"]
            )
            self.labels += 1

    def _produce(self, topic: str, key: bytes, value: bytes, headers: Any) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key, headers=list(headers), on_delivery=self._confirmed)
                return
            except BufferError:
                self._producer.poll(TICK_S)

    def _confirmed(self, error: Any, message: Any) -> None:
        if error is not None:
            self.kafka_failed.append(str(error))


def _us(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1e6)
