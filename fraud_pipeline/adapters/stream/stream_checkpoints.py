"""Where the states of a stream's writers are kept, by layout (a number of partitions), and what each layout began with.

The first layout began with the history. A later one began with its origin: the states of the one before, divided anew at a
place in each partition, kept for as long as the layout is used, since no log gives them again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Protocol

from fraud_pipeline.adapters.checkpoint_store import CheckpointStore
from fraud_pipeline.adapters.kafka.partitions import partition_of
from fraud_pipeline.adapters.stream.event_log import writer_of
from fraud_pipeline.domain.feature_merged import MergedState
from fraud_pipeline.domain.feature_portions import own_portion, shared_portion
from fraud_pipeline.domain.feature_spec import SCHEMA_HASH
from fraud_pipeline.domain.feature_state import FeatureState
from fraud_pipeline.domain.feature_writer import WriterState
from fraud_pipeline.errors import StateError

SHARED: Final = "shared"
ORIGIN: Final = "origin.state"
IN_USE: Final = "in-use"
_NAME: Final = re.compile(r"\d{20}\.state", re.ASCII)
_LAYOUT: Final = re.compile(r"(\d+)-partitions", re.ASCII)


class History(Protocol):
    """What lay before the log."""

    def history(self) -> str:
        """Its name; another history makes other states."""

    def base_state(self) -> FeatureState:
        """The state at its end."""


class StreamCheckpoints:
    """The kept states of one topic with so many partitions."""

    def __init__(
        self, store: CheckpointStore, topic: str, history: History, *, partitions: int, time_zone: str
    ) -> None:
        self.store = store
        self.topic = topic
        self.partitions = partitions
        self.time_zone = time_zone
        self.writers = [writer_of(topic, partition) for partition in range(partitions)]
        self._history = history
        self._base: FeatureState | None = None

    def of_layout(self, partitions: int) -> StreamCheckpoints:
        """The same for another number of partitions."""
        return StreamCheckpoints(self.store, self.topic, self._history, partitions=partitions, time_zone=self.time_zone)

    def layouts(self) -> list[int]:
        """The numbers of partitions that states were kept for."""
        names = self.store.names(self._root())
        return sorted(int(found[1]) for name in names if (found := _LAYOUT.fullmatch(name)))

    def check_layout(self) -> None:
        """StateError where states were kept for another number of partitions, and none were made for this one.

        Else notes that this layout is in use, though nothing may be kept for it yet.
        """
        others = [count for count in self.layouts() if count != self.partitions]
        if not self.has_origin:
            self._refuse_other_schema()
        if not others or self.has_origin:
            self.store.write(f"{self.folder(SHARED)}/{IN_USE}", b"")
            return
        known = max(others)
        if known > self.partitions:
            raise StateError(
                f"{self.topic} has {self.partitions} partitions, and its state is that of {known}: the topic was made anew.",
                remedy="Use another FRAUD_TOPIC_PREFIX for it, or another FRAUD_CHECKPOINT_URL.",
            )
        raise StateError(
            f"{self.topic} has {self.partitions} partitions, and its state is that of {known}: customers have"
            " moved to other partitions.",
            remedy="Stop all scorers and run `fraud state repartition`; then start them again.",
        )

    def _refuse_other_schema(self) -> None:
        """StateError where this layout was made by another feature schema's states: the log alone does not give them."""
        schemas, layout = f"stream/{self.topic}", f"{self._history.history()}/{self.partitions}-partitions"
        for schema in self.store.names(schemas):
            if self.store.has(f"{schemas}/{schema}/{layout}/{SHARED}/{ORIGIN}"):
                raise StateError(
                    f"The partitions of {self.topic} were changed under feature schema {schema.partition('-')[0]}, and this is"
                    f" {SCHEMA_HASH}: the states at the change are not there in it.",
                    remedy="See docs/streaming.md, Upgrade of the feature schema.",
                )

    @property
    def has_origin(self) -> bool:
        """Whether this layout was made, wholly, from another one."""
        return self.store.has(f"{self.folder(SHARED)}/{ORIGIN}")

    def keep_origin(
        self, states: Mapping[str, WriterState], merged: MergedState, shared_offsets: dict[int, int]
    ) -> list[str]:
        """Keep what this layout begins with; it is there when its last part, the shared state, is."""
        for writer in self.writers:  # of an attempt that did not end
            self.store.remove(f"{self.folder(writer)}/{ORIGIN}")
        names = []
        for writer in self.writers:
            names.append(f"{self.folder(writer)}/{ORIGIN}")
            self.store.write(names[-1], states[writer].snapshot())
        names.append(f"{self.folder(SHARED)}/{ORIGIN}")
        self.store.write(names[-1], merged.snapshot(shared_offsets))
        return names

    def merged_beginning(self) -> tuple[MergedState, dict[int, int]]:
        """The shared state that the layout began with, and the places in `shared-state` that it stands at."""
        if self.has_origin:
            return MergedState.restore(self.store.read(f"{self.folder(SHARED)}/{ORIGIN}"))
        return MergedState(self.writers, time_zone=self.time_zone, base=shared_portion(self._base_state())), {}

    def writer_beginning(self, partition: int, merged: MergedState) -> WriterState:
        """The writer's state that the layout began with."""
        writer = self.writers[partition]
        if self.has_origin:
            return WriterState.restore(self.store.read(f"{self.folder(writer)}/{ORIGIN}"), merged.state)
        own = own_portion(
            self._base_state(), lambda customer: partition_of(customer.encode(), self.partitions) == partition
        )
        return WriterState(writer, merged.state, own=own)

    def names(self, folder: str) -> list[str]:
        """The checkpoints of a folder, the newest last; the origin is not among them."""
        return [name for name in self.store.names(folder) if _NAME.fullmatch(name)]

    def folder(self, name: str) -> str:
        """Of a writer, or SHARED."""
        return f"{self._root()}/{self.partitions}-partitions/{name.replace('[', '-').replace(']', '')}"

    def _root(self) -> str:
        zone = self.time_zone.replace("/", ".")
        return f"stream/{self.topic}/{SCHEMA_HASH}-{zone}/{self._history.history()}"

    def _base_state(self) -> FeatureState:
        if self._base is None:
            self._base = self._history.base_state()
        return self._base
