"""Features by day, and the state that computes the next day's."""

import dagster as dg
import numpy as np

from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.adapters.day_plots import ranked_bars
from fraud_pipeline.adapters.feature_store import FeatureStore
from fraud_pipeline.defs.automation import DOWNSTREAM_DAYS
from fraud_pipeline.defs.pages import OWNERS, plots
from fraud_pipeline.defs.partitions import DAY_BEFORE, DAYS, ONE_RUN, days_of
from fraud_pipeline.defs.patience import patient
from fraud_pipeline.domain.feature_spec import FEATURE_NAMES, FEATURES, SCHEMA_HASH


@dg.asset(
    partitions_def=DAYS, backfill_policy=ONE_RUN, automation_condition=DOWNSTREAM_DAYS, group_name="features",
    kinds={"parquet", "numba"}, owners=OWNERS, code_version=SCHEMA_HASH, deps=["transactions", "labels"],
)  # fmt: skip
@patient
def features(
    context: dg.AssetExecutionContext, feature_store: dg.ResourceParam[FeatureStore]
) -> dg.MaterializeResult[None]:
    """What is known of each payment at its moment, from what came before it: velocity, habit, merchant, device, place, time.

    The same compiled functions compute them here, in the stream and in the service, to the same bits. A day that failed
    its data checks has no features until it is mended. `docs/features.md` says what each one means.
    """
    days = days_of(context)
    missing, rows = np.zeros(len(FEATURES)), 0
    stored = {}
    for each in feature_store.materialize(days):
        stored[each.day] = each.manifest
        missing += np.isnan(each.values).sum(axis=0)
        rows += len(each.values)
    for day in days:
        facts = (
            {"dagster/row_count": stored[day].rows, "fingerprint": stored[day].fingerprint}
            if day in stored
            else {"dagster/row_count": 0, "stopped": "this day's payments failed their data checks"}
        )
        context.add_asset_metadata(facts, partition_key=day.isoformat())
    shares = {name: share for name, share in zip(FEATURE_NAMES, missing / max(rows, 1), strict=True) if share > 0}
    page = {
        "features": len(FEATURES),
        "feature schema": SCHEMA_HASH,
        "plots": plots({"missing values": ranked_bars(shares, title="Share of payments without a value")}),
    }
    context.add_asset_metadata(page, partition_key=days[-1].isoformat())
    return dg.MaterializeResult()


@dg.asset(
    partitions_def=DAYS, backfill_policy=ONE_RUN, automation_condition=DOWNSTREAM_DAYS, group_name="features",
    kinds={"numba"}, owners=OWNERS, code_version=SCHEMA_HASH,
    deps=["features", dg.AssetDep("feature_state", partition_mapping=DAY_BEFORE)],
)  # fmt: skip
@patient
def feature_state(
    context: dg.AssetExecutionContext,
    feature_store: dg.ResourceParam[FeatureStore],
    store: dg.ResourceParam[DatasetStore],
) -> dg.MaterializeResult[None]:
    """The memory of every customer, merchant and device after a day: where the next day, and the live service, go on.

    A range of days keeps the checkpoint of its last day. It can be made anew from the days before it at any time.
    """
    days = days_of(context)
    usable = [day for day in days if day in set(feature_store.usable_days())]
    if usable:
        name, state = feature_store.checkpoint(usable[-1])
        counts = state.counts()
        page = {
            "checkpoint": name, "after": usable[-1].isoformat(), "payments": counts.events, "labels": counts.labels,
            "late payments": counts.late_events, "customers": counts.customers, "entities": counts.entities,
            "MB in memory": round(counts.bytes / 1e6, 1),
        }  # fmt: skip
        context.add_asset_metadata(page, partition_key=days[-1].isoformat())
    return dg.MaterializeResult()
