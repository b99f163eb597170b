"""After the faults: what the topics hold against batch over the same content, and the ledger against the topics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from fraud_pipeline.adapters.kafka.kafka_log import record_of
from fraud_pipeline.adapters.kafka.messages import ROLE, SOURCE, Place, header_text, read_alert, read_decision
from fraud_pipeline.adapters.kafka.topic_reader import read_topic
from fraud_pipeline.adapters.stream.event_log import writer_of
from fraud_pipeline.adapters.stream.intake import Item, read_records
from fraud_pipeline.adapters.stream.stream_parity import StreamParity, Written, compare_stream
from fraud_pipeline.adapters.stream.writer_states import entered
from fraud_pipeline.domain.feature_merged import MergedState
from fraud_pipeline.domain.feature_writer import WriterState
from fraud_pipeline.domain.seen_ids import CONFLICT, NEW
from fraud_pipeline_tests.faults.rig import Rig

GROUP: Final = "faults-judge"
_SHOWN: Final = 5
Messages = Sequence[Any]
"""Of the Kafka client, whose types say less than its messages hold."""


@dataclass
class Judgement:
    """`differences` is empty where everything is as it must be; each says what and how often, with examples."""

    parity: StreamParity
    differences: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    dead_letters: dict[str, int] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        return self.parity.equal and not self.differences

    def sets(self, what: str, wanted: Counter[Any], found: Counter[Any]) -> None:
        """Two collections that must be equal."""
        self.rows[what] = found.total()
        missing, more = wanted - found, found - wanted
        if missing or more:
            self.differences[what] = {
                "missing": missing.total(), "too_many": more.total(),
                "examples": [str(each) for each in [*missing, *more][:_SHOWN]],
            }  # fmt: skip


@dataclass(frozen=True)
class Content:
    """What the topics hold that was committed, in each partition's order."""

    transactions: Messages
    decisions: Messages
    alerts: Messages
    closings: Messages
    dead_letters: Messages
    inbox: Messages

    @classmethod
    def of(cls, rig: Rig) -> Content:
        topics = rig.topics
        names = (
            topics.transactions, topics.decisions, topics.alerts, topics.shared_state, topics.dead_letters, topics.labels,
        )  # fmt: skip
        return cls(*(list(read_topic(rig.settings, name, group=GROUP)) for name in names))

    def to_json(self) -> dict[str, list[dict[str, Any]]]:
        return {name: [_shown(message) for message in messages] for name, messages in vars(self).items()}


def judge(rig: Rig, content: Content) -> Judgement:
    """Compare everything."""
    topic, partitions = rig.topics.transactions, range(rig.plan.partitions)
    records = {each: [record_of(m) for m in content.transactions if m.partition() == each] for each in partitions}
    closings = [orjson.loads(message.value() or b"") for message in content.closings]
    writers = [writer_of(topic, each) for each in partitions]
    merged = MergedState(writers)
    bundles = {version: rig.bundle(version) for version in rig.versions}
    parity = compare_stream(
        records, closings, [_written(message) for message in content.decisions], topic=topic,
        states={writer: WriterState(writer, merged.state) for writer in writers}, merged=merged,
        bundle_of=bundles.__getitem__, currency=rig.settings.currency,
    )  # fmt: skip
    judged = Judgement(parity)
    _judge_letters(judged, rig, content, records)
    _judge_alerts(judged, content)
    _judge_ledger(judged, rig, content, records, closings)
    return judged


def _judge_letters(judged: Judgement, rig: Rig, content: Content, records: Any) -> None:
    """One dead letter for each bad message and each conflict."""
    wanted: Counter[Any] = Counter()
    for partition, each in records.items():
        for item, verdict in _verdicts(rig, partition, each):
            code = item.bad.code if item.bad is not None else "id_conflict" if verdict == CONFLICT else None
            if code is not None:
                wanted[str(Place(rig.topics.transactions, partition, item.record.offset)), code] += 1
    letters = content.dead_letters
    found = Counter((header_text(m.headers(), "dlq-source"), header_text(m.headers(), "dlq-code")) for m in letters)
    judged.dead_letters = dict(Counter(str(code) for _, code in found.elements()))
    judged.sets("dead letters", wanted, found)


def _judge_alerts(judged: Judgement, content: Content) -> None:
    """One alert for each decision that is not APPROVE."""
    wanted = Counter(
        (header_text(m.headers(), SOURCE), decision.decision)
        for m in content.decisions
        if header_text(m.headers(), ROLE) == "decided"
        and (decision := read_decision(m.value())[0]).decision != "APPROVE"
    )
    found = Counter((header_text(m.headers(), SOURCE), read_alert(m.value()).decision) for m in content.alerts)
    judged.sets("alerts", wanted, found)


def _judge_ledger(judged: Judgement, rig: Rig, content: Content, records: Any, closings: Any) -> None:
    topic = rig.topics.transactions
    wanted: Counter[Any] = Counter()
    labels: Counter[Any] = Counter()
    for partition, each in records.items():
        writer = writer_of(topic, partition)
        for item, verdict in _verdicts(rig, partition, each):
            if item.payment is not None and verdict == NEW:
                t = item.payment
                wanted[t.transaction_id, t.customer_id, t.amount_minor, t.event_time, writer, item.record.offset] += 1
            elif item.label is not None:
                labels[item.label.transaction_id, item.label.change, writer, item.record.offset] += 1
    rows = rig.ledger_rows(
        "SELECT transaction_id, customer_id, amount_minor, event_time, writer, sequence FROM transactions"
    )
    judged.sets("ledger transactions", wanted, Counter(map(tuple, rows)))
    decided = [(header_text(m.headers(), ROLE), read_decision(m.value())[0]) for m in content.decisions]
    in_topic = Counter((d.transaction_id, role, d.to_json().decode(), d.features) for role, d in decided)
    rows = rig.ledger_rows("SELECT transaction_id, role, payload, features FROM decisions")
    judged.sets("ledger decisions", in_topic, Counter((*row[:3], bytes(row[3])) for row in rows))
    alerts = [read_alert(message.value()) for message in content.alerts]
    rows = rig.ledger_rows("SELECT transaction_id, decision, fraud_probability FROM alerts")
    judged.sets(
        "ledger alerts", Counter((a.transaction_id, a.decision, a.fraud_probability) for a in alerts),
        Counter(map(tuple, rows)),
    )  # fmt: skip
    rows = rig.ledger_rows("SELECT transaction_id, change, writer, sequence FROM labels WHERE sequence IS NOT NULL")
    judged.sets("ledger label changes", labels, Counter(map(tuple, rows)))
    whole = [closing for closing in closings if closing["part"] == closing["parts"]]
    rows = rig.ledger_rows("SELECT writer, minute, sequence, by_clock FROM minute_closings")
    judged.sets(
        "ledger closings", Counter((c["writer"], c["minute"], c["offset"], c["by_clock"]) for c in whole),
        Counter(map(tuple, rows)),
    )  # fmt: skip
    asked = Counter(orjson.loads(message.value() or b"")["transaction_id"] for message in content.inbox)
    known = Counter(
        {row[0]: 1 for row in rig.ledger_rows("SELECT DISTINCT transaction_id FROM labels WHERE author = 'bank'")}
    )
    missing = [each for each in asked if each not in known]
    if missing:
        judged.differences["labels of the inbox"] = {"missing": len(missing), "examples": missing[:_SHOWN]}


def _verdicts(rig: Rig, partition: int, records: Any) -> list[tuple[Item, int | None]]:
    """Each record of a partition, with what it is to the ids seen before it."""
    writer = writer_of(rig.topics.transactions, partition)
    items = read_records(records, currency=rig.settings.currency)
    verdicts = iter(entered(WriterState(writer, MergedState([writer]).state), items).verdicts)
    return [(item, next(verdicts) if item.payment is not None else None) for item in items]


def _written(message: Any) -> Written:
    place = Place.parse(header_text(message.headers(), SOURCE) or "")
    return Written(
        place.partition, place.offset, header_text(message.headers(), ROLE) or "", read_decision(message.value())[0]
    )


def _shown(message: Any) -> dict[str, Any]:
    return {
        "partition": message.partition(), "offset": message.offset(), "time": message.timestamp()[1],
        "key": (message.key() or b"").decode(errors="replace"), "value": (message.value() or b"")[:3_000].decode(errors="replace"),
        "headers": {name: (value or b"").decode(errors="replace") for name, value in message.headers() or ()},
    }  # fmt: skip
