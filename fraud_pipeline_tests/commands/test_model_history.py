"""`fraud models history`: the story of a watched ledger, as people and as programs read it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fraud_pipeline import cli
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline_tests.adapters.watched_ledger import WatchedLedger

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def rolled_back_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 2 was forced in place of 1, alerted everything, and was rolled back."""
    home = tmp_path_factory.mktemp("rolled-back")
    with Ledger.open(f"sqlite:///{home / 'ledger.db'}") as ledger:
        place = WatchedLedger(home, ledger)
        place.now = datetime.now(UTC) - timedelta(hours=1)
        place.promote(1, place.bundle(), evidence={"gates": {"results": []}})
        place.promote(2, place.bundle(review=0.00001), kind="forced", who="ann", reason="a hunch")
        place.answer(600, days=0.1)
        assert place.steps().rolled_back is not None
    return home


@pytest.fixture(autouse=True)
def _home(rolled_back_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAUD_HOME", str(rolled_back_home))


def test_the_history_has_kind_who_why_and_the_numbers(capsys: Capture) -> None:
    assert cli.run(["models", "history", "--json"]) == 0
    events = json.loads(capsys.readouterr().out)["history"]
    assert [(e["what"], e["version"], e["who"]) for e in events if not e["what"].startswith("watch")] == [
        ("rollback instead of 2", 1, "the watch"), ("forced instead of 1", 2, "ann"), ("promotion", 1, "test"),
    ]  # fmt: skip
    (watch,) = [e for e in events if e["what"] == "watch breached"]
    assert (watch["version"], watch["evidence"]["counted"]["decisions"]) == (2, 600)
    (rollback,) = [e for e in events if e["what"].startswith("rollback")]
    assert rollback["evidence"]["watch"]["checks"] == watch["evidence"]["checks"]


def test_people_see_the_limits_with_their_values(capsys: Capture) -> None:
    assert cli.run(["models", "history", "--evidence"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "rollback instead of 2" in said
    assert "alerts_within_the_budget FAILED" in said


def test_one_version_alone(capsys: Capture) -> None:
    assert cli.run(["models", "history", "2", "--json"]) == 0
    events = json.loads(capsys.readouterr().out)["history"]
    assert {e["version"] for e in events} == {2}
    assert len(events) == 2


def test_a_home_without_a_ledger_has_no_history_and_gets_none(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FRAUD_HOME", str(tmp_path / "new"))
    assert cli.run(["models", "history", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"history": []}
    assert not (tmp_path / "new").exists()
