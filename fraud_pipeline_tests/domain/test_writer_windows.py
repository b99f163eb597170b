"""Many writers' logs in windows give what they give at once."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fraud_pipeline.domain.feature_merged import MergedState
from fraud_pipeline.domain.feature_shared_state import last_readable_minute
from fraud_pipeline.domain.feature_spec import FEATURE_NAMES
from fraud_pipeline.domain.feature_writer import WriterState
from fraud_pipeline.domain.writer_windows import WriterWindows
from fraud_pipeline_tests.domain.oracle import Payment
from fraud_pipeline_tests.domain.test_feature_writers import (
    WRITERS,
    Log,
    batch,
    columns,
    random_histories,
    split_logs,
)


def until(log: Log, at: int, horizon: int) -> int:
    """The place after which the watermark has reached the horizon."""
    newest = max((entry.time for entry in log[:at] if isinstance(entry, Payment)), default=0)
    while at < len(log) and newest < horizon:
        entry = log[at]
        newest = max(newest, entry.time) if isinstance(entry, Payment) else newest
        at += 1
    return at


@random_histories
@given(split_logs(), st.data())
def test_windows_give_what_the_whole_gives(logs: dict[str, Log], chances: st.DataObject) -> None:
    wanted = batch(logs)
    merged = MergedState(WRITERS)
    states = {writer: WriterState(writer, merged.state) for writer in WRITERS}
    windows = WriterWindows(states, merged)
    times = sorted({entry.time for log in logs.values() for entry in log if isinstance(entry, Payment)})
    cuts = sorted(chances.draw(st.lists(st.sampled_from(times), max_size=4))) if times else []
    at = dict.fromkeys(WRITERS, 0)
    found = {writer: np.zeros((len(wanted[writer]), len(FEATURE_NAMES)), np.float32) for writer in WRITERS}
    seen = dict.fromkeys(WRITERS, 0)
    for horizon in [*cuts, None]:
        ends = {w: len(logs[w]) if horizon is None else until(logs[w], at[w], horizon) for w in WRITERS}
        windows.take({w: columns(logs[w][at[w] : ends[w]], states[w]) for w in WRITERS})
        at = ends
        over = [w for w in WRITERS if at[w] == len(logs[w])]
        through = None if horizon is None else int(last_readable_minute.py_func(horizon))
        for writer, ready in windows.close(through, ended=over).items():
            found[writer][ready.rows] = ready.values
            seen[writer] += len(ready.rows)
    for writer in WRITERS:
        assert seen[writer] == len(wanted[writer])
        np.testing.assert_array_equal(found[writer].view(np.uint32), wanted[writer].view(np.uint32))
