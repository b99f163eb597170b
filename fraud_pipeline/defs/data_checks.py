"""Checks of the days that a run brought in.

They are not partitioned: each judges every day of its run at once, writes the verdict to the day's manifest, and what comes
after reads only days that passed. So one bad old day stops that day and not today. (A partitioned check is recorded against
no partition in a run over a range, and then never satisfies the blocking condition.)
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import dagster as dg
import pyarrow as pa

from fraud_pipeline.adapters.data_profiles import feature_profile
from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.adapters.day_source import DaySource
from fraud_pipeline.adapters.expectations import DayVerdict, validate_days, validate_features, validate_transactions
from fraud_pipeline.defs.pages import table
from fraud_pipeline.defs.partitions import days_of_run, has_stream, last_closed_day
from fraud_pipeline.domain.feature_spec import FEATURE_NAMES
from fraud_pipeline.settings import Settings

ROWS_AT_ONCE = 250_000
"""As pandas objects about 400 MB."""
SHOWN_FAILURES = 20
VALID_DAYS_EXIST = "valid_days_exist"
EVERY_DAY_IS_VALID = "every_day_is_valid"


def _specs(asset: str) -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec(
            VALID_DAYS_EXIST, asset=asset, blocking=True,
            description="At least one day of the run passed its suite; a run without one stops here.",
        ),
        dg.AssetCheckSpec(
            EVERY_DAY_IS_VALID, asset=asset,
            description="Every day of the run passed its suite. A day that did not is left out of everything after it.",
        ),
    ]  # fmt: skip


@dg.multi_asset_check(specs=_specs("transactions"))
def transactions_suite(
    context: dg.AssetCheckExecutionContext, store: dg.ResourceParam[DatasetStore], settings: dg.ResourceParam[Settings]
) -> Iterator[dg.AssetCheckResult]:
    """Great Expectations: schema, nulls, ranges, uniqueness, allowed values, row by row."""
    days = _stored(store, "transactions", context)
    verdicts = [verdict for portion in _portions(store, days) for verdict in _judge(store, portion, settings.currency)]
    yield from _results("transactions", verdicts, store)


@dg.multi_asset_check(specs=_specs("features"))
def features_suite(
    context: dg.AssetCheckExecutionContext, store: dg.ResourceParam[DatasetStore]
) -> Iterator[dg.AssetCheckResult]:
    """Great Expectations on a profile of each day's features: all there, finite, in range, missing only where they may be."""
    import numpy as np
    import pandas as pd

    profiles = []
    empty = []
    for day in _stored(store, "features", context):
        values = store.read_day("features", day, FEATURE_NAMES)
        if values.num_rows:
            matrix = np.column_stack([column.to_numpy() for column in values.columns])
            profiles.append(feature_profile(day, FEATURE_NAMES, matrix))
        else:
            empty.append(DayVerdict(day))
    verdicts = validate_features(pd.concat(profiles)) if profiles else []
    yield from _results("features", [*verdicts, *empty], store)


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(
            "volume_is_like_recent_days",
            asset="transactions",
            description="No day has far more or far fewer payments than the four weeks before it.",
        ),
        dg.AssetCheckSpec(
            "newest_day_is_fresh",
            asset="transactions",
            description="The newest day is yesterday's, or the last of a history, or the newest that has ended in the log.",
        ),
    ]
)
def transactions_over_time(
    context: dg.AssetCheckExecutionContext, store: dg.ResourceParam[DatasetStore], source: dg.ResourceParam[DaySource],
    settings: dg.ResourceParam[Settings],
) -> Iterator[dg.AssetCheckResult]:  # fmt: skip
    """Warnings about a day as a whole, against the days before it."""
    rows = _rows(store)
    days = [day for day in _stored(store, "transactions", context) if day in rows]
    newest = source.ended_through() if has_stream(settings) else last_closed_day(settings.home)
    newest = source.source.manifest().end - timedelta(days=1) if newest is None else newest
    verdicts = validate_days(rows, judged=days, as_of=newest + timedelta(days=1))
    for name in ("volume_is_like_recent_days", "newest_day_is_fresh"):
        yield _warning("transactions", name, verdicts)


@dg.asset_check(asset="labels")
def label_rate_of_mature_days_is_plausible(
    context: dg.AssetCheckExecutionContext, store: dg.ResourceParam[DatasetStore], settings: dg.ResourceParam[Settings]
) -> dg.AssetCheckResult:
    """Of four weeks whose labels are mature, neither none nor one payment in ten is known to be fraud."""
    stored = store.days("labels")
    frauds: Counter[date] = Counter()
    for day in stored:
        known = store.read_day("labels", day, ["event_time", "change"])
        for moment, change in zip(known["event_time"].to_pylist(), known["change"].to_pylist(), strict=True):
            frauds[moment.date()] += change
    rows = _rows(store)
    judged = [day for day in days_of_run(context.run, stored=stored) if day in rows]
    verdicts = validate_days(
        rows,
        judged=judged,
        as_of=max(stored) + timedelta(days=1),
        frauds=frauds,
        maturity_days=settings.label_maturity_days,
    )
    return _warning("labels", "label_rate_of_mature_days_is_plausible", verdicts)


def _stored(store: DatasetStore, dataset: str, context: dg.AssetCheckExecutionContext) -> list[date]:
    stored = store.days(dataset)
    there = set(stored)
    return [day for day in days_of_run(context.run, stored=stored) if day in there]


def _portions(store: DatasetStore, days: Sequence[date]) -> Iterator[list[date]]:
    portion: list[date] = []
    held = 0
    for day in days:
        rows = store.manifest("transactions", day).rows
        if portion and held + rows > ROWS_AT_ONCE:
            yield portion
            portion, held = [], 0
        portion.append(day)
        held += rows
    if portion:
        yield portion


def _judge(store: DatasetStore, days: Sequence[date], currency: str) -> list[DayVerdict]:
    tables = [store.read_day("transactions", day) for day in days]
    rows = {day: each.num_rows for day, each in zip(days, tables, strict=True)}
    return validate_transactions(pa.concat_tables(tables, promote_options="default"), days=rows, currency=currency)


def _results(dataset: str, verdicts: Sequence[DayVerdict], store: DatasetStore) -> Iterator[dg.AssetCheckResult]:
    """Write each day's verdict down and say what it means for the run."""
    for verdict in verdicts:
        store.set_verdict(dataset, verdict.day, verdict.verdict, [str(failure) for failure in verdict.failures])
    failed = [verdict for verdict in verdicts if not verdict.passed]
    passed = len(verdicts) - len(failed)
    facts: dict[str, Any] = {
        "days judged": len(verdicts),
        "days that failed": len(failed),
        "failures": table(_failures(failed)),
    }
    shown: Mapping[str, Any] = {**facts, **_offending_rows(failed)}
    yield dg.AssetCheckResult(
        asset_key=dataset, check_name=VALID_DAYS_EXIST, passed=passed > 0 or not verdicts, metadata=facts,
        description=f"{passed} of {len(verdicts)} days passed.",
    )  # fmt: skip
    yield dg.AssetCheckResult(
        asset_key=dataset, check_name=EVERY_DAY_IS_VALID, passed=not failed, severity=dg.AssetCheckSeverity.WARN,
        description="All days passed." if not failed else f"Left out: {', '.join(str(v.day) for v in failed[:5])}.",
        metadata=shown,
    )  # fmt: skip


def _warning(asset: str, name: str, verdicts: Sequence[DayVerdict]) -> dg.AssetCheckResult:
    found = [(v.day, f) for v in verdicts for f in v.failures if f.expectation == name]
    return dg.AssetCheckResult(
        asset_key=asset, check_name=name, passed=not found, severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(verdicts)} days judged." if not found else f"{len(found)} days stand out: {found[-1][0]} and others.",
        metadata={"days": table([{"day": day, "observed": f.observed} for day, f in found[-SHOWN_FAILURES:]])},
    )  # fmt: skip


def _failures(failed: Sequence[DayVerdict]) -> list[dict[str, Any]]:
    found = [(verdict.day, failure) for verdict in failed for failure in verdict.failures]
    return [
        {"day": day, "claim": f.expectation, "column": f.column, "rows": f.unexpected_count, "observed": f.observed}
        for day, f in found[:SHOWN_FAILURES]
    ]


def _offending_rows(failed: Sequence[DayVerdict]) -> dict[str, Any]:
    """The rows behind the first failures, as tables."""
    shown = [failure for verdict in failed for failure in verdict.failures if failure.rows.num_rows][:3]
    return {f"rows: {failure.expectation}": table(failure.rows.to_pylist()) for failure in shown}


def _rows(store: DatasetStore) -> dict[date, int]:
    return {day: store.manifest("transactions", day).rows for day in store.days("transactions")}
