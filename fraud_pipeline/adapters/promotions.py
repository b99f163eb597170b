"""Promoting and rolling back: a row in the ledger first, MLflow's alias as its projection after.

A process that dies in between leaves a champion in the ledger and an old alias in MLflow; `repair_alias`, run at every
start, mends that. Whoever serves reads `current_champion`, which is the ledger's.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.model_registry import CHALLENGER, CHAMPION, ModelRegistry
from fraud_pipeline.adapters.registered_version import RegisteredVersion
from fraud_pipeline.domain.promotion import Promotion, PromotionKind, refusals, rollback_target, rolled_back_versions
from fraud_pipeline.errors import PromotionRefused


def current_champion(ledger: Ledger) -> Promotion | None:
    """The promotion that made the present champion; None before the first."""
    return ledger.current_promotion()


def promote(
    ledger: Ledger,
    registry: ModelRegistry,
    version: int,
    *,
    who: str,
    required_gates: Collection[str],
    now: datetime | None = None,
    reason: str = "",
    force: bool = False,
) -> Promotion:
    """Make a version champion.

    Reads the version's gate results again and refuses (PromotionRefused) where a required one is missing, one failed,
    or they are of other content or against another champion than the present one. The present champion again changes
    nothing but a wrong alias. `force` is for a person: it passes over the gates, wants a `reason`, and is recorded as
    what it is; other content than was registered it does not pass over.
    """
    candidate = registry.version(version)
    history = ledger.promotions()
    before = history[-1] if history else None
    if before is not None and (before.version, before.fingerprint) == (version, candidate.fingerprint):
        repair_alias(ledger, registry)
        return before
    against = refusals(
        fingerprint=candidate.fingerprint,
        evidence=candidate.gates,
        required=required_gates,
        champion_version=None if before is None else before.version,
        was_rolled_back=version in rolled_back_versions(history),
    )
    if force and not reason:
        raise PromotionRefused(f"Version {version} is not forced without a reason.", remedy="Say why: --reason TEXT.")
    if against and not force:
        raise PromotionRefused(
            f"Version {version} cannot be promoted: {'; '.join(against)}.",
            remedy=f"`fraud models show {version}` has every result; train and judge a new candidate.",
        )
    kind: PromotionKind = "forced" if against else "promotion"
    evidence = {**_evidence(candidate), "passed_over": list(against)}
    return _append(ledger, registry, candidate, before, kind=kind, who=who, reason=reason, evidence=evidence, now=now)


def rollback(
    ledger: Ledger,
    registry: ModelRegistry,
    *,
    who: str,
    reason: str,
    to_version: int | None = None,
    now: datetime | None = None,
) -> Promotion:
    """Make the previous champion (or `to_version`, which must have been one) champion again.

    It passed its gates when it was promoted, so they are not asked again. PromotionRefused where there is none to go
    back to.
    """
    history = ledger.promotions()
    before = history[-1] if history else None
    former = (p for p in reversed(history[:-1]) if p.version == to_version)
    target = rollback_target(history) if to_version is None else next(former, None)
    if before is None or target is None or target.version == before.version:
        sought = "earlier champion" if to_version is None else f"earlier champion of version {to_version}"
        raise PromotionRefused(
            f"There is no {sought} to go back to.", remedy="`fraud models list` shows which versions were champion."
        )
    registered = registry.version(target.version)
    if registered.fingerprint != target.fingerprint:
        raise PromotionRefused(
            f"Version {target.version} has other content than when it was champion.", remedy="Roll back to another one."
        )
    evidence = {**_evidence(registered), "of_promotion": target.promotion_id, "rolled_back_version": before.version}
    return _append(
        ledger, registry, registered, before, kind="rollback", who=who, reason=reason, evidence=evidence, now=now
    )


def repair_alias(ledger: Ledger, registry: ModelRegistry) -> bool:
    """Set MLflow's champion to the ledger's; True where it was wrong."""
    champion = ledger.current_promotion()
    aliased = registry.champion()
    if (None if champion is None else champion.version) == (None if aliased is None else aliased.version):
        return False
    if champion is None:
        registry.delete_alias(CHAMPION)  # set by hand: nothing was promoted
    else:
        registry.set_alias(CHAMPION, champion.version)
    return True


def _append(
    ledger: Ledger,
    registry: ModelRegistry,
    candidate: RegisteredVersion,
    before: Promotion | None,
    *,
    kind: PromotionKind,
    who: str,
    reason: str,
    evidence: dict[str, Any],
    now: datetime | None,
) -> Promotion:
    previous_id = 0 if before is None else before.promotion_id
    promotion = Promotion(
        promotion_id=previous_id + 1,
        previous_id=previous_id,
        kind=kind,
        version=candidate.version,
        fingerprint=candidate.fingerprint,
        previous_version=None if before is None else before.version,
        who=who,
        reason=reason,
        promoted_at=now or datetime.now(UTC),
        evidence=evidence,
    )
    ledger.append_promotion(promotion)
    # Another promotion may follow at once: what the ledger says by now is what the alias must say.
    repair_alias(ledger, registry)
    challenger = registry.challenger()
    if challenger is not None and challenger.version == candidate.version:
        registry.delete_alias(CHALLENGER)
    return promotion


def _evidence(version: RegisteredVersion) -> dict[str, Any]:
    """What the promotion rests on, kept in the ledger even if MLflow is lost."""
    return {
        "gates": None if version.gates is None else json.loads(version.gates.to_json()),
        "metrics": dict(version.metrics),
        "training_window": version.training_window,
        "run_id": version.run_id,
    }
