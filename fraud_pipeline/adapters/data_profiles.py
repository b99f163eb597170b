"""Small tables about much data, for the expectations to judge: a row per day and feature, and a row per day.

Pure functions. Great Expectations takes half a minute for 110 expectations on 300,000 x 55 values, and milliseconds for
a profile of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from fraud_pipeline.domain.feature_spec import DEVICE_CUSTOMERS_MAX, FEATURES, Feature
from fraud_pipeline.domain.transaction import MAX_AMOUNT_MINOR

if TYPE_CHECKING:
    import pandas as pd

RECENT_DAYS: Final = 28
"""Four whole weeks, so that weekends weigh alike."""
_LEAST_RECENT_DAYS: Final = 3
_HALF_EARTH_KM: Final = 20_038.0
_DAY_S: Final = 86_400.0
_LARGEST_AMOUNT: Final = MAX_AMOUNT_MINOR / 100
# By unit: the least and the largest value that makes sense; None is the feature's own window.
_RANGES: Final[Mapping[str, tuple[float, float | None]]] = {
    "flag": (0, 1),
    "share": (0, 1),
    "hour": (0, 23),
    "day": (0, 6),
    "km": (0, _HALF_EARTH_KM),
    "km/h": (0, _HALF_EARTH_KM * 60),
    "s": (0, None),
    "log(1 + currency)": (0, math.log1p(_LARGEST_AMOUNT) + 0.001),
    "standard deviations": (-math.inf, math.inf),
}


def feature_range(feature: Feature) -> tuple[float, float]:
    """The smallest and largest value a feature can take, by its unit. Counts, sums and ratios are only never negative."""
    low, high = _RANGES.get(feature.unit, (0.0, math.inf))
    if feature.name == "amount":
        return 0.0, _LARGEST_AMOUNT
    if feature.unit == "customers":
        return 0.0, float(DEVICE_CUSTOMERS_MAX)
    if high is None:  # a window's end is cut at hour buckets, and a late event is read later
        high = (float(feature.window.removesuffix("d")) + 1) * _DAY_S if feature.window.endswith("d") else math.inf
    return float(low), float(high)


def feature_profile(day: date, names: Sequence[str], values: npt.NDArray[np.float32]) -> pd.DataFrame:
    """One row per feature of a day: `day, feature, rows, null_share, infinite, minimum, maximum, mean`.

    `values` is [n, len(names)]. Statistics are of what is present and finite; NaN where nothing is.
    """
    import pandas as pd

    finite = np.isfinite(values)
    counts = finite.sum(axis=0)
    sums = np.where(finite, values, 0).sum(axis=0, dtype=np.float64)
    rows = max(1, len(values))
    return pd.DataFrame(
        {
            "day": day,
            "feature": list(names),
            "rows": len(values),
            "null_share": np.isnan(values).sum(axis=0) / rows,
            "infinite": np.isinf(values).sum(axis=0),
            "minimum": _present(np.min(values, axis=0, initial=np.inf, where=finite), counts),
            "maximum": _present(np.max(values, axis=0, initial=-np.inf, where=finite), counts),
            "mean": _present(sums / np.maximum(counts, 1), counts),
        }
    )


def _present(values: npt.NDArray[np.float32], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.where(counts > 0, values.astype(np.float64), np.nan)


def with_limits(profile: pd.DataFrame) -> pd.DataFrame:
    """A feature profile with what each row may be: `lowest, highest, allowed_null_share, features_missing`."""
    ranges = {feature.name: feature_range(feature) for feature in FEATURES}
    never_missing = {feature.name for feature in FEATURES if feature.missing == "never"}
    names = profile["feature"]
    known = names.where(names.isin(ranges))
    return profile.assign(
        lowest=names.map(lambda name: ranges.get(name, (-math.inf, math.inf))[0]),
        highest=names.map(lambda name: ranges.get(name, (-math.inf, math.inf))[1]),
        allowed_null_share=names.map(lambda name: 0.0 if name in never_missing else 1.0),
        features_missing=len(ranges) - known.groupby(profile["day"]).transform("nunique"),
    )


def day_profile(
    rows: Mapping[date, int],
    *,
    judged: Sequence[date],
    as_of: date,
    frauds: Mapping[date, int] | None = None,
    maturity_days: int = 7,
) -> pd.DataFrame:
    """One row per judged day: `day, rows, volume_ratio, label_rate, days_behind`; NaN where there is nothing to compare.

    `rows` and `frauds` count payments and those known to be fraud by the day of the *payment*, for all days known, not
    only the judged. `volume_ratio` is over the median of the 28 days before; `label_rate` is of the 28 days up to this
    one, once they are all there and mature at the midnight that begins `as_of`; `days_behind` is of the newest day alone.
    """
    import pandas as pd

    days = sorted(judged)
    newest = max(rows, default=None)
    known = frauds or {}
    table = []
    for day in days:
        before = [rows[d] for d in _days_up_to(day - timedelta(days=1)) if d in rows]
        usual = float(np.median(before)) if len(before) >= _LEAST_RECENT_DAYS else math.nan
        month = [d for d in _days_up_to(day) if d in rows]
        payments = sum(rows[d] for d in month)
        mature = frauds is not None and len(month) == RECENT_DAYS and day + timedelta(days=maturity_days) < as_of
        table.append(
            {
                "day": day,
                "rows": rows[day],
                "volume_ratio": rows[day] / usual if usual else math.nan,
                "label_rate": sum(known.get(d, 0) for d in month) / payments if mature and payments else math.nan,
                "days_behind": float((as_of - timedelta(days=1) - day).days) if day == newest else math.nan,
            }
        )
    return pd.DataFrame(table, columns=["day", "rows", "volume_ratio", "label_rate", "days_behind"])


def _days_up_to(day: date) -> list[date]:
    return [day - timedelta(days=i) for i in range(RECENT_DAYS)]
