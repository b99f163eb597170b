"""The states of one layout divided anew among the writers of another: when a topic has got more partitions.

Each customer's own history goes to the writer that its key now hashes to. What old writers had not told yet of merchants and
devices goes into the shared state at once, minute by minute; the new writers begin with the minute after the newest that
any old one had closed. Ids that were seen go wherever a customer of their writer went.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fraud_pipeline.adapters.kafka.partitions import partition_of
from fraud_pipeline.adapters.stream.intake import Item
from fraud_pipeline.domain.customer_record import CustomerRecords, load_customers
from fraud_pipeline.domain.feature_layout import NEVER
from fraud_pipeline.domain.feature_merged import ANY_MINUTE, MergedState
from fraud_pipeline.domain.feature_portions import own_portion
from fraud_pipeline.domain.feature_state import FeatureState
from fraud_pipeline.domain.feature_writer import WriterState
from fraud_pipeline.domain.minute_closing import ClosingParts
from fraud_pipeline.domain.seen_ids import SeenIds
from fraud_pipeline.errors import StateError


@dataclass(frozen=True)
class Divided:
    """The new layout's states, by writer, its shared state, and how many customers have another writer now."""

    states: dict[str, WriterState]
    merged: MergedState
    moved: int


def divide(
    old: Sequence[WriterState], merged: MergedState, writers: Sequence[str], begins: Mapping[int, int]
) -> Divided:
    """`old` states, by partition, and `merged` as of their committed places, are used up; `begins`: where the new writers that
    are no old ones begin to read.
    """
    count = len(writers)
    owner = {
        customer: partition_of(customer.encode(), count)
        for state in old
        for customer, slot in state.own.customers.items()
        if state.own.arrays.customers["last_time"][slot] != NEVER
    }
    sources = _sources(old, owner, count)
    own = [_own_history(old, sources[place], owner, place) for place in range(count)]
    seen = [[old[each].seen.rows(old[each].watermark_us) for each in sources[place]] for place in range(count)]
    moved = sum(
        owner.get(customer, place) != place for place, state in enumerate(old) for customer in state.own.customers
    )
    through = _tell_everything(old, merged)
    shared = MergedState(writers, time_zone=merged.state.time_zone, base=merged.state)
    states = {}
    for place, writer in enumerate(writers):
        state = WriterState(writer, shared.state, own=own[place])
        state.seen = SeenIds.of_rows(np.concatenate([np.zeros((0, 3), np.int64), *seen[place]]))
        state.offset = old[place].offset if place < len(old) else begins.get(place, 0)
        if through is not None:
            closing = state.close(through, by_clock=True)
            assert closing is not None  # no old writer had closed it; and it holds nothing, since the state is new
            shared.merge(closing)
        state.commit()
        states[writer] = state
    return Divided(states, shared, moved)


def hear_all(
    merged: MergedState, offsets: Mapping[int, int], messages: Iterable[tuple[int, int, Mapping[str, Any]]]
) -> dict[int, int]:
    """Merge what `shared-state` holds after these places, (partition, offset, value); returns the places after it."""
    parts, found = ClosingParts(), dict(offsets)
    for partition, offset, value in messages:
        if offset >= offsets.get(partition, 0):
            closing = parts.add(value)
            if closing is not None:
                merged.merge(closing)
                found[partition] = offset + 1
    return found


def first_misplaced(items: Iterable[Item], partition: int, count: int) -> Item | None:
    """The first payment of a partition whose customer has another one among `count`."""
    for item in items:
        if item.payment is not None and partition_of(item.payment.customer_id.encode(), count) != partition:
            return item
    return None


def refuse_backlog(writer: str, item: Item) -> None:
    """StateError: it was produced before the change, and the writer that it would be decided by has no history of its customer."""
    raise StateError(
        f"{writer}@{item.record.offset} is a payment from before the change, and is not decided yet.",
        remedy="Run `fraud state repartition --drain` first: it decides them in the old layout. Let no producer run meanwhile"
        " (docs/streaming.md, Changing the number of partitions).",
    )


def _sources(old: Sequence[WriterState], owner: Mapping[str, int], count: int) -> list[list[int]]:
    """The old partitions that each new one has customers from; its own, where it is an old one, is always among them."""
    found: list[set[int]] = [{place} if place < len(old) else {place % len(old)} for place in range(count)]
    for place, state in enumerate(old):
        for customer in state.own.customers:
            if customer in owner:
                found[owner[customer]].add(place)
    return [sorted(each, key=lambda place: (-old[place].watermark_us, place)) for each in found]


def _own_history(
    old: Sequence[WriterState], sources: Sequence[int], owner: Mapping[str, int], place: int
) -> FeatureState:
    """What belongs to one new writer, as of the newest watermark of those it comes from."""
    portion = own_portion(old[sources[0]].own, lambda customer: owner.get(customer) == place)
    for source in sources[1:]:
        customers = [customer for customer in old[source].own.customers if owner.get(customer) == place]
        records = CustomerRecords(old[source].own).of(customers) if customers else []
        load_customers(portion, list(zip(customers, records, strict=True)))
    return portion


def _tell_everything(old: Sequence[WriterState], merged: MergedState) -> int | None:
    """Put all that is not closed yet into the shared state; returns the minute that all writers have closed then.

    None where no minute was ever closed and nothing is open.
    """
    newest = max([*merged.closed.values(), *(state.closable for state in old)])
    if newest <= 0:
        return None
    for state in old:
        told = state.close(ANY_MINUTE, by_clock=True)
        assert told is not None
        merged.merge(replace(told, through=newest + 1))
    return newest + 1
