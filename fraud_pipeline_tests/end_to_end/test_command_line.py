"""The whole way by the command line on one small world: simulate, run, look, explain, choose thresholds anew, go back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from fraud_pipeline import cli

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SETTINGS = {
    "FRAUD_CUSTOMERS": "300",
    "FRAUD_MERCHANTS": "100",
    "FRAUD_DAYS": "75",
    "FRAUD_RATE": "2",
    "FRAUD_FRAUD_RATE": "0.04",
    "FRAUD_ALERT_BUDGET": "0.05",
    "FRAUD_MIN_PERIOD_FRAUDS": "40",
    "FRAUD_MAX_DECISION_MS": "1000",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which `fraud run` has made a champion."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**SETTINGS, "FRAUD_HOME": str(home)}.items():
            patch.setenv(name, value)
        assert cli.run(["run", "--json"]) == 0
    return home


@pytest.fixture
def fraud(world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command in that home; its exit code and its JSON (its error line where it printed none)."""
    for name, value in {**SETTINGS, "FRAUD_HOME": str(world)}.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = cli.run([*arguments, "--json"])
        said = capsys.readouterr()
        return code, json.loads(said.out) if said.out else said.err

    return run


def test_the_run_ends_in_a_champion(fraud: Any) -> None:
    code, status = fraud("status")
    assert code == 0
    assert status["champion"]["version"] == 1
    assert status["champion"]["kind"] == "promotion"
    assert {name: dataset["days"] for name, dataset in status["datasets"].items()} == {
        "transactions": 75,
        "labels": 75,
        "features": 75,
    }
    assert (
        status["datasets"]["transactions"]["rows"] == status["world"]["rows"] == status["datasets"]["features"]["rows"]
    )


def test_running_again_changes_nothing(fraud: Any, world: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (world / "data").rglob("*.parquet")}
    code, outcome = fraud("run")
    assert code == 0
    assert outcome["unchanged"] is True
    assert outcome["champion_version"] == 1
    assert {path: path.stat().st_mtime_ns for path in (world / "data").rglob("*.parquet")} == before


def test_the_version_shows_its_gates_and_metrics(fraud: Any) -> None:
    code, listed = fraud("models", "list")
    assert code == 0
    assert listed["versions"][-1]["version"] == 1
    code, shown = fraud("models", "show", "1")
    assert code == 0
    assert "champion" in shown["aliases"]
    assert all(gate["passed"] for gate in shown["gates"])
    metric = shown["metrics"]["pr_auc"]
    assert 0.15 <= metric["value"] <= 1
    assert metric["low"] <= metric["value"] <= metric["high"]


def test_the_model_card_is_printed(fraud: Any) -> None:
    code, said = fraud("models", "show", "champion", "--card")
    assert code == 0
    assert said["model_card"].startswith("#")


def test_a_fraud_is_explained(fraud: Any, world: Path) -> None:
    truth = pq.read_table(sorted((world / "source" / "truth").rglob("*.parquet"))[-10])
    transaction_id = truth["transaction_id"][0].as_py()
    code, said = fraud("explain", transaction_id)
    assert code == 0
    assert said["decision"]["transaction_id"] == transaction_id
    assert said["decision"]["model_version"] == "1"
    assert said["served"] is False
    explanation = said["explanation"]
    total = explanation["bias"] + sum(reason["contribution"] for reason in explanation["reasons"])
    assert total == pytest.approx(explanation["raw"], abs=1e-4)


def test_an_unknown_payment_is_not_explained(fraud: Any) -> None:
    code, said = fraud("explain", "nobody-paid-this")
    assert code == 2
    assert "no payment nobody-paid-this" in said


def test_drift_is_judged_by_explicit_limits(fraud: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, verdict = fraud("drift")
    assert verdict["status"] in {"stable", "watch", "drift"}
    assert verdict["champion"] == "1"
    assert verdict["limits"]["share"] == 0.1
    monkeypatch.setenv("FRAUD_DRIFT_SHARE", "0.5")
    assert fraud("drift")[1]["limits"]["share"] == 0.5


def test_the_training_set_is_what_was_known_then(fraud: Any, world: Path, tmp_path: Path) -> None:
    _, status = fraud("status")
    as_of = status["datasets"]["features"]["last"]
    code, summary = fraud("export", "training-set", "--as-of", as_of, "--out", str(tmp_path / "set.parquet"))
    assert code == 0
    table = pq.read_table(tmp_path / "set.parquet")
    assert table.num_rows == summary["rows"] < status["world"]["rows"]


def test_batch_and_online_agree_on_it_and_a_harm_is_found(fraud: Any, world: Path) -> None:
    code, report = fraud("parity", "--rows", "3000", "--data", str(world))
    assert (code, report["rows"], report["differing_values"]) == (0, 3000, 0)
    assert report["compared_values"] == report["rows"] * report["features"]
    code, report = fraud("parity", "--rows", "3000", "--data", str(world), "--mutate", "drop_event")
    assert code == 1
    assert report["first_difference"]["feature"]


def test_thresholds_can_be_chosen_anew_promoted_and_rolled_back(fraud: Any) -> None:
    code, made = fraud("models", "rethreshold", "1", "--alert-budget", "0.049")
    assert (code, made["verdict"]) == (0, "passed"), made
    version = str(made["version"])
    code, _ = fraud("models", "compare", version, "champion")
    assert code == 0
    code, said = fraud("models", "promote", version, "--reason", "a little fewer reviews")
    assert code == 0
    assert (said["promotion"]["version"], said["promotion"]["previous_version"]) == (made["version"], 1)
    code, said = fraud("models", "rollback")
    assert code == 0
    assert (said["promotion"]["version"], said["promotion"]["kind"]) == (1, "rollback")


def test_thresholds_that_give_value_away_are_registered_and_cannot_be_promoted(fraud: Any) -> None:
    code, made = fraud("models", "rethreshold", "1", "--alert-budget", "0.001")
    assert (code, made["verdict"]) == (1, "failed")
    assert made["reason"]
    code, said = fraud("models", "promote", str(made["version"]))
    assert code == 2
    assert "cannot be promoted" in said


def test_a_candidate_made_bad_on_purpose_is_stopped(fraud: Any) -> None:
    code, outcome = fraud("run", "--shuffle-labels")
    assert code == 1
    assert outcome["promoted"] is False
    assert any(not gate["passed"] for gate in outcome["gates"])
    assert fraud("status")[1]["champion"]["version"] == 1
