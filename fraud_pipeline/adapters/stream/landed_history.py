"""The history of a home, as the states of a stream's writers begin from it."""

from __future__ import annotations

from fraud_pipeline.adapters.live_state import LiveStateStore
from fraud_pipeline.domain.feature_state import FeatureState


class LandedHistory:
    """`History` of the home that the store looks after."""

    def __init__(self, store: LiveStateStore) -> None:
        self._store = store

    def history(self) -> str:
        return self._store.history()

    def base_state(self) -> FeatureState:
        return self._store.base().state
