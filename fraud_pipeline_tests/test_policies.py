"""Settings and the domain's own values say the same where nothing is set."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fraud_pipeline import policies
from fraud_pipeline.domain.drift_verdict import DriftLimits
from fraud_pipeline.domain.evaluation import EvaluationSettings
from fraud_pipeline.domain.gates import GateSettings
from fraud_pipeline.domain.simulation_config import WorldConfig
from fraud_pipeline.domain.thresholds import Costs
from fraud_pipeline.settings import load_settings


def test_what_is_not_set_is_what_the_domain_takes_by_itself() -> None:
    settings = load_settings()
    assert policies.costs(settings) == Costs()
    assert policies.gate_settings(settings) == GateSettings()
    assert policies.drift_limits(settings) == DriftLimits()
    assert policies.evaluation_settings(settings) == replace(EvaluationSettings(), seed=settings.seed)


def test_a_simulation_by_settings_is_the_domain_s_world() -> None:
    settings = load_settings()
    for name in ("customers", "merchants", "days", "rate", "fraud_rate", "seed", "currency"):
        assert getattr(settings, name) == WorldConfig.__dataclass_fields__[name].default, name


def test_what_is_set_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAUD_REVIEW_COST", "7.5")
    monkeypatch.setenv("FRAUD_MAX_VALUE_LOSS", "0.1")
    monkeypatch.setenv("FRAUD_DRIFT_PREDICTION", "0.3")
    monkeypatch.setenv("FRAUD_ALERT_BUDGET", "0.01")
    settings = load_settings()
    assert policies.costs(settings).review_cost == 7.5
    assert policies.gate_settings(settings).value_loss == 0.1
    assert policies.drift_limits(settings).prediction == 0.3
    assert policies.evaluation_settings(settings).budget == 0.01
