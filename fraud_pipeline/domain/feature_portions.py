"""A history's state, divided among the writers that continue it: each its customers, and what is shared for all of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fraud_pipeline.domain.feature_layout import ENTITY_KINDS, NEVER
from fraud_pipeline.domain.feature_snapshot import compacted
from fraud_pipeline.domain.feature_state import FeatureState


def own_portion(state: FeatureState, belongs: Callable[[str], bool]) -> FeatureState:
    """The own history of the customers that belong, as of the same watermark, without what is shared.

    The state given is not changed.
    """
    kept = {name: slot for name, slot in state.customers.items() if belongs(name)}
    arrays = state.arrays._replace(entity_lists=np.zeros_like(state.arrays.entity_lists))
    portion = compacted(FeatureState(arrays, kept, state.entities, state.time_zone))
    portion.arrays.entities["folded"] = portion.arrays.entities["touched"] = NEVER
    portion.arrays.entities["settled"] = 0
    return portion


def shared_portion(state: FeatureState) -> FeatureState:
    """Merchants, categories, countries, channels and devices, without any customer. The state given is not changed."""
    names = tuple(dict(slots) for slots in state.entities)
    assert len(names) == len(ENTITY_KINDS)
    return compacted(FeatureState(state.arrays, {}, names, state.time_zone))
