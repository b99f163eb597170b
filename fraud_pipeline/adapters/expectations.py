"""Judges days of data by the suites: which days pass, and the offending rows of those that do not.

One validation covers a whole range (20 expectations on 300,000 rows take 3 s at once, 14 s as 60 days); failing rows are
then traced to their days. Knows nothing of Dagster: its checks turn verdicts into metadata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fraud_pipeline.adapters.data_profiles import day_profile, with_limits
from fraud_pipeline.adapters.dataset_schemas import attribute_names
from fraud_pipeline.adapters.dataset_store import Verdict
from fraud_pipeline.adapters.expectation_suites import (
    REQUIRED_COLUMNS,
    days_suite,
    features_suite,
    great_expectations,
    transactions_suite,
)
from fraud_pipeline.domain.transaction import TRANSACTION_COLUMNS
from fraud_pipeline.errors import DatasetError

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations import ExpectationSuite

Severity = Literal["error", "warning"]
SHOWN_ROWS: Final = 20
_IDENTITY: Final = ("transaction_id", "event_time", "customer_id", "merchant_id", "amount_minor")
_EPOCH: Final = date(1970, 1, 1)
_DAY_US: Final = 86_400_000_000


@dataclass(frozen=True, slots=True)
class ExpectationFailure:
    """A claim that does not hold on a day. `rows` shows the first of the `unexpected_count` offending ones."""

    expectation: str
    column: str
    observed: str
    unexpected_count: int
    severity: Severity
    rows: pa.Table

    def __str__(self) -> str:
        return f"{self.expectation}: {self.observed}"


@dataclass(frozen=True, slots=True)
class DayVerdict:
    """What the expectations made of a day: `passed` unless a failure of severity error blocks it."""

    day: date
    failures: tuple[ExpectationFailure, ...] = ()

    @property
    def passed(self) -> bool:
        return all(failure.severity == "warning" for failure in self.failures)

    @property
    def severity(self) -> Severity | None:
        """The worst of the failures; None where there is none."""
        if not self.failures:
            return None
        return "warning" if self.passed else "error"

    @property
    def verdict(self) -> Verdict:
        return "passed" if self.passed else "failed"


def validate_transactions(
    table: pa.Table, *, days: Mapping[date, int] | Sequence[date], currency: str = "USD"
) -> list[DayVerdict]:
    """Judge each day of a range of stored payments by the transactions suite.

    `days`: the days of the range with their numbers of rows, which follow one another in `table` (as `read_range` gives
    them); or only the days, where every payment is filed under the day of its event. Missing columns fail every day.
    """
    names = sorted(days)
    missing = [column for column in REQUIRED_COLUMNS if column not in table.schema.names]
    if missing:
        observed = f"the columns {', '.join(missing)} are missing"
        failure = ExpectationFailure(
            "columns_are_those_of_the_contract", missing[0], observed, 0, "error", pa.table({})
        )
        return [DayVerdict(day, (failure,)) for day in names]
    of_day = _row_days(table, days)
    frame = _transaction_frame(table, np.array([(day - _EPOCH).days for day in names], np.int64)[of_day])
    suite = transactions_suite(currency=currency, attributes=attribute_names(table.schema))
    return _verdicts(names, of_day, _unexpected(frame, suite), table)


def validate_features(profile: pd.DataFrame) -> list[DayVerdict]:
    """Judge days of features by a profile of them: `data_profiles.feature_profile` of each day, one below the other."""
    frame = with_limits(profile.reset_index(drop=True))
    return _verdicts_of_profile(frame, features_suite())


def validate_days(
    rows: Mapping[date, int],
    *,
    judged: Sequence[date],
    as_of: date,
    frauds: Mapping[date, int] | None = None,
    maturity_days: int = 7,
) -> list[DayVerdict]:
    """Warn of days whose volume, label rate or freshness is unusual; the arguments are those of `day_profile`."""
    profile = day_profile(rows, judged=judged, as_of=as_of, frauds=frauds, maturity_days=maturity_days)
    return _verdicts_of_profile(profile, days_suite())


def _row_days(table: pa.Table, days: Mapping[date, int] | Sequence[date]) -> npt.NDArray[np.int64]:
    """For each row the place of its day among the sorted days."""
    if isinstance(days, Mapping):
        counts = [days[day] for day in sorted(days)]
        if sum(counts) != table.num_rows:
            raise DatasetError(f"The days have {sum(counts)} rows, the table has {table.num_rows}.")
        return np.repeat(np.arange(len(counts)), counts)
    ordinals = np.array([(day - _EPOCH).days for day in sorted(days)], np.int64)
    event = pc.fill_null(table.column("event_time").cast(pa.int64()), int(ordinals[0]) * _DAY_US).to_numpy() // _DAY_US
    places = np.minimum(np.searchsorted(ordinals, event), len(ordinals) - 1)
    if np.any(ordinals[places] != event):
        stray = _EPOCH + timedelta(days=int(event[ordinals[places] != event][0]))
        raise DatasetError(
            f"A payment of {stray} is in none of the days to be judged.", remedy="Give the rows per day."
        )
    return places


def _transaction_frame(table: pa.Table, filed_on: npt.NDArray[np.int64]) -> pd.DataFrame:
    """The columns that the suite judges, as pandas (strings as objects), with the two made for it."""
    present = [n for n in (*TRANSACTION_COLUMNS, *table.schema.names) if n in table.schema.names]
    judged = [n for n in dict.fromkeys(present) if n not in ("writer", "sequence")]
    frame = table.select(judged).to_pandas(strings_to_categorical=False)
    for optional in ("country", "device_id", "latitude", "longitude"):
        if optional not in frame:
            frame[optional] = None
    event = pc.divide(table.column("event_time").cast(pa.int64()), _DAY_US).cast(pa.float64())
    frame["days_early"] = filed_on - event.to_numpy(zero_copy_only=False)
    frame["place_is_whole"] = frame["latitude"].isna() == frame["longitude"].isna()
    return frame


@dataclass(frozen=True, slots=True)
class _Unexpected:
    """A claim that failed, and the places of the rows that break it."""

    claim: str
    column: str
    severity: Severity
    rows: npt.NDArray[np.int64]


def _unexpected(frame: pd.DataFrame, suite: ExpectationSuite) -> list[_Unexpected]:
    """Validate once; ask only what failed for its rows, which costs twice as much."""
    if frame.empty:
        return []
    context = great_expectations().get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas(suite.name).add_dataframe_asset(suite.name)
    batch = asset.add_batch_definition_whole_dataframe("rows").get_batch({"dataframe": frame})
    results = batch.validate(suite, result_format="BASIC").results
    complete = {"result_format": "COMPLETE", "return_unexpected_index_query": False}
    found = []
    for expectation, result in zip(_in_order(suite, results), results, strict=True):
        if not result.success:
            detailed = batch.validate(expectation, result_format=complete)
            found.append(_failed(expectation, detailed))
    return found


def _in_order(suite: ExpectationSuite, results: Sequence[Any]) -> list[Any]:
    """The expectation of each result: Great Expectations gives results by column, not in the suite's order."""
    by_claim = {expectation.meta["claim"]: expectation for expectation in suite.expectations}
    return [by_claim[result.expectation_config.meta["claim"]] for result in results]


def _failed(expectation: Any, detailed: Any) -> _Unexpected:
    claim = expectation.meta["claim"]
    rows = (detailed.result or {}).get("unexpected_index_list")
    if rows is None:
        raise DatasetError(f"{claim} could not be judged: {detailed.exception_info}.")
    columns = getattr(expectation, "column", None) or getattr(expectation, "column_A", None) or ""
    severity: Severity = "warning" if expectation.severity == "warning" else "error"
    return _Unexpected(claim, columns, severity, np.sort(np.array(rows, np.int64)))


def _verdicts(
    days: Sequence[date], of_day: npt.NDArray[np.int64], unexpected: Sequence[_Unexpected], table: pa.Table
) -> list[DayVerdict]:
    failures: dict[int, list[ExpectationFailure]] = {}
    totals = np.bincount(of_day, minlength=len(days))
    for item in unexpected:
        places, starts, counts = np.unique(of_day[item.rows], return_index=True, return_counts=True)
        for place, start, count in zip(places.tolist(), starts.tolist(), counts.tolist(), strict=True):
            shown = item.rows[start : start + min(count, SHOWN_ROWS)]
            observed = _observed(item, int(count), int(totals[place]), table, shown)
            failure = ExpectationFailure(
                item.claim, item.column, observed, int(count), item.severity, _shown(table, item.column, shown)
            )
            failures.setdefault(place, []).append(failure)
    return [DayVerdict(day, tuple(failures.get(place, ()))) for place, day in enumerate(days)]


def _observed(item: _Unexpected, count: int, total: int, table: pa.Table, rows: npt.NDArray[np.int64]) -> str:
    """One clause on what is wrong, by what a row of the table is: a day, a feature or a payment."""
    if "volume_ratio" in table.schema.names:
        return f"{item.column} is {table.column(item.column)[int(rows[0])].as_py():.4g}"
    of_features = "feature" in table.schema.names
    noun, column = ("features", "feature") if of_features else ("payments", item.column)
    if column not in table.schema.names:
        return f"{count:,} of {total:,} {noun}"
    values = list(dict.fromkeys(table.column(column).take(pa.array(rows)).to_pylist()))[:3]
    return f"{count:,} of {total:,} {noun}, such as {', '.join(str(value) if of_features else ascii(value) for value in values)}"


def _shown(table: pa.Table, column: str, rows: npt.NDArray[np.int64]) -> pa.Table:
    profile = _IDENTITY[0] not in table.schema.names
    names = table.schema.names if profile else list(dict.fromkeys([*_IDENTITY, column]))
    return table.take(pa.array(rows)).select([name for name in names if name in table.schema.names])


def _verdicts_of_profile(profile: pd.DataFrame, suite: ExpectationSuite) -> list[DayVerdict]:
    days = sorted(set(profile["day"]))
    places = profile["day"].map({day: place for place, day in enumerate(days)}).to_numpy(np.int64)
    order = np.argsort(places, kind="stable")
    frame = profile.take(order).reset_index(drop=True)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    judged = frame.assign(day=frame["day"].map(date.isoformat))
    return _verdicts(days, places[order], _unexpected(judged, suite), table)
