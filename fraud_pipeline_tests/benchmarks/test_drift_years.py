"""How benchmarks.drift_years counts: the limits it tries, the episodes it plays, and what it draws."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.drift_years import FACTORS, Episodes, scaled, sum_up
from benchmarks.drift_years_plot import draw_trade_off
from fraud_pipeline.domain.drift_verdict import DriftLimits, DriftVerdict, Status
from fraud_pipeline.domain.new_labels import NewLabels

DAY = date(2026, 5, 1)
MANY = NewLabels(frauds=500, days=20, since=DAY)
NONE = NewLabels(frauds=0, days=2, since=DAY)


def champion() -> SimpleNamespace:
    return SimpleNamespace(learned_through=DAY)


def verdict(status: Status) -> DriftVerdict:
    return DriftVerdict(status, ("for a test",), (), None, 500, 500, None, None, DriftLimits())


def played(statuses: list[Status], new: NewLabels = MANY) -> Episodes:
    seen = Episodes(champion())  # type: ignore[arg-type]
    for number, status in enumerate(statuses, start=1):
        seen.judge(verdict(status), DAY + timedelta(days=number), new)
    return seen


def days(moments: list[date]) -> list[int]:
    return [(moment - DAY).days for moment in moments]


def test_an_alarm_asks_once_and_again_when_it_has_cooled_down():
    seen = played(["stable", "drift", "drift", "drift", "drift", "drift", "drift", "drift", "drift", "drift", "drift"])
    assert days(seen.asked) == [2, 9]
    assert seen.verdicts == {"stable": 1, "drift": 10}


def test_a_broken_input_asks_for_nothing():
    seen = played(["broken_input"] * 5)
    assert (seen.asked, days(seen.broken)) == ([], [1, 2, 3, 4, 5])


def test_without_labels_an_episode_opens_and_asks_for_nothing():
    seen = played(["drift"] * 3, NONE)
    assert (days(seen.opened), seen.asked) == ([1], [])


def test_factors_leave_the_default_as_it_is_and_move_every_limit_of_drift():
    assert scaled(1.0) == DriftLimits()
    assert 1.0 in FACTORS
    loose, base = scaled(2.0), DriftLimits()
    assert (loose.share, loose.wasserstein) == (0.2, 0.2)
    assert loose.missed_ratio == pytest.approx(1.8)
    assert loose.significance == pytest.approx(1e-4)
    assert (loose.broken_wasserstein, loose.min_rows) == (base.broken_wasserstein, base.min_rows)


def test_years_and_days_are_summed_up_and_drawn(tmp_path: Path):
    def seed(stable: list[int], opened: list[int]) -> dict[str, object]:
        calm = {"asked": stable, "opened": stable, "broken": [], "verdicts": {"stable": 52}}
        moved = {"asked": opened, "opened": opened, "broken": [], "verdicts": {"drift": 3}}
        return {"stable": dict.fromkeys(map(str, FACTORS), calm), "covid": dict.fromkeys(map(str, FACTORS), moved)}

    options = SimpleNamespace(
        kinds=["covid"], year=365, seeds=[1, 2, 3], customers=1, rate=1.0, fraud_rate=0.01, every=7, drift_every=1
    )
    result = sum_up([seed([3, 200], [9]), seed([], [12]), seed([], [])], options)  # type: ignore[arg-type]
    row = result["by_factor"]["1.0"]
    assert row["false_retrains_per_year"] == pytest.approx(2 / 3)
    assert row["days_to_detect"] == {"covid": 12}
    assert row["each"] == {"covid": [9, 12, None]}
    assert row["stable_verdicts"] == {"stable": 156}
    late = sum_up([seed([], []), seed([], []), seed([], [4])], options)  # type: ignore[arg-type]
    assert late["by_factor"]["1.0"]["days_to_detect"] == {"covid": None}
    for number, each in enumerate((result, late)):
        draw_trade_off(each, tmp_path / f"{number}.png")
        assert (tmp_path / f"{number}.png").read_bytes().startswith(b"\x89PNG")
