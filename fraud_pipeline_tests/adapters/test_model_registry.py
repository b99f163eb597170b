from __future__ import annotations

import json
import logging
import shutil
import socket
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fraud_pipeline.adapters.model_registry import CHALLENGER, CHAMPION, MODEL_NAME, ModelRegistry
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.bundle_files import write_directory
from fraud_pipeline.domain.gates import GateResult
from fraud_pipeline.domain.promotion import GateEvidence
from fraud_pipeline.errors import BundleError, DependencyError, NotFound
from fraud_pipeline_tests.bundles import loaded_bundle, write_bundle


@pytest.fixture
def registry(registry_home: Path) -> ModelRegistry:
    return open_registry(registry_home)


def open_registry(home: Path) -> ModelRegistry:
    return ModelRegistry.open(
        f"sqlite:///{home / 'mlflow.db'}", artifact_root=home / "mlartifacts", cache_dir=home / "models"
    )


def facts(kind: str = "xgboost", pr_auc: float = 0.5) -> bytes:
    """As much of a bundle.json as the registry reads."""
    return json.dumps(
        {
            "kind": kind,
            "feature_schema": "abc",
            "lineage": {
                "as_of": "2026-05-01T00:00:00+00:00",
                "data_fingerprint": "d1",
                "periods": {"training": ["2026-01-01", "2026-04-20"]},
            },
            "metrics": {"evaluation": {"metrics": {"pr_auc": {"value": pr_auc, "low": 0.4, "high": None}}}},
        }
    ).encode()


def bundle(root: Path, *, pr_auc: float = 0.5) -> Path:
    return write_directory(root / "bundles", {"bundle.json": facts(pr_auc=pr_auc), "model_card.md": b"# Card"})


def test_a_registered_bundle_says_what_it_is(registry: ModelRegistry, tmp_path: Path):
    path = bundle(tmp_path)
    version = registry.register(path, tags={"git": "abc"})
    assert version == replace(registry.version(version.version), aliases=())
    assert (version.version, version.verdict, version.gates, version.aliases) == (1, "unjudged", None, ())
    assert version.fingerprint == json.loads((path / "manifest.json").read_text())["fingerprint"]
    assert version.training_window == "2026-01-01..2026-04-20"
    assert version.metric("pr_auc") == 0.5
    assert version.metric("unknown") is None
    assert version.tags["git"] == "abc"
    assert [v.version for v in registry.versions()] == [1]


def test_the_same_content_is_the_same_version(registry: ModelRegistry, tmp_path: Path):
    first = registry.register(bundle(tmp_path, pr_auc=0.5))
    other = registry.register(bundle(tmp_path, pr_auc=0.6))
    again = registry.register(bundle(tmp_path, pr_auc=0.5))
    assert (first.version, other.version, again.version) == (1, 2, 1)
    assert registry.find(other.fingerprint) == other
    assert registry.find("0" * 64) is None
    assert [v.version for v in registry.versions()] == [2, 1]


def test_a_bundle_goes_into_a_run_that_is_there(registry: ModelRegistry, tmp_path: Path):
    client = registry._connection.client
    run = client.create_run(registry.experiment_id)
    version = registry.register(bundle(tmp_path), run_id=run.info.run_id)
    assert version.run_id == run.info.run_id
    assert client.get_run(run.info.run_id).info.status == "RUNNING"  # ended by whoever began it
    assert {f.path for f in client.list_artifacts(run.info.run_id, "model")} == {"model/MLmodel", "model/bundle"}


def test_registering_is_quick_and_artifacts_lie_under_the_home(registry_home: Path, tmp_path: Path):
    registry = open_registry(registry_home)
    path = bundle(tmp_path)
    start = time.monotonic()
    registry.register(path)
    assert time.monotonic() - start < 10  # 0.1 s alone on a machine; a log_model that installs things takes longer
    assert list((registry_home / "mlartifacts").rglob("bundle.json"))


def test_gate_results_are_written_to_the_version(registry: ModelRegistry, tmp_path: Path):
    version = registry.register(bundle(tmp_path))
    passed = GateResult("pr_auc_above_floor", True, "error", 0.5, ">= 0.15", "0.50 is above 0.15")
    failed = GateResult("recall_above_floor", False, "error", 0.1, ">= 0.3", "0.10 is below 0.30")
    evidence = GateEvidence(version.fingerprint, None, (passed, failed))
    assert registry.record_gates(version.version, evidence) == "failed"
    judged = registry.version(version.version)
    assert (judged.verdict, judged.reason) == ("failed", "recall_above_floor: 0.10 is below 0.30")
    assert judged.gates == evidence
    assert registry.record_gates(version.version, replace(evidence, results=(passed,))) == "passed"
    assert registry.version(version.version).reason == ""


def test_evidence_that_cannot_be_read_is_no_evidence(registry: ModelRegistry, tmp_path: Path):
    version = registry.register(bundle(tmp_path))
    registry.set_tag(version.version, "gates", "{broken")
    assert registry.version(version.version).gates is None


def test_aliases(registry: ModelRegistry, tmp_path: Path):
    assert registry.champion() is None
    registry.register(bundle(tmp_path, pr_auc=0.5))
    registry.register(bundle(tmp_path, pr_auc=0.6))
    registry.set_alias(CHAMPION, 1)
    registry.set_alias(CHALLENGER, 2)
    champion, challenger = registry.champion(), registry.challenger()
    assert champion is not None
    assert challenger is not None
    assert (champion.version, challenger.version) == (1, 2)
    assert [v.aliases for v in registry.versions()] == [("challenger",), ("champion",)]
    registry.set_alias(CHAMPION, 2)
    assert registry.version(2).aliases == ("challenger", "champion")
    registry.delete_alias(CHALLENGER)
    registry.delete_alias(CHALLENGER)
    assert registry.challenger() is None


def test_an_unknown_version_is_not_found(registry: ModelRegistry, tmp_path: Path):
    with pytest.raises(NotFound, match="no version 7 of fraud-detector"):
        registry.version(7)
    registry.register(bundle(tmp_path))
    with pytest.raises(NotFound, match="no version 7"):
        registry.fetch(7)


def test_a_fetched_bundle_is_whole_cached_and_healed(registry: ModelRegistry, registry_home: Path, tmp_path: Path):
    source = bundle(tmp_path)
    version = registry.register(source)
    fetched = registry.fetch(1)
    assert fetched == registry_home / "models" / f"1-{version.fingerprint[:16]}"
    assert {f.name: f.read_bytes() for f in fetched.iterdir()} == {f.name: f.read_bytes() for f in source.iterdir()}
    before = (fetched / "bundle.json").stat().st_ino
    assert (registry.fetch(1) / "bundle.json").stat().st_ino == before
    (fetched / "bundle.json").write_bytes(b"{}")
    assert (registry.fetch(1) / "bundle.json").read_bytes() == facts()
    assert [p.name for p in (registry_home / "models").iterdir()] == [fetched.name]


def test_artifacts_that_are_gone_or_altered_are_named(registry: ModelRegistry, registry_home: Path, tmp_path: Path):
    registry.register(bundle(tmp_path))
    (stored,) = (registry_home / "mlartifacts").rglob("bundle.json")
    stored.write_bytes(b"{}")
    with pytest.raises(BundleError, match=r"version 1 at .* are not those that were registered"):
        registry.fetch(1)
    shutil.rmtree(registry_home / "mlartifacts")
    with pytest.raises(BundleError, match=r"The files of version 1 at .* are gone"):
        registry.fetch(1)
    assert not list((registry_home / "models").iterdir())


def test_a_damaged_bundle_is_not_registered(registry: ModelRegistry, tmp_path: Path):
    path = bundle(tmp_path)
    (path / "model_card.md").write_bytes(b"# Cord")
    with pytest.raises(BundleError, match=r"model_card\.md was altered"):
        registry.register(path)
    assert registry.versions() == []


@pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)  # MLflow's own
def test_mlflow_itself_loads_and_scores_the_champion(
    registry: ModelRegistry, registry_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import mlflow
    import pandas as pd

    registry.register(write_bundle(tmp_path / "bundles"))
    registry.set_alias(CHAMPION, 1)
    uri = f"sqlite:///{registry_home / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", uri)
    model = mlflow.pyfunc.load_model(f"models:/{MODEL_NAME}@{CHAMPION}")
    ours = ModelBundle.load(registry.fetch(1))
    values = np.random.default_rng(0).normal(size=(5, len(ours.input_names))).astype(np.float32)
    scored = model.predict(pd.DataFrame(values, columns=list(ours.input_names)))
    assert np.array_equal(scored["raw_score"].to_numpy(), ours.score(values).raw)
    assert loaded_bundle().input_names == ours.input_names


def test_a_server_that_is_away_is_named_at_once(tmp_path: Path):
    with socket.socket() as reserved:  # bound and not listening: nobody answers here
        reserved.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(DependencyError, match=address) as caught:
            ModelRegistry.open(address, artifact_root=tmp_path, cache_dir=tmp_path)
    assert "mlflow server" in caught.value.remedy
    assert time.monotonic() - start < 20  # MLflow's own retries would take minutes


def test_a_damaged_database_is_named_and_left_alone(tmp_path: Path):
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"once a database " * 500)
    with pytest.raises(DependencyError, match=r"mlflow\.db does not answer: file is not a database"):
        open_registry(tmp_path)
    assert path.read_bytes() == b"once a database " * 500


def test_it_says_nothing(registry_home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd):
    with caplog.at_level(logging.INFO):
        registry = open_registry(registry_home)
        registry.register(bundle(tmp_path))
        registry.fetch(1)
    assert [r.getMessage() for r in caplog.records if r.name.startswith(("mlflow", "alembic"))] == []
    assert capfd.readouterr() == ("", "")
