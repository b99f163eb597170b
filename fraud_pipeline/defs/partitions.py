"""Days: the one kind of partition. Which days there are follows from the world that the home holds."""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from fraud_pipeline.adapters.dataset_schemas import days_between
from fraud_pipeline.adapters.source_store import SourceStore
from fraud_pipeline.defs.freshness import is_live, with_freshness
from fraud_pipeline.settings import Settings

DAYS = dg.DailyPartitionsDefinition(start_date="2010-01-01")
"""Stands for the days until the code location is loaded: `fit_days` puts the home's own in its place."""

ONE_RUN = dg.BackfillPolicy.single_run()
"""A range of days is one run with one step per asset: ten days cost what one costs."""

DAY_BEFORE = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)
EVERY_DAY = dg.AllPartitionMapping()

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
SINGLE_DAY = "dagster/partition"

CONTINUED_FOR_DAYS = 90
"""A world that ended longer ago (the features' horizon) is history: no live payments continue it, so its days end too."""
DAYS_WITHOUT_WORLD = 120
"""What an empty home shows: as many days as the demo would simulate."""


def has_stream(settings: Settings) -> bool:
    """Whether a stream fills the home's ledger: then days end in its log, and a past one may be served at any time."""
    return bool(settings.kafka_bootstrap_servers) or settings.stream_file.exists()


def fit_days(assets: Iterable[Any], *, home: Path, today: date, stream: bool = False) -> list[Any]:
    """The assets with the days of the world in `home` as the partitions of every daily one.

    With a `stream` they have no condition of their own: those go by the machine's clock (see `defs.served_days`). Where the
    data go on now, what is made daily has a freshness policy.
    """
    days = world_days(home, today=today, stream=stream)

    live = is_live(home, today=today)

    def fitted(spec: dg.AssetSpec) -> dg.AssetSpec:
        spec = with_freshness(spec) if live else spec
        if spec.partitions_def is None:
            return spec
        condition = None if stream else spec.automation_condition
        return spec.replace_attributes(partitions_def=days, automation_condition=condition)

    return [asset.map_asset_specs(fitted) if isinstance(asset, dg.AssetsDefinition) else asset for asset in assets]


def world_days(home: Path, *, today: date, stream: bool = False) -> dg.DailyPartitionsDefinition:
    """From the world's first day on; open at its end, unless it is a history of long ago without a stream."""
    start, end = world_span(home, today=today, stream=stream)
    return dg.DailyPartitionsDefinition(start_date=str(start), end_date=None if end is None else str(end))


def world_span(home: Path, *, today: date, stream: bool = False) -> tuple[date, date | None]:
    """The world's first day, and the day after its last one; None where live payments may continue it."""
    source = SourceStore(home)
    if not source.exists():
        return today - timedelta(days=DAYS_WITHOUT_WORLD), None
    world = source.manifest()
    if stream or world.end >= today - timedelta(days=CONTINUED_FOR_DAYS):
        return world.start, None
    newest_label = max(source.days("labels"), default=world.start)
    return world.start, min(today, max(world.end, newest_label + timedelta(days=1)))


def last_closed_day(home: Path) -> date:
    """The newest day that could be there by now: yesterday, or the last one of a history."""
    _, end = world_span(home, today=today_utc())
    return (end or today_utc()) - timedelta(days=1)


def days_of(context: dg.AssetExecutionContext) -> list[date]:
    """The days of a daily asset's run, in order."""
    return sorted(date.fromisoformat(key) for key in context.partition_keys)


def days_of_run(run: dg.DagsterRun, *, stored: Sequence[date]) -> list[date]:
    """The days that an unpartitioned check must judge: those of its run, or all stored ones where it runs alone."""
    if SINGLE_DAY in run.tags:
        return [date.fromisoformat(run.tags[SINGLE_DAY])]
    if RANGE_START in run.tags:
        first, last = (date.fromisoformat(run.tags[tag]) for tag in (RANGE_START, RANGE_END))
        return days_between(first, last + timedelta(days=1))
    return list(stored)


def range_tags(first: date, last: date) -> dict[str, str]:
    """The tags that make a run one of the days from `first` to `last`, both included."""
    return {RANGE_START: first.isoformat(), RANGE_END: last.isoformat()}


def today_utc() -> date:
    """The day that it is now: the one clock of the code location."""
    return datetime.now(UTC).date()
