from __future__ import annotations

import json
import os
import threading
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from fraud_pipeline.adapters.drift_report import write_verdict
from fraud_pipeline.adapters.drift_results import NEWEST, DriftResults
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.domain.drift import DriftVerdict, judge
from fraud_pipeline.domain.drift_episode import DriftObservation, EpisodeAction
from fraud_pipeline.errors import DependencyError, IntegrityError, NotFound

NOW = datetime(2026, 3, 8, 5, 30, tzinfo=UTC)
ROWS = 400


def verdict(*, moved: float = 0.0) -> DriftVerdict:
    rng = np.random.default_rng(1)
    before = {
        "amount": rng.lognormal(3, 1, ROWS),
        "never_there": np.full(ROWS, np.nan),
        "hour": rng.integers(0, 24, ROWS),
    }
    now = before | {"amount": before["amount"] * (1 + moved)}
    return judge(before, now)


def store(folder: Path, found: DriftVerdict, *, as_of: date, now: datetime, champion: int = 3) -> Path:
    path = folder / f"{as_of}-version-{champion}.json"
    path.parent.mkdir(exist_ok=True)
    path.with_suffix(".html").write_text(f"<html>{as_of}</html>")
    return write_verdict(path, found, champion=champion, as_of=as_of, now=now)


@pytest.fixture
def ledger(tmp_path: Path):
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as held:
        yield held


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "drift"


def test_the_status_has_the_fields_that_users_of_other_drift_apis_know(folder: Path, ledger: Ledger) -> None:
    store(folder, verdict(), as_of=date(2026, 3, 1), now=NOW - timedelta(days=7))
    store(folder, verdict(moved=2.0), as_of=date(2026, 3, 8), now=NOW)
    status = DriftResults(folder.parent, ledger).status()
    known = {
        "timestamp": NOW.isoformat(),
        "dataset_drift_detected": True,
        "num_features_checked": 3,
        "num_features_drifted": 1,
        "reference_rows": ROWS,
        "current_rows": ROWS,
        "drifted_features": ["amount"],
        "status": "drift",
        "champion": 3,
        "as_of": "2026-03-08",
    }
    assert {name: status[name] for name in known} == known
    assert status["dataset_drift_share"] == pytest.approx(1 / 3)
    assert status["reasons"] == ["1 of 3 features drifted: amount"]
    amount, nothing, hour = status["feature_details"]
    assert (amount["feature"], amount["drift_detected"], amount["stattest"]) == ("amount", True, "wasserstein")
    assert amount["drift_score"] > 1
    assert amount["current_mean"] == pytest.approx(3 * amount["reference_mean"])
    assert (nothing["feature"], nothing["reference_mean"], nothing["drift_detected"]) == ("never_there", None, False)
    assert (hour["drift_score"], hour["drift_detected"]) == (0.0, False)


def test_newest_is_what_was_judged_last_and_the_page_is_of_the_same_report(folder: Path, ledger: Ledger) -> None:
    results = DriftResults(folder.parent, ledger)
    store(folder, verdict(), as_of=date(2026, 3, 8), now=NOW)
    assert results.report_path() == folder / "2026-03-08-version-3.html"
    store(folder, verdict(moved=2.0), as_of=date(2026, 3, 1), now=NOW + timedelta(hours=1))
    assert results.status()["as_of"] == "2026-03-01"
    assert results.report_path().read_text() == "<html>2026-03-01</html>"


def test_a_report_that_is_written_again_is_read_again(folder: Path, ledger: Ledger) -> None:
    results = DriftResults(folder.parent, ledger)
    path = store(folder, verdict(), as_of=date(2026, 3, 8), now=NOW)
    assert results.stats()["by_status"] == {"stable": 1}
    store(folder, verdict(moved=2.0), as_of=date(2026, 3, 8), now=NOW + timedelta(minutes=1))
    os.utime(path, ns=(1, 1))  # also where the clock of the disk went back
    assert results.stats()["by_status"] == {"drift": 1}


def test_stats_sum_up_the_reports_and_the_episodes(folder: Path, ledger: Ledger) -> None:
    for day, moved in enumerate((0.0, 2.0, 2.0, 0.0)):
        store(folder, verdict(moved=moved), as_of=date(2026, 3, 1) + timedelta(days=day), now=NOW + timedelta(days=day))
    seen = DriftObservation(NOW, 3, drifted=True, reason="1 of 3 features drifted")
    ledger.apply_episode_action(EpisodeAction("open", "drift", 1, 1), seen, verdict={}, now=NOW + timedelta(hours=1))
    ledger.note_run("1:1", outcome="succeeded", run_id="run-1")
    stats = DriftResults(folder.parent, ledger).stats()
    assert (stats["reports"], stats["by_status"], stats["drift_detected"]) == (4, {"stable": 2, "drift": 2}, 2)
    assert (stats["first_timestamp"], stats["last_timestamp"]) == (
        NOW.isoformat(),
        (NOW + timedelta(days=3)).isoformat(),
    )
    assert stats["mean_drift_share"] == pytest.approx(1 / 6)
    assert stats["max_drift_share"] == pytest.approx(1 / 3)
    assert stats["most_drifted_features"] == [{"feature": "amount", "reports": 2}]
    assert [(h["as_of"], h["status"], h["num_features_drifted"]) for h in stats["history"]] == [
        ("2026-03-04", "stable", 0), ("2026-03-03", "drift", 1), ("2026-03-02", "drift", 1), ("2026-03-01", "stable", 0),
    ]  # fmt: skip
    assert stats["open_episode"] == 1
    (episode,) = stats["episodes"]
    assert (episode["opened_at"], episode["champion_version"], episode["closed_at"]) == (NOW.isoformat(), 3, None)
    assert episode["attempts"] == [
        {
            "attempt": 1, "run_key": "1:1", "as_of": NOW.isoformat(),
            "requested_at": (NOW + timedelta(hours=1)).isoformat(), "outcome": "succeeded", "run_id": "run-1",
        }
    ]  # fmt: skip
    json.dumps(stats, allow_nan=False)


def test_before_the_first_report_there_is_none_and_stats_say_so(folder: Path, ledger: Ledger) -> None:
    results = DriftResults(folder.parent, ledger)
    for ask in (results.status, results.report_path):
        with pytest.raises(NotFound, match="There is no drift report yet") as caught:
            ask()
        assert "POST /drift/run" in caught.value.remedy
    stats = results.stats()
    assert (stats["reports"], stats["mean_drift_share"], stats["episodes"], stats["open_episode"]) == (
        0,
        None,
        [],
        None,
    )


def test_earlier_reports_stay_to_be_had_by_name(folder: Path, ledger: Ledger) -> None:
    results = DriftResults(folder.parent, ledger)
    for day in (1, 8):
        store(folder, verdict(), as_of=date(2026, 3, day), now=NOW + timedelta(days=day))
    assert results.report_path("2026-03-01-version-3").read_text() == "<html>2026-03-01</html>"
    for name in ("2026-03-02-version-3", "../drift/2026-03-01-version-3", "", "2026-03-01-version-3.html", "x" * 5_000):
        with pytest.raises(NotFound, match="There is no drift report") as caught:
            results.report_path(name)
        assert len(str(caught.value)) < 300


def test_a_page_that_was_removed_is_named(folder: Path, ledger: Ledger) -> None:
    path = store(folder, verdict(), as_of=date(2026, 3, 8), now=NOW)
    path.with_suffix(".html").unlink()
    with pytest.raises(NotFound, match=r"2026-03-08-version-3\.html of the newest drift report is gone"):
        DriftResults(folder.parent, ledger).report_path()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"timestamp": "2026-03-08T05:30:00+00:00"}'])
def test_a_damaged_file_is_named_and_never_guessed(folder: Path, ledger: Ledger, content: str) -> None:
    path = store(folder, verdict(), as_of=date(2026, 3, 8), now=NOW)
    path.write_text(content)
    with pytest.raises(IntegrityError, match=r"2026-03-08-version-3\.json holds no drift verdict"):
        DriftResults(folder.parent, ledger).status()


def test_a_folder_that_cannot_be_read_is_an_unavailable_dependency(folder: Path, ledger: Ledger) -> None:
    folder.mkdir()
    (folder / "2026-03-08-version-3.json").symlink_to(folder / "nowhere")
    with pytest.raises(DependencyError, match="cannot be read"):
        DriftResults(folder.parent, ledger).status()


def test_only_the_newest_reports_are_looked_at(folder: Path, ledger: Ledger) -> None:
    found = verdict()
    for day in range(NEWEST + 3):
        store(folder, found, as_of=date(2026, 1, 1) + timedelta(days=day), now=NOW + timedelta(days=day))
    stats = DriftResults(folder.parent, ledger).stats()
    assert (stats["reports"], stats["history"][-1]["as_of"]) == (NEWEST, "2026-01-04")


def test_threads_may_ask_at_once(folder: Path, ledger: Ledger) -> None:
    for day in range(5):
        store(folder, verdict(), as_of=date(2026, 3, 1) + timedelta(days=day), now=NOW + timedelta(days=day))
    results, seen = DriftResults(folder.parent, ledger), []
    threads = [threading.Thread(target=lambda: seen.append(results.stats()["reports"])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen == [5] * 8
