"""How old the newest day may be before Dagster's pages say so.

Dagster judges freshness by its own clock: by when an asset was last materialized. In a home whose data end long ago that is
no fault of anybody's, so such a home has no policies; whether its newest day is the one that there could be is said by the
check `newest_day_is_fresh`, which goes by the data.
"""

from datetime import date, timedelta
from pathlib import Path
from typing import Final

import dagster as dg

from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.adapters.source_store import SourceStore

LIVE_WITHIN: Final = timedelta(days=7)
"""Data that end at most so long ago go on now. Longer than a daemon or a stream is away over holidays."""
DAILY: Final = dg.FreshnessPolicy.time_window(warn_window=timedelta(hours=28), fail_window=timedelta(hours=36))
"""A day is there an hour or two after its end; half a day later somebody should look."""
FRESH_ASSETS: Final = frozenset(
    {"transactions", "labels", "features", "feature_state", "drift_report", "performance_report", "parity_report"}
)
"""What each day makes anew. A model may grow old: whether it may is the drift report's matter."""


def is_live(home: Path, *, today: date) -> bool:
    """Whether the home's data go on now: its newest day, landed or materialized, ended within LIVE_WITHIN."""
    source = SourceStore(home)
    if not source.exists():
        return False
    newest = max(DatasetStore(home).days("transactions"), default=date.min)
    return max(source.manifest().end, newest + timedelta(days=1)) >= today - LIVE_WITHIN


def with_freshness(spec: dg.AssetSpec) -> dg.AssetSpec:
    """The asset with the policy of daily ones, where it is one."""
    return spec.replace_attributes(freshness_policy=DAILY) if spec.key.to_user_string() in FRESH_ASSETS else spec
