"""The root of the graph: a day's payments, and a day's labels."""

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.adapters.day_plots import daily_bars
from fraud_pipeline.adapters.day_source import DaySource
from fraud_pipeline.defs.automation import ROOT_DAYS
from fraud_pipeline.defs.pages import OWNERS, plots
from fraud_pipeline.defs.partitions import DAYS, ONE_RUN, days_of
from fraud_pipeline.defs.patience import patient


@dg.asset(
    partitions_def=DAYS, backfill_policy=ONE_RUN, automation_condition=ROOT_DAYS, group_name="data",
    kinds={"parquet", "pyarrow"}, owners=OWNERS, code_version="1",
)  # fmt: skip
@patient
def transactions(
    context: dg.AssetExecutionContext, store: dg.ResourceParam[DatasetStore], source: dg.ResourceParam[DaySource]
) -> dg.MaterializeResult[None]:
    """Every payment of a day, on the platform's contract.

    Comes from the simulation, from an import, or, for days after those, from the payments that were served. A closed day
    is never rewritten. The data checks judge each day once; a day that fails is kept, and nothing downstream reads it.
    """
    days = days_of(context)
    for day in days:
        table = source.transactions(day)
        manifest = store.write_day("transactions", day, table)
        facts = {"dagster/row_count": manifest.rows, "fingerprint": manifest.fingerprint, **_payments(table)}
        context.add_asset_metadata(facts, partition_key=day.isoformat())
    by_day = {day: store.manifest("transactions", day).rows for day in store.days("transactions")}
    context.add_asset_metadata(
        {"plots": plots({"payments a day": daily_bars(by_day, title="Payments a day")})},
        partition_key=days[-1].isoformat(),
    )
    return dg.MaterializeResult()


@dg.asset(
    partitions_def=DAYS, backfill_policy=ONE_RUN, automation_condition=ROOT_DAYS, group_name="data",
    kinds={"parquet", "pyarrow"}, owners=OWNERS, code_version="1",
)  # fmt: skip
@patient
def labels(
    context: dg.AssetExecutionContext, store: dg.ResourceParam[DatasetStore], source: dg.ResourceParam[DaySource]
) -> dg.MaterializeResult[None]:
    """What became known about earlier payments on a day: chargebacks, analysts' verdicts, corrections.

    The day is the one on which *we* learned it, often weeks after the payment. Features and training use nothing earlier.
    """
    days = days_of(context)
    for day in days:
        table = source.labels(day)
        manifest = store.write_day("labels", day, table)
        facts = {"dagster/row_count": manifest.rows, "fingerprint": manifest.fingerprint, **_delays(table)}
        context.add_asset_metadata(facts, partition_key=day.isoformat())
    by_day = {day: store.manifest("labels", day).rows for day in store.days("labels")}
    context.add_asset_metadata(
        {"plots": plots({"labels a day": daily_bars(by_day, title="Labels that became known, a day")})},
        partition_key=days[-1].isoformat(),
    )
    return dg.MaterializeResult()


def _payments(table: pa.Table) -> dict[str, float]:
    """What a person wants to know of a day's payments at a glance."""
    return {
        "amount": (pc.sum(table["amount_minor"]).as_py() or 0) / 100,
        "customers": pc.count_distinct(table["customer_id"]).as_py(),
        "merchants": pc.count_distinct(table["merchant_id"]).as_py(),
    }


def _delays(table: pa.Table) -> dict[str, float]:
    frauds = int(pc.sum(table["is_fraud"]).as_py() or 0)
    if not table.num_rows:
        return {"frauds": frauds}
    delay_us = pc.subtract(table["known_at"].cast(pa.int64()), table["event_time"].cast(pa.int64()))
    return {"frauds": frauds, "mean days until known": round(pc.mean(delay_us).as_py() / 86_400e6, 1)}
