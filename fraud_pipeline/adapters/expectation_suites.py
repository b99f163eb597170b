"""What must hold of the data, as Great Expectations suites in code.

`critical` blocks a day, `warning` only says so. Each expectation carries its claim in `meta["claim"]`, as the UI shows it.
Great Expectations is imported on use: it takes seconds.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from fraud_pipeline import telemetry
from fraud_pipeline.domain.iso_codes import COUNTRIES
from fraud_pipeline.domain.transaction import CHANNELS, MAX_AMOUNT_MINOR, TRANSACTION_COLUMNS

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite

REQUIRED_COLUMNS: Final = tuple(name for name, kind in TRANSACTION_COLUMNS.items() if not kind.endswith("?"))
VOLUME_RATIO: Final = (0.3, 3.0)
"""A holiday halves the payments or doubles them; beyond, something is missing or was sent twice."""
LABEL_RATE: Final = (1e-5, 0.1)
"""Of four weeks: no label at all means that the labels do not arrive, one in ten that they mean something else."""
MAX_DAYS_BEHIND: Final = 1
_DAYS_EARLY: Final = (-1, 90)
"""A payment's day before the day it is filed under: served payments are filed under the day received."""


def great_expectations() -> Any:
    """The library, told to keep to itself before it is imported."""
    telemetry.disable()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated modules that it imports: its makers' to mend
        import great_expectations
    return great_expectations


def transactions_suite(*, currency: str = "USD", attributes: Sequence[str] = ()) -> ExpectationSuite:
    """The rules of the Transaction contract over stored payments; all of them block their day.

    Judges the columns of the dataset and two made for it: `days_early` and `place_is_whole`.
    """
    gx = great_expectations()
    e = gx.expectations

    def lengths(column: str, longest: int) -> Any:
        return e.ExpectColumnValueLengthsToBeBetween(
            column=column, min_value=1, max_value=longest, **_claim(f"{column}_has_1_to_{longest}_characters")
        )

    def between(column: str, low: float, high: float, claim: str) -> Any:
        return e.ExpectColumnValuesToBeBetween(column=column, min_value=low, max_value=high, **_claim(claim))

    expectations = [
        *(
            e.ExpectColumnValuesToNotBeNull(column=column, **_claim(f"{column}_is_never_null"))
            for column in REQUIRED_COLUMNS
        ),
        e.ExpectColumnValuesToBeUnique(column="transaction_id", **_claim("transaction_ids_are_unique")),
        e.ExpectColumnValuesToMatchRegex(
            column="transaction_id", regex=r"^[A-Za-z0-9._:\-]{1,64}$", **_claim("transaction_ids_are_well_formed")
        ),
        lengths("customer_id", 64),
        lengths("merchant_id", 64),
        lengths("merchant_category", 32),
        lengths("device_id", 64),
        between("amount_minor", 0, MAX_AMOUNT_MINOR, "amounts_are_in_range"),
        between("latitude", -90, 90, "latitudes_are_on_earth"),
        between("longitude", -180, 180, "longitudes_are_on_earth"),
        between("days_early", *_DAYS_EARLY, "payments_belong_to_their_day"),
        e.ExpectColumnValuesToBeInSet(column="place_is_whole", value_set=[True], **_claim("places_have_both_degrees")),
        e.ExpectColumnValuesToBeInSet(column="channel", value_set=list(CHANNELS), **_claim("channels_are_known")),
        e.ExpectColumnValuesToBeInSet(column="currency", value_set=[currency], **_claim("amounts_are_in_one_currency")),
        e.ExpectColumnValuesToBeInSet(
            column="country", value_set=sorted(COUNTRIES), **_claim("countries_are_iso_codes")
        ),
        *(
            between(f"attributes.{name}", -sys.float_info.max, sys.float_info.max, f"{name}_is_finite")
            for name in attributes
        ),
    ]
    return gx.ExpectationSuite("transactions", expectations=expectations)


def features_suite() -> ExpectationSuite:
    """What a profile of features (`data_profiles.with_limits`) must show; all of it blocks the day."""
    gx = great_expectations()
    e = gx.expectations

    def at_least(larger: str, smaller: str, claim: str) -> Any:
        return e.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A=larger, column_B=smaller, or_equal=True, ignore_row_if="either_value_is_missing", **_claim(claim)
        )

    expectations = [
        e.ExpectCompoundColumnsToBeUnique(column_list=["day", "feature"], **_claim("features_are_there_once")),
        e.ExpectColumnValuesToBeBetween(
            column="features_missing", min_value=0, max_value=0, **_claim("all_features_are_there")
        ),
        e.ExpectColumnValuesToBeBetween(column="infinite", min_value=0, max_value=0, **_claim("features_are_finite")),
        at_least("minimum", "lowest", "features_are_not_below_their_range"),
        at_least("highest", "maximum", "features_are_not_above_their_range"),
        at_least("allowed_null_share", "null_share", "features_are_missing_only_where_they_may"),
    ]
    return gx.ExpectationSuite("features", expectations=expectations)


def days_suite() -> ExpectationSuite:
    """What a profile of days (`data_profiles.day_profile`) should show; all of it only warns."""
    gx = great_expectations()
    e = gx.expectations

    def between(column: str, low: float | None, high: float, claim: str) -> Any:
        claims = _claim(claim, severity="warning")
        return e.ExpectColumnValuesToBeBetween(column=column, min_value=low, max_value=high, **claims)

    expectations = [
        between("volume_ratio", *VOLUME_RATIO, "volume_is_like_recent_days"),
        between("label_rate", *LABEL_RATE, "label_rate_of_mature_days_is_plausible"),
        between("days_behind", None, MAX_DAYS_BEHIND, "newest_day_is_fresh"),
    ]
    return gx.ExpectationSuite("days", expectations=expectations)


def _claim(claim: str, *, severity: str = "critical") -> dict[str, Any]:
    return {"meta": {"claim": claim}, "severity": severity}
