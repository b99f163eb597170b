"""`fraud replay` and `fraud decision verify` from the command line."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.cli import run
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.decided_homes import OTHER, PAYMENTS, SWITCHED_AT, decided_home
from fraud_pipeline_tests.serving.home import HISTORY_END, made_bundle, promote_bundle

RANGE = ["--from", f"{HISTORY_END:%Y-%m-%d}", "--to", f"{HISTORY_END:%Y-%m-%d}T23:00:00Z"]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    made = decided_home(tmp_path / "home")
    promote_bundle(made, made_bundle(**OTHER), 2)
    monkeypatch.setenv("FRAUD_HOME", str(made.home))
    return made


def test_the_past_comes_out_the_same(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", *RANGE, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["payments"], said["again"], said["identical"], said["equal"]) == (PAYMENTS, PAYMENTS, PAYMENTS, True)
    assert list(Path(said["out"]).glob("part-*.parquet"))
    assert json.loads((Path(said["out"]) / "report.json").read_text())["identical"] == PAYMENTS


def test_another_bundle_gives_a_what_if(settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", *RANGE, "--bundle", "champion", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "decided by 2" in said
    assert f"{PAYMENTS - SWITCHED_AT} were decided by the same version: all identical, bit for bit" in said
    assert "APPROVE -> " in said
    assert "value_difference" in said


def test_the_days_before_the_log_come_too_where_they_are_asked_for(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--from", f"{HISTORY_END - timedelta(days=3):%Y-%m-%d}", *RANGE[2:], "--bundle", "1", "--json"]
    assert run(["replay", *options, "--out", str(tmp_path / "a")]) == 0
    log_only = json.loads(capsys.readouterr().out)
    assert run(["replay", *options, "--out", str(tmp_path / "b"), "--history"]) == 0
    both = json.loads(capsys.readouterr().out)
    assert log_only["payments"] == PAYMENTS < both["payments"]
    assert both["undecided"] == both["payments"] - PAYMENTS


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([*RANGE, "--bundle", "best"], "'best' is no version"),
        ([*RANGE, "--bundle", "challenger"], "no challenger"),
        (["--from", "then", "--to", "2026-01-01"], "--from 'then' is no time"),
    ],
)
def test_what_makes_no_sense_is_refused(
    settings: Settings, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert run(["replay", *options]) == 2
    assert said in capsys.readouterr().err


def test_a_decision_is_verified(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["decision", "verify", "live-97"]) == 0
    said = capsys.readouterr().out
    assert "comes out the same, bit for bit" in said
    assert "The log gives the very vector." in said


def test_a_decision_that_parts_from_its_log_says_where(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    with Ledger.open(settings.ledger_url) as ledger, ledger.database.writing() as connection:
        connection.execute(sa.text("UPDATE transactions SET customer_id = 'x' WHERE transaction_id = 'live-60'"))
    assert run(["decision", "verify", "live-67", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["executed_differences"] == {}
    assert said["feature_differences"]
    assert run(["decision", "verify", "live-67"]) == 1
    assert "another vector" in capsys.readouterr().out
    assert run(["decision", "verify", "nobody"]) == 2
