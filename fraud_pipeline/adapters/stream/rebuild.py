"""All of a stream's states made anew from its logs, shared minutes among them, without any checkpoint: for a new feature schema,
or where what is kept is not to be trusted.

What merchants and devices share is added up from the writers' own logs, so `shared-state` need not reach back to the
beginning; only how far each writer has closed its minutes, and where its clock did, is taken from there (or the ledger).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fraud_pipeline.adapters.stream.past_run import PastRun, cursor
from fraud_pipeline.adapters.stream.stream_checkpoints import SHARED
from fraud_pipeline.adapters.stream.writer_states import WriterStates
from fraud_pipeline.domain.feature_merged import MAX_CLOCK_CLOSINGS, MergedState
from fraud_pipeline.domain.feature_writer import WriterState
from fraud_pipeline.errors import StateError


@dataclass
class Closed:
    """What one writer has told of its minutes up to a place in its log."""

    newest: int
    """The newest minute it has closed."""
    told_before: int
    """The place in `shared-state` after its last message up to there."""
    by_clock: list[tuple[int, int]] = field(default_factory=list)
    """Where its clock closed minutes: (offset, minute)."""


def closed_up_to(
    messages: Iterable[tuple[int, int, Mapping[str, Any]]], until: Mapping[str, int], known: Mapping[str, Closed]
) -> dict[str, Closed]:
    """What `shared-state` says of the writers up to the places `until` of their logs, on top of what is `known` before.

    `messages`: (partition, offset, value), of each partition in their order.
    """
    found = {writer: Closed(each.newest, each.told_before, list(each.by_clock)) for writer, each in known.items()}
    for _, offset, value in messages:
        each = found[value["writer"]]
        if int(value["offset"]) > until[value["writer"]]:
            continue
        if value["part"] == value["parts"]:
            each.newest, each.told_before = max(each.newest, int(value["minute"])), offset + 1
            if value["by_clock"]:
                each.by_clock.append((int(value["offset"]), int(value["minute"])))
    return found


@dataclass(frozen=True)
class Rebuilt:
    """The states as of the places asked for, and how many records they are made of."""

    states: list[WriterState]
    merged: MergedState
    shared_offsets: dict[int, int]
    records: int


def rebuild(states: WriterStates, until: Mapping[int, int], closed: Mapping[str, Closed]) -> Rebuilt:
    """The states at the places `until` of each partition. StateError for a gap in the logs."""
    merged, _ = states.kept.merged_beginning()
    made = {writer: states.kept.writer_beginning(place, merged) for place, writer in enumerate(states.writers)}
    cursors, late = {}, {}
    for place, writer in enumerate(states.writers):
        first = made[writer].offset
        cuts = {*closed[writer].by_clock, *states.raw_closings(place, first, until[place])}
        inside = sorted(cut for cut in cuts if first <= cut[0] <= until[place])
        late[writer] = inside[-MAX_CLOCK_CLOSINGS:]
        cursors[writer] = cursor(states.items(place, first, until[place]), inside)
    limits = {writer: max(each.newest, merged.closed[writer]) for writer, each in closed.items()}
    run = PastRun(made, merged, cursors, check=lambda _writer, _minute: None, limits=limits)
    for _ in run.run(lambda _item: False):
        raise AssertionError("no payment was asked for")
    for place, (writer, state) in enumerate(made.items()):
        for _, minute in cursors[writer].cuts:  # those after the last record
            state.clock_closed(minute)
        state.offset = until[place]
        closing = state.close(limits[writer], by_clock=limits[writer] > state.closable)
        if closing is not None:
            merged.merge(closing)
        merged.clock_closings[writer] = late[writer]
        state.commit()
    offsets = {place: closed[writer].told_before for place, writer in enumerate(states.writers)}
    return Rebuilt(list(made.values()), merged, offsets, run.records)


def replace_kept(states: WriterStates, rebuilt: Rebuilt) -> tuple[list[str], list[str]]:
    """Keep the rebuilt states; names of all of them, and of those that were kept before with other content."""
    differing = []
    for state in rebuilt.states:
        folder, name = states.kept.folder(state.writer), f"{state.offset:020d}.state"
        if name in states.kept.names(folder):
            if not _holds(states, f"{folder}/{name}", state.snapshot()):
                differing.append(f"{folder}/{name}")
            states.kept.store.remove(f"{folder}/{name}")
    for name in states.kept.names(states.kept.folder(SHARED)):
        states.kept.store.remove(f"{states.kept.folder(SHARED)}/{name}")
    return states.keep(rebuilt.states, rebuilt.merged, rebuilt.shared_offsets), differing


def _holds(states: WriterStates, name: str, content: bytes) -> bool:
    try:
        return states.kept.store.read(name) == content
    except StateError:
        return False
