"""What scorers have written to Kafka against their logs: `fraud parity --through stream`, put together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import orjson

from fraud_pipeline.adapters.kafka.kafka_log import KafkaLog
from fraud_pipeline.adapters.kafka.messages import Place, header_text, read_decision
from fraud_pipeline.adapters.kafka.topic_reader import beginnings, read_topic
from fraud_pipeline.adapters.kafka.topics import Topics
from fraud_pipeline.adapters.stream.past_run import cursor
from fraud_pipeline.adapters.stream.raw_rows import LedgerRawRows
from fraud_pipeline.adapters.stream.stream_check import DecidedLog, Mutation, StreamCheck
from fraud_pipeline.adapters.stream.stream_parity import StreamParity, Written
from fraud_pipeline.adapters.stream.writer_states import WriterStates
from fraud_pipeline.commands.opening import stream_history
from fraud_pipeline.commands.replay import bundle_source
from fraud_pipeline.errors import StateError
from fraud_pipeline.stream_runtime import GROUP

if TYPE_CHECKING:
    from fraud_pipeline.adapters.ledger import Ledger
    from fraud_pipeline.settings import Settings

READER = "fraud-parity"
"""The consumer group that reads for comparisons; it commits nothing."""


def check_written(settings: Settings, ledger: Ledger, *, mutate: Mutation | None = None) -> StreamParity:
    """Every payment that the scorers' group has decided by now. Others may go on meanwhile.

    StateError where nothing is decided yet, or where log and ledger do not reach back to the beginning.
    """
    topics = Topics(settings.topic_prefix)
    events = stream_log(settings, topics)
    try:
        states = stream_states(settings, ledger, events)
        decided = {place: events.position(place) for place in range(len(states.writers))}
        # Later than what is asked for: whatever a decision waited for is in the logs up to here.
        ends = {place: events.position(place) or events.begins_at(place) for place in decided}
        if all(position is None for position in decided.values()):
            raise StateError(
                f"No scorer has decided anything of {topics.transactions}.", remedy="`fraud score-stream` does."
            )
        merged, _ = states.kept.merged_beginning()
        writers = {writer: states.kept.writer_beginning(place, merged) for place, writer in enumerate(states.writers)}
        cuts = clock_closings(settings, topics, states)
        begins = {place: writers[writer].offset for place, writer in enumerate(states.writers)}
        cursors = {
            writer: cursor(states.items(place, begins[place], ends[place]), [
                *cuts[writer], *states.raw_closings(place, begins[place], ends[place])
            ])
            for place, writer in enumerate(states.writers)
        }  # fmt: skip
        gone = beginnings(settings, topics.decisions, group=READER)
        logs = {
            place: DecidedLog(
                _written(settings, topics, place),
                begins[place],
                decided[place] or begins[place],
                whole=gone[place] == 0,
            )
            for place in decided
        }
        check = StreamCheck(writers, merged, cursors, logs, bundle_of=bundle_source(settings, ledger), mutate=mutate)
        return check.run()
    finally:
        events.close()


def stream_log(settings: Settings, topics: Topics) -> KafkaLog:
    """The scorers' log, only to look at."""
    group = f"{settings.topic_prefix}{GROUP}"
    return KafkaLog(
        settings, topic=topics.transactions, shared_topic=topics.shared_state, group=group, instance="looking"
    )


def stream_states(
    settings: Settings, ledger: Ledger, events: KafkaLog, *, partitions: int | None = None
) -> WriterStates:
    """The states of the log's writers, as scorers recover them."""
    checkpoints, history = stream_history(settings, ledger)
    return WriterStates(
        checkpoints, events, history, partitions=partitions or events.partition_count(), currency=settings.currency,
        time_zone=settings.time_zone, raw=LedgerRawRows(ledger.database),
    )  # fmt: skip


def clock_closings(settings: Settings, topics: Topics, states: WriterStates) -> dict[str, list[tuple[int, int]]]:
    """Where each writer's clock closed minutes, as `shared-state` has it: (offset, minute)."""
    found: dict[str, list[tuple[int, int]]] = {writer: [] for writer in states.writers}
    for message in read_topic(settings, topics.shared_state, group=READER):
        closing = orjson.loads(message.value() or b"{}")
        if closing["by_clock"] and closing["part"] == closing["parts"]:
            found[closing["writer"]].append((int(closing["offset"]), int(closing["minute"])))
    return found


def _written(settings: Settings, topics: Topics, partition: int) -> Iterator[Written]:
    for message in read_topic(settings, topics.decisions, group=READER, only=[partition]):
        headers: Any = message.headers()
        source = Place.parse(header_text(headers, "source") or "")
        role = header_text(headers, "role") or "decided"
        yield Written(source.partition, source.offset, role, read_decision(message.value() or b"")[0])
