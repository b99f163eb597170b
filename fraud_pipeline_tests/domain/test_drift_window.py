"""Verdicts that know how large the sample is, which weekdays it holds, and on which day a source broke."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import date, timedelta

import numpy as np
import pytest

from fraud_pipeline.domain.drift import (
    DriftLimits,
    DriftVerdict,
    Window,
    compare,
    judge,
    judge_comparison,
    nothing_came,
)
from fraud_pipeline.domain.drift_comparison import same_weekdays
from fraud_pipeline.errors import InputError

Sample = dict[str, np.ndarray]
MONDAY = (date(2026, 3, 2) - date(1970, 1, 1)).days
A_DAY = 500


def world(seed: int, days: int = 7, per_day: int = A_DAY, customers: int = 400) -> tuple[Sample, Window]:
    """Days from a Monday on. Amounts are larger and payments later at the weekend, as in any real world."""
    rng = np.random.default_rng(seed)
    rows = days * per_day
    day = np.repeat(np.arange(MONDAY, MONDAY + days), per_day)
    weekday = ((day - MONDAY) % 7).astype(float)
    weekend = (weekday >= 5).astype(float)
    made = {f"size_{i}": rng.lognormal(i / 4 + 0.5 * weekend, 0.8, rows) for i in range(8)}
    made |= {
        "day_of_week": weekday,
        "is_weekend": weekend,
        "hour": np.clip(rng.normal(13 + 3 * weekend, 3, rows), 0, 23),
    }
    made |= {"channel_code": rng.choice([0.0, 1.0, 2.0], rows, p=[0.6, 0.3, 0.1])}
    made |= {"flag": (rng.random(rows) < 0.3).astype(float), "rare": (rng.random(rows) < 0.02).astype(float)}
    made["place"] = np.where(rng.random(rows) < 0.1, np.nan, rng.normal(50, 5, rows))
    return made, Window(day, rng.integers(0, customers, rows))


def kept(sample: tuple[Sample, Window], keep: Callable[[np.ndarray], np.ndarray]) -> tuple[Sample, Window]:
    made, window = sample
    rows = keep(window.day - MONDAY)
    return {name: values[rows] for name, values in made.items()}, Window(window.day[rows], window.customer[rows])


def verdict_on(sample: tuple[Sample, Window], **extra: object) -> DriftVerdict:
    made, window = sample
    return judge(world(0)[0], made, window=window, **extra)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "keep"),
    [
        ("a whole week", lambda day: day >= 0),
        ("a day is missing", lambda day: day != 3),
        ("no weekend", lambda day: day < 5),
        ("only a weekend", lambda day: day >= 5),
        ("one day", lambda day: day == 6),
        ("a public holiday: a tenth of a day's payments", lambda day: (day != 2) | (np.arange(len(day)) % 10 == 0)),
    ],
)
def test_weekdays_are_compared_with_their_like(name: str, keep: Callable[[np.ndarray], np.ndarray]):
    for seed in range(1, 6):
        verdict = verdict_on(kept(world(seed), keep))
        assert (verdict.status, verdict.drifted_features) == ("stable", ()), (name, seed, verdict.reasons)


def test_without_their_like_they_would_have_drifted():
    """The control: what the comparison by weekdays is there for."""
    made, window = kept(world(1), lambda day: day >= 5)
    reference = world(0)[0]
    blind = {name: values for name, values in made.items() if name != "day_of_week"}
    before = {name: values for name, values in reference.items() if name != "day_of_week"}
    assert judge(before, blind, window=window).status != "stable"


def test_a_holiday_is_one_day_and_no_drift():
    made, window = world(1, customers=3_000)
    holiday = window.day == MONDAY + 3
    for i in range(6):
        made[f"size_{i}"][holiday] *= 5
    verdict = judge(world(0)[0], made, window=window, predictions=(np.zeros(7 * A_DAY), np.zeros(7 * A_DAY)))
    assert (verdict.status, verdict.drifted_features) == ("watch", ())
    assert verdict.reasons[1].startswith("only because of 2026-03-05, so not counted: size_")
    assert {f.lone_day for f in verdict.features if f.feature in ("size_0", "size_5")} == {date(2026, 3, 5)}
    blind = judge(world(0)[0], made)  # not told which rows are of one day
    assert blind.status == "drift"


def test_a_drift_that_lasts_is_none_of_one_day():
    made, window = world(1, customers=3_000)
    later = window.day >= MONDAY + 3
    for i in range(6):
        made[f"size_{i}"][later] *= 1.8
    assert judge(world(0)[0], made, window=window).status == "drift"


def test_scores_of_one_day_do_not_count_either():
    made, window = world(1, customers=3_000)
    before = np.random.default_rng(0).normal(size=7 * A_DAY)
    moved = np.random.default_rng(1).normal(size=7 * A_DAY) + 2.5 * (window.day == MONDAY + 1)
    verdict = judge(world(0)[0], made, window=window, predictions=(before, moved))
    assert verdict.status == "watch"
    assert "only because of 2026-03-03, so not counted: prediction" in verdict.reasons
    assert judge(world(0)[0], made, window=window, predictions=(before, moved + 0.5)).status == "drift"


def test_few_payments_or_few_customers_say_nothing_and_say_so():
    few = verdict_on(world(1, per_day=20))
    assert (few.status, few.judged, few.features) == ("watch", False, ())
    assert few.reasons == ("140 payments say nothing about drift: at least 200 are needed",)
    made, window = world(1)
    script = Window(window.day, np.where(np.arange(len(window.day)) % 50, 0, window.customer))
    one = judge(world(0)[0], made, window=script)
    assert (one.status, one.judged) == ("watch", False)
    assert "at least 30 equally active ones are needed" in one.reasons[0]
    json.dumps(one.to_dict(), allow_nan=False)


def test_days_on_which_nothing_came_are_a_broken_input():
    verdict = nothing_came(first=date(2026, 3, 2), last=date(2026, 3, 8), reference_rows=500)
    assert (verdict.status, verdict.judged, verdict.current_rows) == ("broken_input", False, 0)
    assert verdict.reasons == ("not one payment came from 2026-03-02 to 2026-03-08",)


def test_a_window_of_other_rows_is_refused():
    made, window = world(1)
    with pytest.raises(InputError, match="not that of the current sample"):
        judge(world(0)[0], made, window=Window(window.day[:5], window.customer[:5]))


def missing(values: np.ndarray) -> np.ndarray:
    return np.full(len(values), np.nan)


FAULTS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray], str]] = {
    "a missing field": ("place", missing, r"place is missing in \d+%, it was in \d+%"),
    "a unit that changed": ("size_2", lambda v: v * 100, "size_2 moved by .* standard deviations"),
    "an impossible range": ("size_3", lambda v: -v, r"size_3 has impossible values in \d+%"),
    "a constant field": ("size_4", lambda v: np.full(len(v), 3.25), "size_4 is always 3.25, it varied"),
    "codes that changed": ("channel_code", lambda v: v + 10, "channel_code has other codes"),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("days_ago", [1, 2, 6])
def test_a_broken_field_is_named_with_its_first_day(name: str, days_ago: int):
    feature, harm, said = FAULTS[name]
    made, window = world(1)
    first = MONDAY + 7 - days_ago
    rows = window.day >= first
    made[feature][rows] = harm(made[feature][rows])
    verdict = judge(world(0)[0], made, window=window)
    since = date(1970, 1, 1) + timedelta(days=first)
    assert (verdict.status, verdict.broken_features) == ("broken_input", (feature,))
    assert re.match(said, verdict.reasons[0]), verdict.reasons
    assert verdict.reasons[0].endswith(f"; since {since}")
    told = json.loads(json.dumps(verdict.to_dict(), allow_nan=False))
    assert told["broken_since"] == {feature: since.isoformat()}
    (detail,) = [d for d in told["feature_details"] if d["feature"] == feature]
    assert detail["broken_since"] == since.isoformat()
    assert detail["broken_until"] is None
    assert detail["fault"] in ("missing", "scale", "range", "constant", "codes")


def test_a_field_that_is_mended_says_until_when_it_was_broken():
    made, window = world(1)
    rows = (window.day >= MONDAY + 1) & (window.day <= MONDAY + 4)
    made["place"][rows] = np.nan
    verdict = judge(world(0)[0], made, window=window)
    assert verdict.status == "broken_input"
    assert verdict.reasons[0].endswith("; since 2026-03-03 until 2026-03-06")


def test_a_flag_that_was_rare_may_become_constant():
    made, window = world(1)
    made["rare"][:] = 0
    assert judge(world(0)[0], made, window=window).status == "stable"


def test_limits_are_tried_on_one_comparison():
    made, window = world(1)
    for i in range(2):
        made[f"size_{i}"] *= 1.4
    held = compare(world(0)[0], made, window=window)
    assert judge_comparison(held, limits=DriftLimits()).status == "drift"
    assert judge_comparison(held, limits=DriftLimits(share=0.5)).status == "stable"


def test_reference_rows_are_drawn_by_weekday():
    reference = np.repeat(np.arange(7.0), 100)
    assert len(same_weekdays(reference, np.repeat(np.arange(7.0), 30))) == 700
    two = reference[same_weekdays(reference, np.array([1.0] * 30 + [2.0] * 10))]
    assert [int((two == day).sum()) for day in (0, 1, 2)] == [0, 100, 33]
    scarce = np.concatenate([np.repeat(np.arange(6.0), 100), [6.0] * 3])
    assert len(same_weekdays(scarce, np.repeat(np.arange(7.0), 30))) == 603
    assert len(same_weekdays(reference, np.array([9.0, np.nan]))) == 700
