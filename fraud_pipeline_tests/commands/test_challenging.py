"""`fraud models challenge` and `fraud models compare`: who challenges, and what the ledger says of the payments that both decided."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fraud_pipeline import cli
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import DecisionRecord, LedgerEntry
from fraud_pipeline.adapters.model_registry import ModelRegistry
from fraud_pipeline.adapters.promotions import promote
from fraud_pipeline.domain.decision import Decision
from fraud_pipeline.domain.gates import REQUIRED_GATES, GateResult
from fraud_pipeline.domain.promotion import GateEvidence
from fraud_pipeline.domain.thresholds import thresholds_at
from fraud_pipeline.domain.transaction import Label, Transaction
from fraud_pipeline_tests.bundles import PLATT, write_bundle

NOW = datetime(2026, 3, 2, tzinfo=UTC)
SECOND = timedelta(seconds=1)
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def served_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 is champion, 2 passed its gates, 3 did not; of three payments 1 decided two, 2 the third, each the other in shadow."""
    home = tmp_path_factory.mktemp("challenged")
    registry = ModelRegistry.open(
        f"sqlite:///{home / 'mlflow.db'}", artifact_root=home / "mlartifacts", cache_dir=home / "bundles"
    )
    with Ledger.open(f"sqlite:///{home / 'ledger.db'}") as ledger:
        for number, passed in ((1, True), (2, True), (3, False)):
            thresholds = thresholds_at(PLATT, review=number / 10, block=0.9)
            version = registry.register(write_bundle(home / "made", thresholds=thresholds))
            results = tuple(GateResult(name, passed, "error", 0.5, ">= 0.3", "judged") for name in REQUIRED_GATES)
            against = None if number == 1 else 1
            registry.record_gates(version.version, GateEvidence(version.fingerprint, against, results))
            if number == 1:
                promote(ledger, registry, 1, who="test", required_gates=REQUIRED_GATES)
        answers = [decided(1, "1", 0.9), decided(2, "1", 0.1), decided(3, "2", 0.8)]
        ledger.append([entry(answer) for answer in answers])
        shadows = [
            replace(answer, model_version="2" if answer.model_version == "1" else "1", decision="APPROVE")
            for answer in answers
        ]
        ledger.record_decisions([DecisionRecord.of(shadow, role="shadow") for shadow in shadows])
        ledger.record_labels([Label("t1", True, "chargeback", "bank", NOW)])
    return home


@pytest.fixture(autouse=True)
def _home(served_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAUD_HOME", str(served_home))


def decided(number: int, version: str, probability: float) -> Decision:
    moment = NOW + number * SECOND
    return Decision(
        transaction_id=f"t{number}", event_time=moment, decided_at=moment, fraud_probability=probability, anomaly_score=0.5,
        raw_score=probability * 10, decision="REVIEW" if probability > 0.5 else "APPROVE", risk_factors=(), reasons=(),
        model_version=version, feature_schema="s", processing_time_ms=0.1, features=b"",
    )  # fmt: skip


def entry(decision: Decision) -> LedgerEntry:
    payment = Transaction(decision.transaction_id, decision.event_time, "c1", "m1", 100)
    return LedgerEntry(payment, decision.event_time, decision=DecisionRecord.of(decision))


def said(capsys: Capture, *line: str, code: int = 0) -> Any:
    assert cli.run(["models", *line, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def refused(capsys: Capture, *line: str) -> str:
    assert cli.run(["models", *line]) == 2
    return capsys.readouterr().err


def test_a_challenger_is_appointed_shown_and_dismissed(served_home: Path, capsys: Capture) -> None:
    made = said(capsys, "challenge", "2", "--reason", "a trial")
    assert (made["challenger"]["version"], made["challenger"]["reason"], made["before"]) == (2, "a trial", None)
    fetched = served_home / "bundles" / f"2-{made['challenger']['fingerprint'][:16]}"
    assert (fetched / "bundle.json").exists()
    assert [v["version"] for v in said(capsys, "list")["versions"] if "challenger" in v["aliases"]] == [2]
    assert said(capsys, "show", "challenger")["version"] == 2
    assert said(capsys, "challenge", "2")["challenger"]["challenger_id"] == made["challenger"]["challenger_id"]
    gone = said(capsys, "challenge", "--none")
    assert (gone["challenger"], gone["before"]["version"]) == (None, 2)
    assert cli.run(["models", "challenge", "--none"]) == 0
    assert capsys.readouterr().out == "There was no challenger.\n"


def test_who_cannot_challenge_is_told_why(capsys: Capture) -> None:
    assert "Version 3 cannot be challenger: gate" in refused(capsys, "challenge", "3")
    assert "Version 1 cannot be challenger: it is the champion" in refused(capsys, "challenge", "1")
    assert "There is no version 9" in refused(capsys, "challenge", "9")


@pytest.mark.parametrize("line", [[], ["2", "--none"]])
def test_one_version_or_none_is_to_be_given(capsys: Capture, line: list[str]) -> None:
    assert "Give one VERSION, or --none" in refused(capsys, "challenge", *line)


def test_compare_reads_both_decisions_from_the_ledger(capsys: Capture) -> None:
    found = said(capsys, "compare", "2", "1")
    assert [version["version"] for version in found["versions"]] == [2, 1]
    decisions = found["decisions"]
    assert (decisions["payments"], decisions["left_answered"], decisions["right_answered"]) == (3, 1, 2)
    assert decisions["agreement"]["APPROVE"] == {"APPROVE": 1, "REVIEW": 1, "BLOCK": 0}
    assert decisions["agreement"]["REVIEW"] == {"APPROVE": 1, "REVIEW": 0, "BLOCK": 0}
    outcomes = decisions["outcomes"]
    assert (outcomes["payments"], outcomes["labelled"], outcomes["frauds"]) == (3, 1, 1)  # the others are mature by now
    assert (outcomes["left"]["caught"], outcomes["right"]["caught"]) == (0, 1)


def test_compare_looks_at_a_window(capsys: Capture) -> None:
    assert said(capsys, "compare", "2", "1", "--since", "2026-03-02T00:00:02Z")["decisions"]["payments"] == 2
    assert said(capsys, "compare", "2", "1", "--until", "2026-03-02T00:00:02")["decisions"]["payments"] == 1
    assert said(capsys, "compare", "2", "1", "--since", "2026-03-03")["decisions"] is None
    assert "--since 'yesterday' is no moment" in refused(capsys, "compare", "2", "--since", "yesterday")


def test_compare_for_people_says_who_caught_what_or_that_nothing_was_decided_by_both(capsys: Capture) -> None:
    assert cli.run(["models", "compare", "2"]) == 0
    shown = capsys.readouterr().out
    assert "same verdict" in shown
    assert "33.33%" in shown
    assert "Of 3 payments of known outcome 1 are labelled, 1 as fraud" in shown
    assert cli.run(["models", "compare", "3"]) == 0
    assert "No payment was decided by both" in capsys.readouterr().out
