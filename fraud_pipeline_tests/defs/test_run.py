"""`fraud run` on a small world: from nothing to a champion, again, with a candidate made bad on purpose, and after a kill."""

import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from fraud_pipeline.adapters.drift_results import DriftResults
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.promotions import current_champion
from fraud_pipeline.dagster_home import prepare_dagster_home
from fraud_pipeline.defs.resources import resources_for
from fraud_pipeline.defs.run import Session, open_registry
from fraud_pipeline.defs.sensors import stopped_by_gates
from fraud_pipeline.domain.gates import REQUIRED_GATES
from fraud_pipeline.errors import FraudError, InputError, TrainingDataError
from fraud_pipeline.pipeline_run import RunReport, export_training_set, run_pipeline
from fraud_pipeline.settings import Settings

pytestmark = pytest.mark.slow

INLINE = 1_000
"""The UI shows Markdown of fewer characters in place, and a longer one on a click."""
STAGES = {"simulating payments", "transactions", "features", "xgboost model", "candidate bundle", "champion bundle"}


def small(home: Path, **changes: Any) -> Settings:
    """A world that trains in seconds, with gates that its few frauds can pass."""
    limits: dict[str, Any] = {
        "min_period_frauds": 30,
        "min_recall": 0.1,
        "max_calibration_ratio": 9,
        "min_calibration_ratio": 0.1,
    }
    size: dict[str, Any] = {"customers": 300, "merchants": 100, "days": 70, "rate": 2.0, "max_value_loss": 0.9}
    return Settings(home=home, **{**limits, **size, **changes})


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return small(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def first(settings: Settings) -> tuple[RunReport, set[str]]:
    seen: set[str] = set()
    report = run_pipeline(settings, progress=lambda stage, done, total: seen.add(stage))
    return report, seen


def champion_version(settings: Settings) -> int | None:
    with Ledger.open(settings.ledger_url) as ledger:
        promotion = current_champion(ledger)
    return None if promotion is None else promotion.version


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_from_nothing_to_a_promoted_champion(settings: Settings, first: tuple[RunReport, set[str]]) -> None:
    report, seen = first
    assert report.promoted, report.reason
    assert not report.unchanged
    assert champion_version(settings) == report.champion_version == report.candidate_version == 1
    assert {gate.name for gate in report.gates} >= set(REQUIRED_GATES)
    assert all(gate.passed for gate in report.gates if gate.severity == "error")
    assert report.rows["transactions"] == report.rows["features"] > 30_000
    assert seen >= STAGES
    assert report.seconds["xgboost_model"] > 0
    assert "Version 1 is the new champion" in report.sentence
    version = open_registry(settings).version(1)
    assert version.aliases == ("candidate", "champion")
    assert version.verdict == "passed"


def test_its_pages_have_plots_tables_and_links(settings: Settings, first: tuple[RunReport, set[str]]) -> None:
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("candidate_bundle"))
        drift = instance.get_latest_materialization_event(dg.AssetKey("drift_report"))
    assert event is not None
    assert event.asset_materialization is not None
    assert drift is not None
    assert drift.asset_materialization is not None
    page: dict[str, Any] = {name: value.value for name, value in event.asset_materialization.metadata.items()}
    assert page["plots"].startswith("![precision_recall](data:image/png;base64,")
    assert "| pr_auc_above_floor | passed |" in page["gates"]
    assert len(page["gates"]) < INLINE
    assert page["model card"].startswith("# Fraud detector")
    html = Path(str(drift.asset_materialization.metadata["Evidently page"].value))
    assert "<html" in html.read_text()[:500].lower()
    with Ledger.open(settings.ledger_url) as ledger:
        results = DriftResults(settings.reports_dir, ledger)
        told = results.status()
        assert results.report_path() == html
    verdict: Any = drift.asset_materialization.metadata["verdict"].value
    assert {name: told[name] for name in ("status", "reasons", "feature_details")}.items() <= verdict.items()
    assert told["champion"] == 1


def test_again_is_quick_and_changes_nothing(settings: Settings, first: tuple[RunReport, set[str]]) -> None:
    before = files(settings.data_dir) | files(settings.bundles_dir)
    report = run_pipeline(settings)
    assert report.unchanged
    assert report.promoted
    assert report.champion_version == first[0].champion_version
    assert "nothing to do" in report.sentence
    assert report.runs == {}
    assert files(settings.data_dir) | files(settings.bundles_dir) == before


def test_a_bad_candidate_is_stopped_and_cannot_go_round_the_gates(
    settings: Settings, first: tuple[RunReport, set[str]]
) -> None:
    strict = settings.model_copy(update={"min_recall": 0.3})
    report = run_pipeline(strict, shuffle_labels=True)
    assert not report.promoted
    assert report.candidate_version == 2
    assert report.champion_version == champion_version(settings) == 1
    version = open_registry(settings).version(2)
    assert version.verdict == "failed"
    assert "pr_auc_above_floor" in version.reason or "recall_at_budget_above_floor" in version.reason
    assert "stays champion" in report.reason

    session = Session(strict, lambda stage, done, total: None, resources_for(strict))
    with pytest.raises(FraudError, match=r"Version 2 cannot be promoted: gate .* failed"):
        session.execute("retrain", only=["champion_bundle"])
    assert champion_version(settings) == 1
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        failed = [name for name in REQUIRED_GATES if not _passed(instance, name)]
        ended_badly = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
        by_gates = [stopped_by_gates(instance, run.run_id) for run in ended_badly]
    assert failed
    assert sorted(by_gates) == [False, True]  # the promotion that was tried alone, and the training
    again = run_pipeline(strict, shuffle_labels=True)
    assert again.unchanged
    assert "failed its gates" in again.reason


def _passed(instance: dg.DagsterInstance, gate: str) -> bool:
    record = instance.get_latest_asset_check_evaluation_record(dg.AssetCheckKey(dg.AssetKey("candidate_bundle"), gate))
    assert record is not None
    assert record.event is not None
    assert record.event.dagster_event is not None
    return bool(record.event.dagster_event.asset_check_evaluation_data.passed)


def test_a_run_killed_before_the_promotion_is_finished_without_training_again(
    settings: Settings, first: tuple[RunReport, set[str]]
) -> None:
    as_of = first[0].as_of - timedelta(days=1)
    session = Session(settings, lambda stage, done, total: None, resources_for(settings))
    config = {"ops": {"training_set": {"config": {"as_of": as_of.isoformat()}}}}
    up_to_the_gates = ["training_set", "xgboost_model", "isolation_forest_model", "candidate_bundle"]
    assert session.execute("retrain", config=config, only=up_to_the_gates)
    waiting = max(version.version for version in open_registry(settings).versions())
    assert champion_version(settings) == 1
    report = run_pipeline(settings, as_of=as_of)
    assert report.promoted, report.reason
    assert report.champion_version == waiting
    assert "xgboost_model" not in report.seconds


def test_a_training_set_can_be_exported_as_of_a_moment(
    settings: Settings, first: tuple[RunReport, set[str]], tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    as_of = first[0].as_of - timedelta(days=20)
    summary = export_training_set(settings, as_of=as_of, path=tmp_path / "rows.parquet")
    table = pq.read_table(tmp_path / "rows.parquet")
    assert table.num_rows == summary["rows"]
    assert max(table["event_time"].to_pylist()).date() < as_of
    assert max(moment for moment in table["label_known_at"].to_pylist() if moment).date() < as_of
    assert "customer_count_24h" in table.schema.names


def test_too_short_a_history_says_what_is_missing(settings: Settings, first: tuple[RunReport, set[str]]) -> None:
    with pytest.raises(TrainingDataError, match=r"^\d+ more days? of history"):
        run_pipeline(settings, as_of=first[0].as_of - timedelta(days=55))


def test_days_that_are_not_in_the_world_are_refused(settings: Settings, first: tuple[RunReport, set[str]]) -> None:
    with pytest.raises(InputError, match="There is no day"):
        run_pipeline(settings, start=date(2030, 1, 2), end=date(2030, 1, 1))


KILLED_RUN = """
import sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
from fraud_pipeline.pipeline_run import run_pipeline
from fraud_pipeline.settings import Settings
run_pipeline(Settings(home=Path(sys.argv[1]), customers=100, merchants=50, days=30, rate=2.0), retrain=False)
"""


def test_a_killed_run_leaves_whole_files_and_a_rerun_mends_it(tmp_path: Path) -> None:
    victim = subprocess.Popen([sys.executable, "-c", KILLED_RUN, str(tmp_path)], stderr=subprocess.DEVNULL)
    features = tmp_path / "data" / "features"
    deadline = time.monotonic() + 120
    while len(list(features.glob("day=*/history.json"))) < 3:
        assert time.monotonic() < deadline
        with suppress(subprocess.TimeoutExpired):
            victim.wait(timeout=0.05)
            pytest.fail("it ended before it could be killed")
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    settings = small(tmp_path, days=30, customers=100, merchants=50)
    store = resources_for(settings)["store"]
    for day in store.days("features"):
        store.verify("features", day)
    report = run_pipeline(settings, retrain=False)
    assert report.rows["features"] == report.rows["transactions"] > 0
    assert len(store.days("features")) == 30
    assert resources_for(settings)["feature_store"].stale_days(store.days("transactions")) == []
    assert run_pipeline(settings, retrain=False).unchanged


def test_the_embedded_home_is_prepared_by_a_run(settings: Settings, first: tuple[RunReport, set[str]]) -> None:
    assert prepare_dagster_home(settings) == settings.dagster_home
    assert (settings.dagster_home / "dagster.yaml").exists()
