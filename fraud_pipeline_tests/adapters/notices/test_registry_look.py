"""What a look at a real registry finds, and that nobody waits for it."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from fraud_pipeline.adapters.model_registry import ModelRegistry
from fraud_pipeline.adapters.notices.registry_look import Findings, RegistryLook, look_at
from fraud_pipeline.domain.bundle_files import write_directory
from fraud_pipeline.domain.gates import GateResult
from fraud_pipeline.domain.promotion import GateEvidence
from fraud_pipeline.errors import DependencyError

FACTS = b'{"kind": "xgboost", "feature_schema": "s", "lineage": {"as_of": "x", "data_fingerprint": "d", "periods": {}}, "metrics": {}}'


def registry_of(home: Path, cache: Path) -> ModelRegistry:
    return ModelRegistry.open(f"sqlite:///{home / 'mlflow.db'}", artifact_root=home / "mlartifacts", cache_dir=cache)


def register(registry: ModelRegistry, folder: Path, *, passes: bool) -> int:
    bundle = write_directory(folder, {"bundle.json": FACTS, "model_card.md": str(passes).encode()})
    version = registry.register(bundle)
    result = GateResult("pr_auc_above_floor", passes, "error", 0.1, ">= 0.15", "0.1 < 0.15")
    evidence = GateEvidence.of([result], fingerprint=version.fingerprint, against_version=None)
    registry.record_gates(version.version, evidence)
    return version.version


def test_stopped_candidates_and_a_champion_whose_files_are_gone(registry_home: Path, tmp_path: Path) -> None:
    registry = registry_of(registry_home, tmp_path / "cache")
    champion = register(registry, tmp_path / "a", passes=True)
    stopped = register(registry, tmp_path / "b", passes=False)

    def look() -> Findings:
        return look_at(lambda cache: registry_of(registry_home, cache), champion)

    found = look()
    assert (found.champion, found.champion_problem, found.away) == (champion, None, None)
    (candidate,) = found.stopped
    assert (candidate.version, candidate.failed_gates) == (stopped, ("pr_auc_above_floor",))
    assert "0.1 < 0.15" in candidate.reason
    registry.fetch(champion)
    shutil.rmtree(registry_home / "mlartifacts")
    registry.fetch(champion)
    problem = look().champion_problem
    assert problem is not None, "although this machine has it in its cache"
    assert f"version {champion}" in problem
    assert look_at(lambda cache: registry_of(registry_home, cache), 99).champion_problem is not None


def test_a_registry_that_is_away_is_a_finding(tmp_path: Path) -> None:
    def away(_cache: Path) -> ModelRegistry:
        raise DependencyError("The MLflow server at http://x does not answer.")

    assert look_at(away, 1) == Findings(away="The MLflow server at http://x does not answer.")
    assert look_at(lambda _: None, 1) == Findings()


def test_nobody_waits_and_one_look_goes_on_at_a_time() -> None:
    begun, go_on, looks = threading.Event(), threading.Event(), []

    def slow(_cache: Path) -> None:
        looks.append(1)
        begun.set()
        assert go_on.wait(30)

    look = RegistryLook(slow, every_s=3_600)
    assert look.newest(1, wait_s=0.0) is None
    assert begun.wait(30)
    assert look.newest(1, wait_s=0.0) is None
    go_on.set()
    assert look.newest(1, wait_s=30) == Findings()
    assert look.newest(1, wait_s=30) == Findings(), "not again before its time"
    assert len(looks) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_look_that_breaks_is_followed_by_another() -> None:
    failures = [RuntimeError("a bug"), None]

    def breaks(_cache: Path) -> None:
        failure = failures.pop(0)
        if failure is not None:
            raise failure

    look = RegistryLook(breaks, every_s=0)
    assert look.newest(1, wait_s=30) is None
    assert look.newest(1, wait_s=30) == Findings()
