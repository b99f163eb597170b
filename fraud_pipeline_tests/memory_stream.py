"""A stream in memory: topics as lists, scorers that share them, and a sink that fills a ledger from them. No broker, no clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from fraud_pipeline.adapters.checkpoint_store import CheckpointStore
from fraud_pipeline.adapters.kafka.messages import Message, label_message, transaction_message
from fraud_pipeline.adapters.kafka.partitions import partition_of
from fraud_pipeline.adapters.kafka.sink_messages import SinkReader
from fraud_pipeline.adapters.kafka.topics import Topics
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_sink import LedgerSink
from fraud_pipeline.adapters.ledger_sink_rows import Move
from fraud_pipeline.adapters.model_slot import ModelSlot
from fraud_pipeline.adapters.stream.admission import Admission
from fraud_pipeline.adapters.stream.deciding import BatchDecider
from fraud_pipeline.adapters.stream.event_log import LogRecord, Output, SharedMessage
from fraud_pipeline.adapters.stream.scorer_loop import ScorerLoop
from fraud_pipeline.adapters.stream.stream_metrics import StreamMetrics
from fraud_pipeline.adapters.stream.writer_states import RawRows, WriterStates
from fraud_pipeline.domain.feature_state import FeatureState, microseconds
from fraud_pipeline.domain.transaction import Label, LabelChange, Transaction

ALL_OF_IT = 10_000
ROUNDS = 2_000
"""More than any of these streams takes: one that is not done by then hangs."""


@dataclass
class Stored:
    """A message in a topic, as confluent-kafka gives it."""

    named: str
    place: tuple[int, int]
    message: Message
    at: datetime

    def topic(self) -> str:
        return self.named

    def partition(self) -> int:
        return self.place[0]

    def offset(self) -> int:
        return self.place[1]

    def key(self) -> bytes:
        return self.message.key

    def value(self) -> bytes:
        return self.message.value

    def headers(self) -> Any:
        return self.message.headers

    def timestamp(self) -> tuple[int, int]:
        return 1, microseconds(self.at) // 1_000


@dataclass
class MemoryBroker:
    """The topics' content and the group's positions."""

    topics: Topics
    partitions: int
    content: dict[tuple[str, int], list[Stored]] = field(default_factory=lambda: defaultdict(list))
    begins: dict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))
    """The oldest place that is still there."""
    positions: dict[int, int] = field(default_factory=dict)

    def append(self, topic: str, partition: int, message: Message, at: datetime) -> None:
        there = self.content[topic, partition]
        there.append(Stored(topic, (partition, len(there)), message, at))

    def pay(self, payments: Iterable[Transaction]) -> None:
        """A payment is received when it is made."""
        for each in payments:
            where = partition_of(each.customer_id.encode(), self.partitions)
            self.append(self.topics.transactions, where, transaction_message(each), each.event_time)

    def label(self, payment: Transaction, at: datetime, *, change: int = 1) -> None:
        label = Label(payment.transaction_id, change > 0, "chargeback", "bank", at)
        told = LabelChange(
            payment.transaction_id, change, at, payment.event_time, payment.customer_id, payment.merchant_id,
            payment.merchant_category, payment.channel, payment.country, payment.device_id,
        )  # fmt: skip
        where = partition_of(payment.customer_id.encode(), self.partitions)
        self.append(self.topics.transactions, where, label_message(told, label), at)

    def messages(self, topic: str) -> list[Stored]:
        return [each for partition in range(self.partitions) for each in self.content[topic, partition]]

    def forget_before(self, topic: str, partition: int, offset: int) -> None:
        """As retention does."""
        self.begins[topic, partition] = offset


class MemoryLog:
    """`EventLog` of one scorer that owns these partitions from the start."""

    def __init__(self, broker: MemoryBroker, own: Sequence[int] | None = None) -> None:
        self.topic = broker.topics.transactions
        self._broker = broker
        self._own = list(range(broker.partitions)) if own is None else list(own)
        self._next: dict[int, int] = {}
        self._held: set[int] = set()
        self._heard: dict[int, int] = {}

    def partition_count(self) -> int:
        return self._broker.partitions

    def start(self) -> None: ...

    def assigned(self) -> Mapping[int, int]:
        return dict.fromkeys(self._own, 1)

    def position(self, partition: int) -> int | None:
        return self._broker.positions.get(partition)

    def begins_at(self, partition: int) -> int:
        return self._broker.begins[self.topic, partition]

    def read_from(self, partition: int, offset: int) -> None:
        self._next[partition] = offset

    def poll(self, limit: int, timeout_s: float) -> Sequence[LogRecord]:
        found: list[LogRecord] = []
        for partition, at in self._next.items():
            if partition not in self._held:
                records = self._records(partition, at, min(self.end(partition), at + max(1, limit // len(self._next))))
                self._next[partition] += len(records)
                found += records
        return found

    def hold(self, partition: int, held: bool) -> None:
        (self._held.add if held else self._held.discard)(partition)

    def at_end(self, partition: int) -> bool:
        return self._next.get(partition, 0) >= self.end(partition)

    def end(self, partition: int) -> int:
        return len(self._broker.content[self.topic, partition])

    def replay(self, partition: int, first: int, until: int) -> Iterator[Sequence[LogRecord]]:
        assert first >= self.begins_at(partition)
        for start in range(first, until, 100):
            yield self._records(partition, start, min(until, start + 100))

    def shared(self, partition: int, first: int) -> None:
        self._heard[partition] = first

    def hear(self, *, end_of: int | None = None) -> Sequence[SharedMessage]:
        found = []
        for partition in self._heard if end_of is None else [end_of]:
            content = self._broker.content[self._broker.topics.shared_state, partition]
            assert self._heard[partition] >= self._broker.begins[self._broker.topics.shared_state, partition]
            new = content[self._heard[partition] :]
            self._heard[partition] = len(content)
            found += [SharedMessage(each.partition(), each.offset(), orjson.loads(each.value())) for each in new]
        return found

    def membership(self) -> object:
        return None

    def commit(self, outputs: Sequence[Output], positions: Mapping[int, int], membership: object = None) -> None:
        moment = datetime(2026, 1, 1, tzinfo=UTC)
        for topic, partition, key, value, headers in outputs:
            self._broker.append(topic, partition or 0, Message(key, value, tuple(headers)), moment)
        self._broker.positions.update(positions)

    def close(self) -> None: ...

    def _records(self, partition: int, first: int, until: int) -> list[LogRecord]:
        return [
            LogRecord(partition, each.offset(), microseconds(each.at), each.key(), each.value(), each.headers())
            for each in self._broker.content[self.topic, partition][first:until]
        ]


@dataclass
class Base:
    """What lay before the log."""

    content: bytes = field(default_factory=lambda: FeatureState.empty().snapshot())
    named: str = "0" * 16

    def history(self) -> str:
        return self.named

    def base_state(self) -> FeatureState:
        return FeatureState.restore(self.content)


@dataclass
class MemoryScorer:
    """A scorer over the broker, and what it keeps at `folder`."""

    broker: MemoryBroker
    models: ModelSlot
    folder: Path
    own: Sequence[int] | None = None
    raw: RawRows | None = None
    base: Base = field(default_factory=Base)
    wait_s: float = 1e9
    now: datetime = datetime(2030, 1, 1, tzinfo=UTC)

    def __post_init__(self) -> None:
        self.metrics = StreamMetrics()
        log = MemoryLog(self.broker, self.own)
        self.states = writer_states(self.broker, self.folder, raw=self.raw, base=self.base, events=log)
        decider = BatchDecider(self.broker.topics, self.models, self.metrics, control_share=0.01, now=lambda: self.now)
        self.loop = ScorerLoop(
            log, self.states, decider, self.metrics, currency="USD", now=lambda: self.now,
            admission=Admission(wait_s=self.wait_s), max_batch=50,
        )  # fmt: skip
        self.loop.start()

    def work(self) -> None:
        """Until everything in its partitions is decided."""
        for _ in range(ROUNDS):
            self.loop.step()
            if not self.behind:
                return
        raise AssertionError(f"{self.behind} records were not decided")

    @property
    def behind(self) -> int:
        """Records that it has not decided."""
        topic = self.broker.topics.transactions
        ends = {each: len(self.broker.content[topic, each]) for each in self.own or range(self.broker.partitions)}
        return sum(end - self.broker.positions.get(each, 0) for each, end in ends.items())

    def keep(self) -> list[str]:
        assert self.loop.merged is not None
        return self.states.keep(list(self.loop.owned.values()), self.loop.merged, self.loop.shared_offsets)


def writer_states(
    broker: MemoryBroker, folder: Path, *, raw: RawRows | None = None, base: Base | None = None, events: MemoryLog | None = None
) -> WriterStates:  # fmt: skip
    return WriterStates(
        CheckpointStore(str(folder)), events or MemoryLog(broker), base or Base(), partitions=broker.partitions,
        currency="USD", time_zone="UTC", raw=raw,
    )  # fmt: skip


def sink(broker: MemoryBroker, ledger: Ledger, *, through: Mapping[int, int] | None = None) -> None:
    """Write all that the topics hold into the ledger; of transactions up to the places in `through`, where given."""
    topics = broker.topics
    kinds: Any = {
        topics.transactions: "transactions", topics.decisions: "decisions", topics.alerts: "alerts",
        topics.shared_state: "shared_state",
    }  # fmt: skip
    reader = SinkReader(kinds, currency="USD", now=lambda: datetime.now(UTC))
    writer = LedgerSink(ledger.database)
    for topic in kinds:
        for partition in range(broker.partitions):
            content = broker.content[topic, partition]
            if through is not None and topic == topics.transactions:
                content = content[: through.get(partition, ALL_OF_IT)]
            start = writer.begin({(topic, partition): broker.begins[topic, partition]})[topic, partition]
            batch, _ = reader.read(content[start:])
            batch.moves = {(topic, partition): Move(start, len(content))}
            writer.write(batch)


def payments(
    count: int, *, start: datetime, step: timedelta = timedelta(seconds=7), customers: int = 40, first: int = 0
) -> list[Transaction]:
    """Payments in the order of time, of a few customers at a few merchants."""
    return [
        Transaction(
            f"t{number}", start + (number - first) * step, f"c{number * 7 % customers}", f"m{number % 9}",
            100 + 37 * (number % 101), merchant_category=("food", "travel")[number % 2],
            channel=("pos", "online")[number % 3 == 0], country=("DE", "FR", None)[number % 3],
            device_id=f"d{number % 11}" if number % 4 else None, attributes={"ip_risk": number % 10 / 10} if number % 2 else {},
        )
        for number in range(first, first + count)
    ]  # fmt: skip
