"""Our features in pandas, Polars and DuckDB, as far as each can express them as windows; numpy columns by our names.

The input is one frame in time order with integer keys, which suits the peers. A window holds the customer's other payments in
(t - W, t), which is ours where no two payments of a customer share a microsecond. The merchants' delayed hour windows are
within reach of DuckDB alone (frame bounds that differ per row); fraud shares, habit, places and the rest of none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from fraud_pipeline.domain.feature_columns import EventColumns
from fraud_pipeline.domain.feature_spec import INDEX

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import polars as pl

Values = dict[str, npt.NDArray[Any]]
WINDOWS: Final = {"1h": 3_600, "24h": 86_400, "7d": 604_800, "30d": 2_592_000}
SHARED_WINDOWS: Final = {"24h": 24, "7d": 168, "30d": 720}
FORGOTTEN_S: Final = 90 * 86_400


def pandas_features(frame: pd.DataFrame) -> Values:
    """Grouped time-based rolling windows; the caller's frame has columns row, time (datetime64), customer, merchant, minor."""
    ordered = frame.sort_values(["customer", "time"], kind="stable")
    amount = ordered["minor"] / 100
    rolled = ordered.assign(amount=amount).set_index("time").groupby("customer")["amount"]
    values: dict[str, Any] = {}
    for window in WINDOWS:
        rolling = rolled.rolling(window, closed="neither")
        values[f"customer_count_{window}"] = rolling.count().fillna(0)
        values[f"customer_amount_sum_{window}"] = rolling.sum().fillna(0)
        values[f"customer_amount_mean_{window}"] = rolling.mean()
        values[f"customer_amount_max_{window}"] = rolling.max()
    mean, deviation = values["customer_amount_mean_30d"].to_numpy(), rolling.std(ddof=0).to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        values["amount_zscore_30d"] = np.where(deviation > 0, (amount - mean) / deviation, np.nan)
        values["amount_to_customer_mean_30d"] = np.where(mean > 0, amount / mean, np.nan)
    time = ordered["time"]
    for name, keys in (("customer_last", ["customer"]), ("same_merchant", ["customer", "merchant"])):
        gap = time.groupby([ordered[key] for key in keys]).diff().dt.total_seconds()
        values[f"seconds_since_{name}"] = gap.where(gap <= FORGOTTEN_S)
    hour, day = time.dt.hour, time.dt.dayofweek
    values |= {
        "amount": amount,
        "amount_log": np.log1p(amount),
        "amount_is_round": ordered["minor"] % 100 == 0,
        "hour": hour,
        "day_of_week": day,
        "is_weekend": day >= 5,
        "is_night": hour < 6,
        "is_business_hours": (day < 5) & (hour >= 9) & (hour < 17),
    }
    back = np.argsort(ordered["row"].to_numpy())
    return {name: np.asarray(column, np.float32)[back] for name, column in values.items()}


def polars_features(frame: pl.DataFrame) -> Values:
    """Rolling expressions over each customer, and the distinct counts of a day that pandas has no window for."""
    import polars as pl

    amount, time, one = pl.col("minor") / 100, pl.col("time"), pl.lit(1.0)
    by: dict[str, Any] = {"by": "time", "closed": "none", "min_samples": 1}
    columns: list[pl.Expr] = []
    for window in WINDOWS:
        rolled = {
            "count": pl.col("one").rolling_sum_by(window_size=window, **by).fill_null(0),
            "amount_sum": pl.col("amount").rolling_sum_by(window_size=window, **by).fill_null(0),
            "amount_mean": pl.col("amount").rolling_mean_by(window_size=window, **by),
            "amount_max": pl.col("amount").rolling_max_by(window_size=window, **by),
        }
        columns += [value.over("customer").alias(f"customer_{name}_{window}") for name, value in rolled.items()]
    deviation = pl.col("amount").rolling_std_by(window_size="30d", ddof=0, **by).over("customer")
    gaps = {"customer_last": ["customer"], "same_merchant": ["customer", "merchant"]}
    for name, keys in gaps.items():
        gap = (time.diff().dt.total_microseconds() / 1e6).over(keys)
        columns.append(pl.when(gap <= FORGOTTEN_S).then(gap).alias(f"seconds_since_{name}"))
    distinct = [
        pl.col(key).drop_nulls().n_unique().rolling(index_column="time", period="24h", closed="none").over("customer")
        for key in ("merchant", "country", "device")
    ]
    names = ("customer_merchants_24h", "customer_countries_24h", "customer_devices_24h")
    hour, day = time.dt.hour(), time.dt.weekday() - 1
    columns += [
        *(column.alias(name) for name, column in zip(names, distinct, strict=True)),
        deviation.alias("deviation"),
        pl.col("amount").log1p().alias("amount_log"),
        (pl.col("minor") % 100 == 0).alias("amount_is_round"),
        hour.alias("hour"),
        day.alias("day_of_week"),
        (day >= 5).alias("is_weekend"),
        (hour < 6).alias("is_night"),
        ((day < 5) & (hour >= 9) & (hour < 17)).alias("is_business_hours"),
    ]
    mean = pl.col("customer_amount_mean_30d")
    table = (
        frame.lazy()
        .with_columns(amount.alias("amount"), one.alias("one"))
        .with_columns(columns)
        .with_columns(
            pl.when(pl.col("deviation") > 0)
            .then((pl.col("amount") - mean) / pl.col("deviation"))
            .alias("amount_zscore_30d"),
            pl.when(mean > 0).then(pl.col("amount") / mean).alias("amount_to_customer_mean_30d"),
        )
        .drop("row", "time", "customer", "merchant", "minor", "country", "device", "one", "deviation")
        .with_columns(pl.all().cast(pl.Float32).fill_null(float("nan")))
        .collect()
    )
    return {name: table[name].to_numpy() for name in table.columns}


def duckdb_features(connection: duckdb.DuckDBPyConnection) -> Values:
    """One query over the table `payments` (row, us, customer, merchant, device, country, minor)."""
    windows = [
        f"w{window} AS (PARTITION BY customer ORDER BY us RANGE BETWEEN {seconds * 1_000_000 - 1} PRECEDING AND 1 PRECEDING)"
        for window, seconds in WINDOWS.items()
    ]
    shared = [
        f"m{window} AS (PARTITION BY merchant ORDER BY minute "
        f"RANGE BETWEEN (minute - 60 * (hc - {hours})) PRECEDING AND (minute - e) PRECEDING)"
        for window, hours in SHARED_WINDOWS.items()
    ]
    columns = [
        column
        for window in WINDOWS
        for column in (
            f"count(*) OVER w{window} AS customer_count_{window}",
            f"coalesce(sum(minor) OVER w{window}, 0) / 100 AS customer_amount_sum_{window}",
            f"sum(minor) OVER w{window} / 100 / count(*) OVER w{window} AS customer_amount_mean_{window}",
            f"max(minor) OVER w{window} / 100 AS customer_amount_max_{window}",
        )
    ]
    columns += [
        column
        for window in SHARED_WINDOWS
        for column in (
            f"count(*) OVER m{window} AS merchant_count_{window}",
            f"sum(minor) OVER m{window} / 100 / count(*) OVER m{window} AS merchant_amount_mean_{window}",
        )
    ]
    query = f"""
    WITH timed AS (
        SELECT *, us // 60000000 AS minute, (us - 120000000) // 60000000 - 1 AS e,
            ((us - 120000000) // 60000000) // 60 AS hc, make_timestamp(us) AS time
        FROM payments
    ), rolled AS (
        SELECT row, minor / 100 AS amount, minor, time, {", ".join(columns)},
            stddev_pop(minor / 100) OVER w30d AS deviation,
            count(DISTINCT merchant) OVER w24h AS customer_merchants_24h,
            count(DISTINCT country) OVER w24h AS customer_countries_24h,
            count(DISTINCT device) OVER w24h AS customer_devices_24h,
            (us - lag(us) OVER (PARTITION BY customer ORDER BY us)) / 1e6 AS since_customer,
            (us - lag(us) OVER (PARTITION BY customer, merchant ORDER BY us)) / 1e6 AS since_merchant
        FROM timed WINDOW {", ".join(windows + shared)}
    )
    SELECT * EXCLUDE (row, minor, time, deviation, since_customer, since_merchant),
        ln(1 + amount) AS amount_log,
        minor % 100 = 0 AS amount_is_round,
        CASE WHEN deviation > 0 THEN (amount - customer_amount_mean_30d) / deviation END AS amount_zscore_30d,
        CASE WHEN customer_amount_mean_30d > 0 THEN amount / customer_amount_mean_30d END AS amount_to_customer_mean_30d,
        CASE WHEN merchant_amount_mean_30d > 0 THEN amount / merchant_amount_mean_30d END AS amount_to_merchant_mean_30d,
        CASE WHEN since_customer <= {FORGOTTEN_S} THEN since_customer END AS seconds_since_customer_last,
        CASE WHEN since_merchant <= {FORGOTTEN_S} THEN since_merchant END AS seconds_since_same_merchant,
        hour(time) AS hour,
        isodow(time) - 1 AS day_of_week,
        isodow(time) >= 6 AS is_weekend,
        hour(time) < 6 AS is_night,
        isodow(time) < 6 AND hour(time) BETWEEN 9 AND 16 AS is_business_hours
    FROM rolled ORDER BY row
    """
    columns_read = connection.execute(query).fetchnumpy()
    return {name: np.ma.filled(np.ma.asarray(v, np.float32), np.nan) for name, v in columns_read.items()}


def peers_of(events: EventColumns) -> dict[str, tuple[str, Callable[[], Values]]]:
    """The peers with the history in their own form; missing codes become nulls."""
    import duckdb
    import pandas as pd
    import polars as pl

    columns = {
        "row": np.arange(len(events)),
        "us": events.time,
        "minor": events.amount,
        "customer": events.customer.codes,
        "merchant": events.merchant.codes,
    }
    nullable = {"country": events.country.codes, "device": events.device.codes}
    pandas_frame = pd.DataFrame(columns).assign(time=events.time.astype("datetime64[us]")).drop(columns="us")
    polars_frame = pl.DataFrame({**columns, **nullable}).with_columns(
        pl.col("us").cast(pl.Datetime("us")).alias("time"),
        *(pl.when(pl.col(name) >= 0).then(pl.col(name)).alias(name) for name in nullable),
    )
    polars_frame = polars_frame.drop("us")
    connection = duckdb.connect(config={"threads": 1})
    connection.register("given", pd.DataFrame({**columns, **nullable}))
    connection.execute(
        "CREATE TABLE payments AS SELECT * REPLACE (nullif(country, -1) AS country, nullif(device, -1) AS device) FROM given"
    )
    return {
        "pandas": (pd.__version__, lambda: pandas_features(pandas_frame)),
        "polars": (pl.__version__, lambda: polars_features(polars_frame)),
        "duckdb": (duckdb.__version__, lambda: duckdb_features(connection)),
    }


def agreement(ours: npt.NDArray[np.float32], theirs: Values) -> dict[str, float]:
    """By feature, the share of rows where both are missing or within a thousandth (or 0.001) of each other."""
    shares = {}
    for name, values in theirs.items():
        mine = ours[:, INDEX[name]]
        both_missing = np.isnan(mine) & np.isnan(values)
        near = np.isclose(mine, values, rtol=1e-3, atol=1e-3)
        shares[name] = round(float((near | both_missing).mean()), 6)
    return shares
