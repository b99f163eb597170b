"""What reports, promotions, candidates and failed runs mean for people."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from fraud_pipeline.domain.notice import RecordedNotice
from fraud_pipeline.domain.notice_conditions import Condition
from fraud_pipeline.domain.notice_reports import (
    NO_PAYMENTS,
    champion_condition,
    drift_conditions,
    gate_notice,
    parity_condition,
    promotion_notice,
    registry_condition,
    run_condition,
    run_over,
    run_subject,
)
from fraud_pipeline.domain.promotion import Promotion

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def report(status: str, *, broken: tuple[str, ...] = (), **verdict: Any) -> dict[str, Any]:
    return {
        "status": status, "champion": 3, "as_of": NOW.date(), "reasons": ["12 of 65 inputs drifted"],
        "verdict": {"broken_features": list(broken), "drifted_features": ["amount"], "dataset_drift_share": 0.18, **verdict},
    }  # fmt: skip


def conditions(found: dict[str, Any], *opened: Condition) -> dict[str, Condition]:
    told = [RecordedNotice(n, each.beginning(1), NOW) for n, each in enumerate(opened)]
    return {each.key: each for each in drift_conditions(found, told, at=NOW, link="http://ui/assets/drift_report")}


def test_drift_is_told_with_its_reasons_and_ends_with_a_report_that_knows_the_world() -> None:
    (drift,) = conditions(report("drift")).values()
    assert (drift.key, drift.holds, drift.severity) == ("drift/world", True, "warning")
    assert "12 of 65 inputs drifted" in drift.text
    assert drift.facts["champion"] == 3
    for status in ("stable", "watch"):
        (over,) = conditions(report(status), drift).values()
        assert not over.holds


def test_a_broken_input_hides_drift_and_names_its_fields_and_since_when() -> None:
    found = conditions(
        report("broken_input", broken=("amount", "hour"), broken_since={"amount": "2026-02-27", "hour": None})
    )
    (broken,) = found.values()
    assert (broken.key, broken.holds, broken.severity) == ("broken_input/amount,hour", True, "critical")
    assert "amount since 2026-02-27, hour" in broken.title
    assert broken.facts["since"] == {"amount": "2026-02-27", "hour": None}


def test_a_field_that_breaks_later_is_told_too_and_each_group_ends_by_itself() -> None:
    (first,) = conditions(report("broken_input", broken=("amount",))).values()
    again = conditions(report("broken_input", broken=("amount",)), first)
    assert [(c.key, c.holds) for c in again.values()] == [("broken_input/amount", True)]
    both = conditions(report("broken_input", broken=("amount", "hour")), first)
    assert {key: c.holds for key, c in both.items()} == {"broken_input/amount": True, "broken_input/hour": True}
    mended = conditions(report("broken_input", broken=("hour",)), first, both["broken_input/hour"])
    assert {key: c.holds for key, c in mended.items()} == {"broken_input/amount": False, "broken_input/hour": True}
    sound = conditions(report("stable"), first, both["broken_input/hour"])
    assert not any(c.holds for c in sound.values())
    assert set(sound) == {"drift/world", "broken_input/amount", "broken_input/hour"}


def test_a_report_that_could_judge_nothing_ends_nothing_but_an_empty_week_is_told() -> None:
    (drift,) = conditions(report("drift")).values()
    assert conditions(report("watch", judged=False), drift) == {}
    (empty,) = conditions(report("broken_input", judged=False)).values()
    assert (empty.subject, empty.holds) == (NO_PAYMENTS, True)


def test_parity_the_champion_and_the_registry_end_when_they_are_well() -> None:
    differs = parity_condition(live=1, logged=2, compared=1_000, at=NOW, link=None)
    assert (differs.holds, differs.severity) == (True, "critical")
    assert differs.title.startswith("3 feature values differ")
    assert "Of 1,000 compared values 1 differ computed live, and 2 as logged" in differs.text
    assert not parity_condition(live=0, logged=0, compared=1_000, at=NOW, link=None).holds
    gone = champion_condition(4, "The files of version 4 are gone.", at=NOW, link=None)
    assert (gone.holds, gone.key) == (True, "champion_missing/version 4")
    assert gone.text.startswith("The files of version 4 are gone.")
    assert not champion_condition(4, None, at=NOW, link=None).holds
    assert registry_condition("MLflow at x does not answer", at=NOW).holds
    assert not registry_condition(None, at=NOW).holds


@pytest.mark.parametrize(
    ("kind", "told_as", "severity", "title"),
    [
        ("promotion", "promotion", "info", "Version 2 is champion"),
        ("forced", "promotion", "warning", "Version 2 was made champion by force"),
        ("rollback", "rollback", "critical", "Version 3 was rolled back: version 2 is champion again"),
    ],
)
def test_each_row_of_promotions_is_told_for_what_it_is(kind: Any, told_as: str, severity: str, title: str) -> None:
    evidence = {"alert_rate": 0.004, "gates": [{"name": "x"}]}
    row = Promotion(7, 6, kind, 2, "f2", 3, "watch", "alert rate left its band", NOW, evidence)
    notice = promotion_notice(row, link=None)
    assert (notice.kind, notice.severity, notice.title, notice.episode) == (told_as, severity, title, "promotion-7")
    assert "alert rate left its band" in notice.text
    assert notice.facts["evidence"] == {"alert_rate": 0.004}


def test_a_stopped_candidate_names_its_gates() -> None:
    notice = gate_notice(5, reason="pr_auc: 0.1 < 0.15", failed=["pr_auc_above_floor"], at=NOW, link=None)
    assert (notice.kind, notice.episode, notice.facts["failed_gates"]) == (
        "gate_failed",
        "version-5",
        ["pr_auc_above_floor"],
    )


def test_a_failed_run_is_one_episode_per_job_and_assets_and_shows_no_password() -> None:
    assert run_subject("retrain", []) == "retrain"
    assert run_subject("__ASSET_JOB", ["a", "b"]) == run_subject("__ASSET_JOB", ["b", "a"])
    assert run_subject("__ASSET_JOB", ["a"]) != run_subject("__ASSET_JOB", ["b"])
    failed = run_condition("retrain", [], run_id="r1", error="no route to\npostgresql://u:pw@db", at=NOW, link=None)
    assert failed.text == "Run r1: no route to postgresql://u:***@db"
    told = RecordedNotice(1, failed.beginning(1), NOW)
    assert run_over(told, made_since=True, at=NOW).key == failed.key
    assert not run_over(told, made_since=True, at=NOW).holds
    assert run_over(told, made_since=False, at=NOW).holds
    assert replace(failed, holds=False).key == failed.key
