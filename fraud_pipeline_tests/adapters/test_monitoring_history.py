"""The reports over the as-of dates, as they are kept and drawn."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fraud_pipeline.adapters.drift_report import write_verdict
from fraud_pipeline.adapters.history_plots import history_chart
from fraud_pipeline.adapters.monitoring_history import read_history, write_performance
from fraud_pipeline.domain.drift import judge
from fraud_pipeline.errors import DependencyError

NOW = datetime(2026, 3, 8, tzinfo=UTC)
FIRST = date(2026, 3, 1)


def told(value: float) -> dict[str, Any]:
    metric = {"value": value, "low": value - 0.1, "high": value + 0.1}
    return {
        "found": {"pr_auc": metric, "recall": {"value": 0.5, "low": math.nan, "high": math.nan}},
        "expected_of_mature": {"pr_auc": {"value": value + 0.02, "low": math.nan, "high": math.nan}, "recall": metric},
    }


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    before = {f"size_{i}": rng.lognormal(3, 1, 400) for i in range(4)}
    scores = rng.normal(size=400)
    for back in range(6):
        now = {name: values * (1 + 0.3 * back) for name, values in before.items()}
        as_of = FIRST + timedelta(days=back)
        found = judge(before, now, predictions=(scores, scores + 0.05 * back))
        path = tmp_path / "drift" / f"{as_of}-version-{1 + back // 4}.json"
        write_verdict(path, found, champion=1 + back // 4, as_of=as_of, now=NOW)
        if back:
            write_performance(tmp_path, told(0.6 - 0.05 * back), champion=1 + back // 4, as_of=as_of)
    return tmp_path


def test_history_puts_both_reports_of_a_day_together(reports: Path):
    points = read_history(reports)
    assert [point.as_of for point in points] == [FIRST + timedelta(days=back) for back in range(6)]
    assert [point.champion for point in points] == [1, 1, 1, 1, 2, 2]
    first, last = points[0], points[-1]
    assert (first.status, first.drifted_share, first.score_distance) == ("stable", 0.0, 0.0)
    assert math.isnan(first.pr_auc.value)
    assert (last.status, last.drifted_share) == ("drift", 1.0)
    assert last.score_distance == pytest.approx(0.25, abs=0.02)
    assert (last.pr_auc.value, last.pr_auc.low, last.pr_auc.high) == pytest.approx((0.35, 0.25, 0.45))
    assert last.expected_pr_auc == pytest.approx(0.37)
    assert (last.recall.value, math.isnan(last.recall.low), last.expected_recall.value) == (0.5, True, 0.35)


def test_a_report_of_the_same_day_replaces_its_own_and_another_champions_stays(reports: Path):
    write_performance(reports, told(0.9), champion=2, as_of=FIRST + timedelta(days=5))
    assert read_history(reports)[-1].pr_auc.value == 0.9
    write_performance(reports, told(0.1), champion=1, as_of=FIRST + timedelta(days=5))
    assert read_history(reports)[-1].pr_auc.value == 0.9  # the newer version's


def test_damaged_files_are_left_out(reports: Path):
    (reports / "drift" / "2026-03-03-version-1.json").write_text("{")
    (reports / "performance" / "2026-03-06-version-2.json").write_text("[]")
    points = read_history(reports)
    assert [point.status for point in points][2] == ""
    assert math.isnan(points[-1].pr_auc.value)
    assert read_history(reports / "nowhere") == []


def test_what_is_not_a_number_is_null_in_the_file(reports: Path):
    path = write_performance(reports, {"found": None, "x": {"value": math.nan}}, champion=3, as_of=FIRST)
    assert json.loads(path.read_text()) == {"as_of": "2026-03-01", "champion": 3, "found": None, "x": {"value": None}}


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "performance").write_text("")
    with pytest.raises(DependencyError, match="cannot be written"):
        write_performance(tmp_path, {}, champion=1, as_of=FIRST)


@pytest.mark.parametrize("kept", [0, 1, 6])
def test_the_chart_is_a_picture_whatever_there_is(reports: Path, kept: int):
    picture = history_chart(read_history(reports)[:kept], share_limit=0.1, score_limit=0.2)
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000
