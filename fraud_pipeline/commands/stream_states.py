"""The states of a stream's writers from the command line: made anew, or divided among more partitions."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import orjson
from confluent_kafka import KafkaException
from confluent_kafka.admin import NewPartitions  # type: ignore[attr-defined]

from fraud_pipeline.adapters.kafka.connection import admin, dependency_error
from fraud_pipeline.adapters.kafka.topic_reader import beginnings, read_topic
from fraud_pipeline.adapters.kafka.topics import Topics
from fraud_pipeline.adapters.ledger_raw import NOTHING, closings
from fraud_pipeline.adapters.stream.rebuild import Closed, closed_up_to, rebuild, replace_kept
from fraud_pipeline.adapters.stream.repartition import divide, first_misplaced, hear_all, refuse_backlog
from fraud_pipeline.adapters.stream.writer_states import WriterStates
from fraud_pipeline.commands.stream_checks import READER, stream_log, stream_states
from fraud_pipeline.errors import DependencyError, InputError, StateError
from fraud_pipeline.stream_runtime import GROUP, StreamRuntime, kafka_log

if TYPE_CHECKING:
    from fraud_pipeline.adapters.kafka.kafka_log import KafkaLog
    from fraud_pipeline.adapters.ledger import Ledger
    from fraud_pipeline.adapters.stream.intake import Item
    from fraud_pipeline.settings import Settings

ANSWER_S: Final = 30.0
"""For the broker to make partitions, or to say who is in a group."""
ASKED_AGAIN_S: Final = 0.1
log = logging.getLogger(__name__)


def rebuild_stream(settings: Settings, ledger: Ledger) -> dict[str, Any]:
    """All states as of what the group has decided now, kept as checkpoints; scorers of another schema may go on meanwhile."""
    topics = Topics(settings.topic_prefix)
    with _looking(settings, topics) as events:
        states = stream_states(settings, ledger, events)
        states.check_layout()
        until = _positions(events, len(states.writers))
        by_writer = dict(zip(states.writers, until.values(), strict=True))
        gone = beginnings(settings, topics.shared_state, group=READER)
        known = {
            writer: _closed_in_ledger(ledger, writer, by_writer[writer], gone[place])
            for place, writer in enumerate(states.writers)
        }
        closed = closed_up_to(_shared_messages(settings, topics), by_writer, known)
        made = rebuild(states, until, closed)
        names, differing = replace_kept(states, made)
        return {"checkpoints": names, "records": made.records, "places": by_writer, "replaced_others": differing}


def repartition(settings: Settings, ledger: Ledger, *, partitions: int, drain: bool) -> dict[str, Any]:
    """Divide the states among `partitions`; raises the topics' partitions where that was not done.

    StateError while scorers run, or while payments from before the change wait to be decided.
    """
    topics = Topics(settings.topic_prefix)
    with _looking(settings, topics) as events:
        count = events.partition_count()
        old = _old_layout(stream_states(settings, ledger, events, partitions=partitions), partitions, count)
        _refuse_members(settings)
        states = stream_states(settings, ledger, events, partitions=old)
        if count == old:
            _refuse_any_backlog(events, states)
            raise_partitions(settings, topics, partitions)
        elif drain:
            _drain(settings, events, states, partitions)
        _refuse_misplaced(events, states, partitions)
        merged, offsets = states.merged()
        own = ((p, at, value) for p, at, value in _shared_messages(settings, topics) if p < old)
        offsets = hear_all(merged, offsets, own)
        until = _positions(events, old)
        recovered = [states.recover(place, until[place], merged) for place in range(old)]
        new = states.kept.of_layout(partitions)
        begins = beginnings(settings, topics.transactions, group=READER)
        found = divide(recovered, merged, new.writers, begins)
        names = new.keep_origin(found.states, found.merged, offsets)
        customers = sum(len(state.own.customers) for state in found.states.values())
        return {"from": old, "to": partitions, "customers": customers, "moved": found.moved, "checkpoints": names}


def raise_partitions(settings: Settings, topics: Topics, partitions: int) -> None:
    """Give the log of payments and what goes with it so many partitions; those that have them are left alone."""
    asking = admin(settings)
    try:
        for topic in (topics.decisions, topics.alerts, topics.shared_state, topics.transactions):
            if len(asking.list_topics(topic, timeout=ANSWER_S).topics[topic].partitions) < partitions:
                for made in asking.create_partitions([NewPartitions(topic, partitions)]).values():
                    made.result(ANSWER_S)
                log.info("%s has %d partitions", topic, partitions)
        deadline = time.monotonic() + ANSWER_S
        while (
            len(asking.list_topics(topics.transactions, timeout=ANSWER_S).topics[topics.transactions].partitions)
            < partitions
        ):
            if time.monotonic() > deadline:
                raise DependencyError(f"The broker does not show {partitions} partitions of {topics.transactions}.")
            time.sleep(ASKED_AGAIN_S)
    except KafkaException as err:
        raise dependency_error(settings, err, "raise the topics' partitions") from err


@contextmanager
def _looking(settings: Settings, topics: Topics) -> Iterator[KafkaLog]:
    events = stream_log(settings, topics)
    try:
        yield events
    finally:
        events.close()


def _positions(events: KafkaLog, partitions: int) -> dict[int, int]:
    """The places up to which the group has decided; the log's beginning where it has not begun."""
    found = {}
    for place in range(partitions):
        position = events.position(place)
        found[place] = events.begins_at(place) if position is None else position
    return found


def _shared_messages(settings: Settings, topics: Topics) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
    for message in read_topic(settings, topics.shared_state, group=READER):
        yield int(message.partition() or 0), int(message.offset() or 0), orjson.loads(message.value() or b"{}")


def _closed_in_ledger(ledger: Ledger, writer: str, until: int, begins: int) -> Closed:
    """What the sink has kept of the writer's closings, for what `shared-state` holds no more."""
    if begins == 0:
        return Closed(0, 0)
    found = [each for each in closings(ledger.database, writer, NOTHING) if each.offset <= until]
    cuts = [(each.offset, each.minute) for each in found if each.by_clock]
    return Closed(max((each.minute for each in found), default=0), begins, cuts)


def _old_layout(new: WriterStates, wanted: int, count: int) -> int:
    """The number of partitions that states are kept for. InputError where there is nothing to do, or it cannot be."""
    known = new.kept.layouts()
    if not known or (known == [wanted]):
        raise InputError(
            f"No states are kept of {new.kept.topic} for another number of partitions than {wanted}.",
            remedy="Nothing is to be done: start the scorers.",
        )
    if new.kept.has_origin:
        raise InputError(f"The states for {wanted} partitions are there already.", remedy="Start the scorers.")
    old = max(each for each in known if each != wanted)
    if wanted < old or count not in (old, wanted):
        raise InputError(
            f"{new.kept.topic} has {count} partitions, its states are those of {old}, and {wanted} were asked for.",
            remedy="Name the number that the topic has, or one that is larger than it was: partitions are never taken away.",
        )
    return old


def _refuse_members(settings: Settings) -> None:
    group = f"{settings.topic_prefix}{GROUP}"
    asking = admin(settings)
    try:
        found = asking.describe_consumer_groups([group], request_timeout=ANSWER_S)[group].result(ANSWER_S)
    except KafkaException as err:
        raise dependency_error(settings, err, f"look at the group {group}") from err
    if found.members:
        hosts = ", ".join(sorted({member.client_id for member in found.members}))
        raise StateError(
            f"{len(found.members)} scorers are in the group {group} ({hosts}).",
            remedy="Stop them all first; a killed one leaves after its session of 6 s.",
        )


def _waiting(events: KafkaLog, states: WriterStates) -> Iterator[tuple[int, list[Item]]]:
    """What is not decided, page by page: (partition, records)."""
    for place, position in _positions(events, len(states.writers)).items():
        for page in states.items(place, position, events.ends_at(place)):
            yield place, page


def _refuse_any_backlog(events: KafkaLog, states: WriterStates) -> None:
    for place, page in _waiting(events, states):
        raise StateError(
            f"{states.writers[place]}@{page[0].record.offset} and what follows is not decided.",
            remedy="Stop the producers, let the scorers decide everything, stop them, and run this again.",
        )


def _refuse_misplaced(events: KafkaLog, states: WriterStates, partitions: int) -> None:
    for place, page in _waiting(events, states):
        found = first_misplaced(page, place, partitions)
        if found is not None:
            refuse_backlog(states.writers[place], found)


def _drain(settings: Settings, events: KafkaLog, states: WriterStates, partitions: int) -> None:
    """Decide what waits in the old partitions, as a scorer of the old layout, up to where they end now."""
    ends: dict[int, int] = {}
    for place, page in _waiting(events, states):
        new = first_misplaced(page, place, len(states.writers))
        if new is not None and partitions % len(states.writers):
            raise StateError(
                f"{states.writers[place]}@{new.record.offset} came after the change, before others of before it were decided.",
                remedy=f"That can only be sorted out where the new number is a multiple of {len(states.writers)}.",
            )
        ends[place] = page[-1].record.offset + 1
    if not ends:
        return
    runtime = StreamRuntime(
        settings,
        lambda given, topics, group, instance: _OldLayout(
            kafka_log(given, topics, group, instance), len(states.writers), ends, runtime.stop
        ),
    )
    runtime.run()


class _OldLayout:
    """A log as it was before its topic got more partitions; tells when it is read up to `ends`."""

    def __init__(self, events: Any, partitions: int, ends: Mapping[int, int], done: Callable[[], None]) -> None:
        self._events = events
        self._partitions = partitions
        self._left = dict(ends)
        self._done = done

    def partition_count(self) -> int:
        return self._partitions

    def assigned(self) -> Mapping[int, int]:
        return {place: number for place, number in self._events.assigned().items() if place < self._partitions}

    def commit(self, outputs: Any, positions: Mapping[int, int], *more: Any) -> None:
        self._events.commit(outputs, positions, *more)
        self._left = {place: end for place, end in self._left.items() if positions.get(place, 0) < end}
        if not self._left:
            self._done()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._events, name)
