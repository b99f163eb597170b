"""The state view's feeds of a scorer's partitions, one for each, made and ended as partitions come and go."""

from __future__ import annotations

from collections.abc import Mapping

from fraud_pipeline.adapters.state_view import StateView
from fraud_pipeline.adapters.view_feed import ViewFeed
from fraud_pipeline.domain.customer_record import CustomerRecords
from fraud_pipeline.domain.feature_writer import WriterState


class ViewWriting:
    """Told of every commit (`Aftermath`)."""

    def __init__(self, view: StateView) -> None:
        self._view = view
        self.feeds: dict[int, ViewFeed] = {}

    def adopted(self, partition: int, state: WriterState) -> None:
        own = state.own
        feed = ViewFeed(self._view, state.writer, customers=lambda: list(own.customers), records=CustomerRecords(own))
        self.feeds[partition] = feed
        feed.committed(state.offset, ())

    def dropped(self, partition: int) -> None:
        self.feeds.pop(partition).close()

    def committed(self, states: Mapping[int, WriterState], changed: Mapping[int, set[str]]) -> None:
        for partition, feed in self.feeds.items():
            if partition in changed:
                feed.committed(states[partition].offset, changed[partition])
            else:
                feed.tick()

    def close(self) -> None:
        for feed in self.feeds.values():
            feed.close()
        self.feeds.clear()
