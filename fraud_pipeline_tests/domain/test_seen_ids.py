"""Ids that were decided: new, a repeat, or another payment under the same id; and all of it taken back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud_pipeline.domain.feature_layout import NEVER
from fraud_pipeline.domain.feature_spec import DAY_US
from fraud_pipeline.domain.seen_ids import CONFLICT, NEW, REPEAT, SeenIds

Ints = npt.NDArray[np.int64]
NO_EVENT = NEVER


def enter(seen: SeenIds, entries: list[tuple[int, int, int]], watermark: int) -> list[int]:
    """(id, content, time) each."""
    verdicts: list[int] = seen.enter(*columns(entries), watermark).verdicts.tolist()
    return verdicts


def columns(entries: list[tuple[int, int, int]]) -> tuple[Ints, Ints, Ints]:
    ids, contents, times = np.array(entries, np.int64).reshape(-1, 3).T.copy()
    return ids, contents, times


def test_an_id_is_new_once() -> None:
    seen = SeenIds()
    assert enter(seen, [(1, 10, 5), (1, 10, 5), (1, 11, 5), (2, 10, 6)], NO_EVENT) == [NEW, REPEAT, CONFLICT, NEW]
    assert enter(seen, [(1, 10, 5), (2, 11, 6)], 6) == [REPEAT, CONFLICT]


def test_what_was_taken_back_is_new_again_even_before_the_first_event() -> None:
    seen = SeenIds()
    ids, contents, times = (np.array([value], np.int64) for value in (1, 10, 5))
    for _ in range(3):
        entered = seen.enter(ids, contents, times, NO_EVENT)
        assert entered.verdicts.tolist() == [NEW]
        seen.take_back(entered)
    assert len(seen.rows(NO_EVENT)) == 0
    assert enter(seen, [(1, 99, 5)], NO_EVENT) == [NEW]


def test_an_id_is_forgotten_after_a_week_of_event_time() -> None:
    seen = SeenIds()
    enter(seen, [(1, 10, 0)], NO_EVENT)
    assert enter(seen, [(1, 10, 7 * DAY_US)], 7 * DAY_US) == [REPEAT]
    assert enter(seen, [(1, 10, 7 * DAY_US)], 7 * DAY_US + 1) == [NEW]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 1), st.integers(0, 9))), st.booleans()))
)
def test_taking_back_leaves_what_a_fresh_table_has(batches: list[tuple[list[tuple[int, int, int]], bool]]) -> None:
    seen, fresh, watermark = SeenIds(), SeenIds(), NO_EVENT
    for entries, kept in batches:
        entered = seen.enter(*columns(entries), watermark)
        if not kept:
            seen.take_back(entered)
            continue
        assert fresh.enter(*columns(entries), watermark).verdicts.tolist() == entered.verdicts.tolist()
        watermark = max([watermark, *(time for _, _, time in entries)])
        assert seen.rows(watermark).tolist() == fresh.rows(watermark).tolist()
