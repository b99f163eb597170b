"""A scorer's partitions in the state view: each has its feed while it is ours. Sends what is committed, never what is not."""

from __future__ import annotations

from collections.abc import Mapping

from fraud_pipeline.adapters.state_view import StateView
from fraud_pipeline.adapters.view_feed import ViewFeed
from fraud_pipeline.domain.customer_record import CustomerRecords
from fraud_pipeline.domain.feature_writer import WriterState


class ViewFeeds:
    """Told by the scorer's loop (`scorer_loop.Aftermath`), in its thread."""

    def __init__(self, view: StateView) -> None:
        self.feeds: dict[int, ViewFeed] = {}
        self._view = view

    def adopted(self, partition: int, state: WriterState) -> None:
        """A partition is ours, its state recovered."""
        own = state.own
        feed = ViewFeed(self._view, state.writer, customers=lambda: own.customers, records=CustomerRecords(own))
        self.feeds[partition] = feed
        feed.committed(state.offset, ())

    def dropped(self, partition: int) -> None:
        """A partition is ours no more."""
        self.feeds.pop(partition).close()

    def committed(self, states: Mapping[int, WriterState], changed: Mapping[int, set[str]]) -> None:
        """What these states are now is committed; these customers have changed."""
        for partition, feed in self.feeds.items():
            if partition in states:
                feed.committed(states[partition].offset, changed.get(partition, ()))
