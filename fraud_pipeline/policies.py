"""The settings as the domain's own values: costs, limits, budgets. One translation for assets and commands alike."""

from __future__ import annotations

from fraud_pipeline.domain.drift_verdict import DriftLimits
from fraud_pipeline.domain.evaluation import EvaluationSettings
from fraud_pipeline.domain.gates import GateSettings
from fraud_pipeline.domain.promotion_watch import WatchLimits
from fraud_pipeline.domain.thresholds import Costs
from fraud_pipeline.settings import Settings


def costs(settings: Settings) -> Costs:
    """What a review, a wrong block and a missed fraud cost."""
    return Costs(settings.review_cost, settings.false_block_cost, settings.fraud_loss_share)


def evaluation_settings(settings: Settings) -> EvaluationSettings:
    """The alert budget that a model is evaluated at, and the bootstrap's seed."""
    return EvaluationSettings(budget=settings.alert_budget, seed=settings.seed)


def gate_settings(settings: Settings) -> GateSettings:
    """The limits between a candidate and its promotion."""
    return GateSettings(
        min_pr_auc=settings.min_pr_auc,
        min_recall=settings.min_recall,
        min_calibration_ratio=settings.min_calibration_ratio,
        max_calibration_ratio=settings.max_calibration_ratio,
        value_loss=settings.max_value_loss,
        max_decision_ms=settings.max_decision_ms,
    )


def drift_limits(settings: Settings) -> DriftLimits:
    """When the world has moved too far from what the champion was trained on."""
    return DriftLimits(
        share=settings.drift_share,
        wasserstein=settings.drift_wasserstein,
        jensen_shannon=settings.drift_jensen_shannon,
        prediction=settings.drift_prediction,
        missed_ratio=settings.drift_missed_ratio,
        fraud_rate_ratio=settings.drift_fraud_rate_ratio,
    )


def watch_limits(settings: Settings) -> WatchLimits:
    """When a promoted model is taken back."""
    return WatchLimits(days=settings.watch_days)
