"""Promoting, rolling back, and who challenges: a row in the ledger first, MLflow's alias as its projection after.

A process that dies in between leaves a champion in the ledger and an old alias in MLflow; `repair_alias`, run at every
start, mends that. Whoever serves reads `current_champion` and `current_challenger`, which are the ledger's.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.model_registry import CHALLENGER, CHAMPION, ModelRegistry
from fraud_pipeline.adapters.registered_version import RegisteredVersion
from fraud_pipeline.domain.promotion import (
    Challenger,
    Promotion,
    PromotionKind,
    challenge_refusals,
    refusals,
    rollback_target,
    rolled_back_versions,
)
from fraud_pipeline.errors import DependencyError, PromotionRefused

log = logging.getLogger(__name__)


def current_champion(ledger: Ledger) -> Promotion | None:
    """The promotion that made the present champion; None before the first."""
    return ledger.current_promotion()


def current_challenger(ledger: Ledger) -> Challenger | None:
    """The appointment that holds; None where there is no challenger."""
    newest = ledger.current_challenger()
    return None if newest is None or newest.version is None else newest


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
    evidence: Mapping[str, Any] | None = None,
) -> Promotion:
    """Make a version champion. `evidence` is kept beside the gates'.

    Reads the version's gate results again and refuses (PromotionRefused) where a required one is missing, one failed,
    or they are of other content or against another champion than the present one. The present champion again changes
    nothing but a wrong alias. `force` is for a person: it passes over the gates, wants a `reason`, and is recorded as
    what it is; other content than was registered it does not pass over.
    """
    candidate = registry.version(version)
    history = ledger.promotions()
    before = history[-1] if history else None
    if before is not None and (before.version, before.fingerprint) == (version, candidate.fingerprint):
        _project(ledger, registry)
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
    rests_on = {**(evidence or {}), **_evidence(candidate), "passed_over": list(against)}
    content = (candidate.version, candidate.fingerprint)
    return _append(ledger, registry, content, before, kind=kind, who=who, reason=reason, evidence=rests_on, now=now)


def rollback(
    ledger: Ledger,
    registry: ModelRegistry | None,
    *,
    who: str,
    reason: str,
    to_version: int | None = None,
    now: datetime | None = None,
) -> Promotion:
    """Make the previous champion (or `to_version`, which must have been one) champion again.

    It passed its gates when it was promoted, so they are not asked again. PromotionRefused where there is none to go
    back to. Without a registry (MLflow is away) the ledger's own evidence of then stands, and the alias is set later.
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
    evidence = dict(target.evidence)
    try:
        registered = None if registry is None else registry.version(target.version)
    except DependencyError:
        registered = None  # to go back must work while MLflow is away
    if registered is not None:
        if registered.fingerprint != target.fingerprint:
            raise PromotionRefused(
                f"Version {target.version} has other content than when it was champion.",
                remedy="Roll back to another one.",
            )
        evidence |= _evidence(registered)
    evidence |= {"of_promotion": target.promotion_id, "rolled_back_version": before.version}
    evidence.pop("watch", None)  # of an earlier rollback to it
    content = (target.version, target.fingerprint)
    return _append(
        ledger, registry, content, before, kind="rollback", who=who, reason=reason, evidence=evidence, now=now
    )


def appoint_challenger(
    ledger: Ledger,
    registry: ModelRegistry,
    version: int,
    *,
    who: str,
    reason: str,
    required_gates: Collection[str],
    now: datetime | None = None,
) -> Challenger:
    """Make a version the challenger, in place of the one before.

    PromotionRefused where its gates did not pass, where it was rolled back, or where it is the champion. The present
    challenger again changes nothing but a wrong alias.
    """
    candidate = registry.version(version)
    before = ledger.current_challenger()
    if before is not None and (before.version, before.fingerprint) == (version, candidate.fingerprint):
        _project(ledger, registry)
        return before
    history = ledger.promotions()
    against = challenge_refusals(
        version=version,
        fingerprint=candidate.fingerprint,
        evidence=candidate.gates,
        required=required_gates,
        champion_version=history[-1].version if history else None,
        was_rolled_back=version in rolled_back_versions(history),
    )
    if against:
        raise PromotionRefused(
            f"Version {version} cannot be challenger: {'; '.join(against)}.",
            remedy=f"`fraud models show {version}` has every result; only what passed its gates may challenge.",
        )
    return _append_challenger(ledger, registry, before, candidate, who=who, reason=reason, now=now)


def dismiss_challenger(
    ledger: Ledger, registry: ModelRegistry | None, *, who: str, reason: str, now: datetime | None = None
) -> Challenger | None:
    """Have no challenger from now on; the one that was, or None where there was none."""
    before = current_challenger(ledger)
    if before is None:
        _project(ledger, registry)
        return None
    _append_challenger(ledger, registry, before, None, who=who, reason=reason, now=now)
    return before


def repair_alias(ledger: Ledger, registry: ModelRegistry) -> bool:
    """Set MLflow's champion and challenger to the ledger's; True where one was wrong."""
    champion, challenger = ledger.current_promotion(), current_challenger(ledger)
    wanted = {
        CHAMPION: None if champion is None else champion.version,
        CHALLENGER: None if challenger is None else challenger.version,
    }
    wrong = [alias for alias, version in wanted.items() if version != registry.aliased(alias)]
    for alias in wrong:
        version = wanted[alias]
        if version is None:
            registry.delete_alias(alias)  # set by hand: nothing was promoted or appointed
        else:
            registry.set_alias(alias, version)
    return bool(wrong)


def _append(
    ledger: Ledger,
    registry: ModelRegistry | None,
    content: tuple[int, str],
    before: Promotion | None,
    *,
    kind: PromotionKind,
    who: str,
    reason: str,
    evidence: dict[str, Any],
    now: datetime | None,
) -> Promotion:
    version, fingerprint = content
    previous_id = 0 if before is None else before.promotion_id
    promotion = Promotion(
        promotion_id=previous_id + 1,
        previous_id=previous_id,
        kind=kind,
        version=version,
        fingerprint=fingerprint,
        previous_version=None if before is None else before.version,
        who=who,
        reason=reason,
        promoted_at=now or datetime.now(UTC),
        evidence=evidence,
    )
    ledger.append_promotion(promotion)
    challenger = current_challenger(ledger)
    if challenger is not None and challenger.version == version:
        with contextlib.suppress(
            PromotionRefused
        ):  # somebody has just said who challenges: that holds, and so does this
            dismiss_challenger(ledger, registry, who=who, reason="it is champion now", now=promotion.promoted_at)
    # Another promotion may follow at once: what the ledger says by now is what the alias must say.
    _project(ledger, registry)
    return promotion


def _project(ledger: Ledger, registry: ModelRegistry | None) -> None:
    """`repair_alias`, for what the ledger has said already: where MLflow is away it stays said, and the alias is set later."""
    try:
        if registry is not None:
            repair_alias(ledger, registry)
            return
        why = "MLflow is away"
    except DependencyError as err:
        why = err.message
    log.warning("The ledger says who is champion; MLflow's aliases are set at the next start of `fraud run`: %s", why)


def _append_challenger(
    ledger: Ledger,
    registry: ModelRegistry | None,
    before: Challenger | None,
    candidate: RegisteredVersion | None,
    *,
    who: str,
    reason: str,
    now: datetime | None,
) -> Challenger:
    challenger = Challenger(
        challenger_id=1 + (0 if before is None else before.challenger_id),
        version=None if candidate is None else candidate.version,
        fingerprint=None if candidate is None else candidate.fingerprint,
        who=who,
        reason=reason,
        appointed_at=now or datetime.now(UTC),
    )
    ledger.append_challenger(challenger)
    _project(ledger, registry)
    return challenger


def _evidence(version: RegisteredVersion) -> dict[str, Any]:
    """What the promotion rests on, kept in the ledger even if MLflow is lost."""
    return {
        "gates": None if version.gates is None else json.loads(version.gates.to_json()),
        "metrics": dict(version.metrics),
        "training_window": version.training_window,
        "run_id": version.run_id,
    }
