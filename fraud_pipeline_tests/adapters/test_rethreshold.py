"""New thresholds for a registered model: everything else stays to the bit, and the gates judge anew."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fraud_pipeline.adapters.candidate import EVALUATION_BUNDLE, Opponent
from fraud_pipeline.adapters.rethreshold import ThresholdPolicy, rethreshold
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.evaluation import EvaluationSettings
from fraud_pipeline.domain.gates import GateSettings
from fraud_pipeline.domain.learning_data import NEVER_KNOWN, US_PER_DAY, LearningData
from fraud_pipeline.domain.promotion import GateEvidence
from fraud_pipeline.domain.splits import midnight_us
from fraud_pipeline.domain.thresholds import Costs
from fraud_pipeline.errors import DatasetError
from fraud_pipeline_tests import bundles

VALIDATION, TEST = date(2026, 1, 22), date(2026, 2, 5)
PERIODS = {
    "training": ("2025-11-01", "2026-02-18"),
    "validation": ("2026-01-22", "2026-02-04"),
    "test": ("2026-02-05", "2026-02-18"),
}
NOW = datetime(2026, 3, 2, tzinfo=UTC)


class FakeBuilder:
    """The days of validation and test, with the payments that the bundles know."""

    def __init__(self, days: int = 28) -> None:
        values, is_fraud = bundles.payments(seed=8)
        self.days = [VALIDATION + timedelta(days=n) for n in range(days)]
        n = len(values)
        zeros = np.zeros(n, dtype=np.int32)
        self.data = LearningData(
            transaction_id=np.arange(n).astype(str),
            event_time=np.sort(midnight_us(VALIDATION) + np.random.default_rng(1).integers(0, 28 * US_PER_DAY, n)),
            customer=(np.arange(n) % 200).astype(np.int32),
            amount=np.full(n, 100.0),
            channel=zeros,
            country=zeros,
            category=zeros,
            features=values,
            feature_names=bundles.MODEL_INPUT.names,
            is_fraud=is_fraud,
            label_known_at=np.where(is_fraud, midnight_us(VALIDATION), NEVER_KNOWN),
            blocked=np.zeros(n, dtype=bool),
            labelled=is_fraud,
            control=np.zeros(n, dtype=bool),
            weight=np.ones(n, dtype=np.float32),
            channel_names=("pos",),
            country_names=("DE",),
            category_names=("food",),
        )

    def usable_days(self, before: date) -> list[date]:
        return [day for day in self.days if day < before]

    def rows(self, days: list[date], *, as_of: date, model_input: object) -> SimpleNamespace:
        assert as_of == date(2026, 2, 25), "labels as they were known when the model was trained"
        chosen = (self.data.event_time >= midnight_us(days[0])) & (
            self.data.event_time < midnight_us(days[-1]) + US_PER_DAY
        )
        return SimpleNamespace(data=self.data.rows(chosen))


class FakeRegistry:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.bundle: ModelBundle | None = None
        self.tags: dict[str, str] = {}
        self.evidence: GateEvidence | None = None

    def register(self, path: Path, *, tags: dict[str, str]) -> Any:
        self.bundle, self.tags = ModelBundle.load(path), tags
        return self.version(2)

    def record_gates(self, version: int, evidence: GateEvidence) -> None:
        assert version == 2
        self.evidence = evidence

    def version(self, number: int) -> Any:
        assert self.bundle is not None
        return SimpleNamespace(version=number, fingerprint=self.bundle.fingerprint)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelBundle, ModelBundle]:
    """The served model's bundle and its evaluation model's (the same trees: only the plumbing is tested)."""
    root = tmp_path_factory.mktemp("bundles")
    served = bundles.write_bundle(root, lineage=bundles.lineage(periods=PERIODS))
    evaluation = bundles.write_bundle(root, lineage=bundles.lineage(periods=PERIODS, seed=12))
    return ModelBundle.load(served, version="1"), ModelBundle.load(evaluation)


def choose(models: tuple[ModelBundle, ModelBundle], root: Path, **changes: Any) -> FakeRegistry:
    served, evaluation = models
    registry = FakeRegistry()
    policy = ThresholdPolicy(
        Costs(), EvaluationSettings(budget=0.02, replicates=50), GateSettings(max_decision_ms=1e6), 0.01
    )
    arguments = {
        "opponent": None,
        "builder": FakeBuilder(),
        "policy": policy,
        "created_at": NOW,
        "root": root,
        **changes,
    }
    rethreshold(registry, served, evaluation, **arguments)  # type: ignore[arg-type]
    return registry


def policy_of(budget: float) -> ThresholdPolicy:
    return ThresholdPolicy(Costs(), EvaluationSettings(budget=budget, replicates=50), GateSettings(), 0.01)


def test_only_the_thresholds_change(models: tuple[ModelBundle, ModelBundle], tmp_path: Path) -> None:
    served, _ = models
    made = choose(models, tmp_path).bundle
    assert made is not None
    values, _ = bundles.payments()
    np.testing.assert_array_equal(made.score(values).raw, served.score(values).raw)
    assert made.facts.calibrator == served.facts.calibrator
    assert made.thresholds != served.thresholds
    assert made.thresholds.budget == 0.02
    assert made.facts.lineage == replace(served.facts.lineage, derived_from=served.fingerprint)
    assert made.facts.created_at == NOW


def test_the_budget_is_kept_and_used(models: tuple[ModelBundle, ModelBundle], tmp_path: Path) -> None:
    tight = choose(models, tmp_path, policy=policy_of(0.005)).bundle
    wide = choose(models, tmp_path, policy=policy_of(0.03)).bundle
    assert tight is not None
    assert wide is not None
    assert tight.thresholds.review > wide.thresholds.review
    assert 0 < (tight.thresholds.alert_share or 0) <= 0.005 < (wide.thresholds.alert_share or 0) <= 0.03


def test_the_numbers_are_those_of_the_test_period(models: tuple[ModelBundle, ModelBundle], tmp_path: Path) -> None:
    made = choose(models, tmp_path).bundle
    assert made is not None
    data = FakeBuilder().data
    late = data.event_time >= midnight_us(TEST)
    assert made.facts.metrics["evaluation"]["rows"] == int(late.sum())
    assert made.facts.metrics["evaluation"]["frauds"] == int(data.is_fraud[late].sum())
    assert made.facts.metrics[EVALUATION_BUNDLE] in {ModelBundle.load(path).fingerprint for path in tmp_path.iterdir()}


def test_the_gates_judge_it_for_this_content(models: tuple[ModelBundle, ModelBundle], tmp_path: Path) -> None:
    registry = choose(models, tmp_path)
    assert registry.bundle is not None
    assert registry.evidence is not None
    assert registry.evidence.fingerprint == registry.bundle.fingerprint
    assert registry.evidence.against_version is None
    assert registry.tags == {"derived_from": models[0].fingerprint}
    results = {result.name: result for result in registry.evidence.results}
    assert results["served_scores_equal_training_scores"].value == 0
    assert results["pr_auc_above_floor"].passed


def test_thresholds_that_give_value_away_fail_against_the_champion(
    models: tuple[ModelBundle, ModelBundle], tmp_path: Path
) -> None:
    served, evaluation = models
    registry = choose(models, tmp_path, policy=policy_of(0.001), opponent=Opponent(7, served, evaluation))
    assert registry.evidence is not None
    assert registry.evidence.against_version == 7
    failed = {result.name for result in registry.evidence.failures}
    assert "net_value_not_worse_than_champion" in failed


def test_days_that_are_gone_are_named(models: tuple[ModelBundle, ModelBundle], tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="2026-01-22 to 2026-02-18"):
        choose(models, tmp_path, builder=FakeBuilder(days=0))
