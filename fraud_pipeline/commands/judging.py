"""What `fraud drift` and `fraud models rethreshold` put together from the settings and the adapters."""

from __future__ import annotations

from datetime import UTC, date, datetime

from fraud_pipeline import policies
from fraud_pipeline.adapters.candidate import EVALUATION_BUNDLE
from fraud_pipeline.adapters.champion import evaluation_bundle, load_champion, load_opponent
from fraud_pipeline.adapters.champion_watch import current_week, judge_drift, mature_days_since, recent_days
from fraud_pipeline.adapters.registered_version import RegisteredVersion
from fraud_pipeline.adapters.rethreshold import ThresholdPolicy
from fraud_pipeline.adapters.rethreshold import rethreshold as choose_anew
from fraud_pipeline.commands.opening import open_builder, open_ledger, open_registry
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.drift_verdict import DriftVerdict
from fraud_pipeline.errors import NotFound
from fraud_pipeline.settings import Settings


def drift_now(settings: Settings, *, as_of: date | None) -> tuple[DriftVerdict, str, date]:
    """The verdict on the week before `as_of` (default: the day after the newest), the champion's version, and the day.

    Raises NotFound without a champion, DatasetError for a week without days.
    """
    builder, registry = open_builder(settings), open_registry(settings)
    with open_ledger(settings) as ledger:
        champion = load_champion(ledger, registry)
        day = as_of or builder.default_as_of()
        current = current_week(builder, champion, as_of=day, ledger=ledger)
        settled = mature_days_since(champion, as_of=day, maturity_days=settings.label_maturity_days)
        mature = recent_days(builder, champion, settled, as_of=day, ledger=ledger, control_share=settings.control_share)
    verdict, _ = judge_drift(champion, current, mature=mature, limits=policies.drift_limits(settings))
    return verdict, champion.version, day


def rethreshold(settings: Settings, version: RegisteredVersion) -> RegisteredVersion:
    """The version with thresholds by these settings, as a new version that the gates have judged."""
    registry = open_registry(settings)
    served = ModelBundle.load(registry.fetch(version.version), version=str(version.version))
    tracking_uri, bundles = settings.mlflow_tracking_uri, settings.bundles_dir
    fingerprint = str(served.facts.metrics.get(EVALUATION_BUNDLE, ""))
    found = evaluation_bundle(fingerprint, version.run_id, tracking_uri=tracking_uri, bundles=bundles)
    if found is None:
        raise NotFound(
            f"The evaluation model of version {version.version} is neither here nor among its run's artifacts.",
            remedy="Train a new candidate: `fraud run --from-scratch`.",
        )
    policy = ThresholdPolicy(
        costs=policies.costs(settings),
        evaluation=policies.evaluation_settings(settings),
        limits=policies.gate_settings(settings),
        control_share=settings.control_share,
    )
    with open_ledger(settings) as ledger:
        opponent = load_opponent(ledger, registry, tracking_uri=tracking_uri, bundles=bundles)
        return choose_anew(
            registry,
            served,
            ModelBundle.load(found),
            opponent=opponent,
            builder=open_builder(settings),
            policy=policy,
            created_at=datetime.now(UTC),
            root=settings.bundles_dir,
        )
