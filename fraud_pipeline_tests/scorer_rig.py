"""Scorers on a log in a file: fed by hand, killed and started again, and compared with batch over what the topics hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from fraud_pipeline.adapters.checkpoint_store import CheckpointStore
from fraud_pipeline.adapters.kafka.messages import (
    HEADERS,
    ROLE,
    SOURCE,
    Place,
    header_text,
    label_message,
    read_decision,
    transaction_message,
)
from fraud_pipeline.adapters.kafka.partitions import partition_of
from fraud_pipeline.adapters.model_slot import ModelSlot, ServedChallenger, ServedModel
from fraud_pipeline.adapters.stream.admission import Admission
from fraud_pipeline.adapters.stream.checkpoint_keeper import CheckpointKeeper
from fraud_pipeline.adapters.stream.deciding import BatchDecider
from fraud_pipeline.adapters.stream.event_log import EventLog, LogRecord, Output, TransactionAborted, writer_of
from fraud_pipeline.adapters.stream.scorer_loop import ScorerLoop
from fraud_pipeline.adapters.stream.stream_metrics import StreamMetrics
from fraud_pipeline.adapters.stream.stream_parity import StreamParity, Written, compare_stream
from fraud_pipeline.adapters.stream.writer_states import WriterStates
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.decision import Decision
from fraud_pipeline.domain.feature_merged import MergedState
from fraud_pipeline.domain.feature_writer import WriterState
from fraud_pipeline.domain.transaction import Label, LabelChange, Transaction
from fraud_pipeline_tests.event_logs import EmbeddedRig, Stored
from fraud_pipeline_tests.memory_stream import Base
from fraud_pipeline_tests.serving.home import made_bundle

TODAY = datetime.now(UTC).replace(hour=3, minute=0, second=0, microsecond=0)
NOW = TODAY - timedelta(days=1 + (TODAY.weekday() - 3) % 7)
"""A Wednesday at night, at most eight days ago: what a model says depends on hour and weekday, and must not on when a test runs."""
START = NOW - timedelta(hours=3)
ROUNDS = 3_000
"""More than any of these streams takes: one that is not done by then hangs."""


@cache
def bundle(version: str = "1") -> ModelBundle:
    """The same small model under any version, with thresholds that some of these payments reach."""
    return ModelBundle.load(made_bundle(review=0.03, block=0.06), version=version)


def models(version: str | None = "1", *, challenger: str | None = None, share: float = 0.0) -> ModelSlot:
    """A slot that no ledger fills."""
    slot = ModelSlot(None, None, now=lambda: NOW, challenger_share=share)  # type: ignore[arg-type]  # it is never asked
    if version is not None:
        promote(slot, version)
    if challenger is not None:
        slot.challenger = ServedChallenger(bundle(challenger), None, NOW)  # type: ignore[arg-type]  # not looked at
    return slot


def promote(slot: ModelSlot, version: str) -> None:
    slot.champion = ServedModel(bundle(version), None, NOW)  # type: ignore[arg-type]  # not looked at


class Unsteady:
    """A log that takes transactions back when it is told to; everything else is the log's own."""

    def __init__(self, log: EventLog, fails: Callable[[], bool]) -> None:
        self._log, self._fails = log, fails

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def commit(self, outputs: Sequence[Output], positions: Mapping[int, int], membership: object = None) -> None:
        if self._fails():
            raise TransactionAborted("The test takes it back.")
        self._log.commit(outputs, positions, membership)


class Scorer:
    """One scorer of the rig, started."""

    def __init__(
        self,
        rig: EmbeddedRig,
        folder: Path,
        slot: ModelSlot,
        *,
        fails: Callable[[], bool] = lambda: False,
        now: datetime = NOW,
        max_batch: int = 40,
        base: Base | None = None,
        wait_s: float = 1e9,
        partitions: int | None = None,
    ) -> None:
        self.rig = rig
        self.metrics = StreamMetrics()
        self.log = rig.open()
        events: Any = Unsteady(self.log, fails)
        self.states = WriterStates(
            CheckpointStore(str(folder)), events, base or Base(), partitions=partitions or rig.partitions, currency="USD",
            time_zone="UTC",
        )  # fmt: skip
        self.keeper = CheckpointKeeper(self.states, self.shared, self.metrics)
        decider = BatchDecider(rig.topics, slot, self.metrics, control_share=0.01, now=lambda: NOW)
        self.loop = ScorerLoop(
            events, self.states, decider, self.metrics, currency="USD", now=lambda: now,
            admission=Admission(wait_s=wait_s), max_batch=max_batch, aftermath=[self.keeper],
        )  # fmt: skip
        try:
            self.loop.start()
        except BaseException:
            self.log.close()
            raise

    def shared(self) -> tuple[MergedState, dict[int, int]]:
        assert self.loop.merged is not None
        return self.loop.merged, self.loop.shared_offsets

    @property
    def behind(self) -> int:
        """Records that are not decided."""
        topic = self.rig.topics.transactions
        return sum(end - (self.log.position(partition) or 0) for partition, end in enumerate(self.rig.file.ends(topic)))

    def work(self) -> None:
        """Until everything is decided."""
        for _ in range(ROUNDS):
            self.loop.step()
            if not self.behind:
                return
        raise AssertionError(f"{self.behind} records were not decided")

    def keep(self) -> list[str]:
        """Checkpoints of what is committed."""
        return self.states.keep(list(self.loop.owned.values()), *self.shared())

    def kill(self) -> None:
        """It is gone, with all that it had not committed."""
        self.log.close()


@contextmanager
def scorer(rig: EmbeddedRig, folder: Path, slot: ModelSlot | None = None, **options: Any) -> Iterator[Scorer]:
    made = Scorer(rig, folder, slot or models(), **options)
    try:
        yield made
    finally:
        made.kill()


def pay(rig: EmbeddedRig, payments: Sequence[Transaction]) -> None:
    for each in payments:
        message = transaction_message(each)
        put(rig, (message.key, message.value, list(message.headers)))


def put(rig: EmbeddedRig, *messages: Stored, partition: int | None = None) -> None:
    """Append to the log of payments, where a key belongs."""
    for message in messages:
        where = partition_of(message[0] or b"", rig.partitions) if partition is None else partition
        rig.append(rig.topics.transactions, where, [message])


def label(rig: EmbeddedRig, payment: Transaction, at: datetime, *, change: int = 1) -> None:
    """What the recorder produces."""
    given = Label(payment.transaction_id, change > 0, "chargeback", "bank", at)
    told = LabelChange(
        payment.transaction_id, change, at, payment.event_time, payment.customer_id, payment.merchant_id,
        payment.merchant_category, payment.channel, payment.country, payment.device_id,
    )  # fmt: skip
    message = label_message(told, given)
    put(rig, (message.key, message.value, list(message.headers)))


def plain(value: bytes, key: bytes = b"c1") -> Stored:
    """A message that says it is a payment."""
    return key, value, list(HEADERS["transaction"])


def written(rig: EmbeddedRig) -> list[Written]:
    """The decisions of both roles."""
    found = []
    for records in rig.content(rig.topics.decisions).values():
        for record in records:
            place = Place.parse(header_text(record.headers, SOURCE) or "")
            decision = read_decision(record.value or b"")[0]
            found.append(Written(place.partition, place.offset, header_text(record.headers, ROLE) or "", decision))
    return found


def decided(rig: EmbeddedRig, role: str = "decided") -> dict[str, list[Decision]]:
    """Decisions by payment."""
    found: dict[str, list[Decision]] = {}
    for each in written(rig):
        if each.role == role:
            found.setdefault(each.decision.transaction_id, []).append(each.decision)
    return found


def letters(rig: EmbeddedRig) -> list[tuple[str, str]]:
    """The code and source of each dead letter."""
    return [
        (header_text(each.headers, "dlq-code") or "", header_text(each.headers, "dlq-source") or "")
        for each in rig.content(rig.topics.dead_letters)[0]
    ]


def parity(rig: EmbeddedRig, records: Mapping[int, Sequence[LogRecord]] | None = None) -> StreamParity:
    """What the topics hold against batch; `records` in place of what `transactions` holds."""
    topic = rig.topics.transactions
    writers = [writer_of(topic, partition) for partition in range(rig.partitions)]
    merged = MergedState(writers)
    closings: list[LogRecord] = [each for every in rig.content(rig.topics.shared_state).values() for each in every]
    return compare_stream(
        records or rig.content(topic), [orjson.loads(each.value or b"") for each in closings], written(rig), topic=topic,
        states={writer: WriterState(writer, merged.state) for writer in writers}, merged=merged, bundle_of=bundle,
        currency="USD",
    )  # fmt: skip
