"""A challenger's shadow period: how far it is, and its end as a promotion or a dismissal with the evidence.

`trial_progress` reads a few rows by index and may be asked at every tick; `end_trial` compares all pairs. Each of its writes
is whole, and it can be called again after any of them: what is done already is found done.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import orjson
import sqlalchemy as sa

from fraud_pipeline.adapters.decision_pairs import paired_decisions
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_database import LedgerDatabase
from fraud_pipeline.adapters.ledger_schema import decisions
from fraud_pipeline.adapters.model_registry import ModelRegistry
from fraud_pipeline.adapters.promotions import current_challenger, current_champion, dismiss_challenger, promote
from fraud_pipeline.domain.promotion import Challenger, Promotion
from fraud_pipeline.domain.shadow_comparison import ShadowComparison, compare_decisions
from fraud_pipeline.domain.shadow_trial import TrialFinding, TrialLimits, TrialProgress, is_trial, judge_trial
from fraud_pipeline.errors import PromotionRefused

TRIAL_TAG: Final = "shadow_trial"
"""Under this name a version's tags in MLflow hold how its shadow period ended."""


@dataclass(frozen=True, slots=True)
class TrialEnd:
    """What became of a challenger; `promotion` where it is champion now."""

    challenger: Challenger | None
    finding: TrialFinding | None
    comparison: ShadowComparison | None
    promotion: Promotion | None
    said: str


def trial_progress(database: LedgerDatabase, challenger: Challenger, *, enough: int, now: datetime) -> TrialProgress:
    """Days of data since the appointment, by the payments that were answered, and shadow decisions, counted up to `enough`."""
    since = min(challenger.appointed_at, now)  # a clock that was set back since holds nothing up
    answered = sa.and_(decisions.c.role == "decided", decisions.c.decided_at >= since)
    shadows = sa.and_(
        decisions.c.role == "shadow",
        decisions.c.model_version == str(challenger.version),
        decisions.c.decided_at >= since,
    )
    some = sa.select(decisions.c.transaction_id).where(shadows).limit(enough).subquery()
    with database.reading() as connection:
        payments = connection.execute(sa.select(sa.func.count()).select_from(some)).scalar() or 0
        ends = [
            connection.execute(sa.select(decisions.c.payload).where(answered).order_by(order).limit(1)).scalar()
            for order in (decisions.c.decided_at.asc(), decisions.c.decided_at.desc())
        ]
    if ends[0] is None or ends[1] is None:
        return TrialProgress(payments, 0.0)
    first, last = (_event_time(payload) for payload in ends)
    return TrialProgress(payments, max(0.0, (last - first) / timedelta(days=1)))


def end_trial(
    ledger: Ledger, registry: ModelRegistry, *, limits: TrialLimits, required_gates: Collection[str], maturity: timedelta,
    control_share: float, who: str, now: datetime,
) -> TrialEnd:  # fmt: skip
    """Promote the challenger or dismiss it, by what it said in shadow. Nothing happens where a person appointed it."""
    challenger, champion = current_challenger(ledger), current_champion(ledger)
    if challenger is None or challenger.version is None or champion is None or not is_trial(challenger):
        return TrialEnd(challenger, None, None, None, "There is no challenger in a shadow period of ours.")
    if challenger.version == champion.version:  # promoted, and killed before the challenger's row was closed
        dismiss_challenger(ledger, registry, who=who, reason="it is champion now", now=now)
        return TrialEnd(challenger, None, None, champion, f"Version {champion.version} is champion already.")
    since = min(challenger.appointed_at, now)
    pairs = paired_decisions(
        ledger.database,
        str(challenger.version),
        str(champion.version),
        as_of=_labels_by(ledger, since, now),
        since=since,
    )
    compared = compare_decisions(
        pairs, as_of=_labels_by(ledger, since, now), maturity=maturity, control_share=control_share
    )
    finding = judge_trial(compared, limits)
    kept = finding.to_dict() | {"compared": None if compared is None else asdict(compared), "against": champion.version}
    registry.set_tag(challenger.version, TRIAL_TAG, json.dumps(kept)[:5_000])
    if finding.promoted:
        try:
            promotion = promote(
                ledger, registry, challenger.version, who=who, required_gates=required_gates, reason=finding.reason, now=now,
                evidence={"trial": kept},
            )  # fmt: skip
        except PromotionRefused as err:  # the champion it was judged against has changed meanwhile
            finding = TrialFinding(False, finding.checks, err.message)
        else:
            return TrialEnd(challenger, finding, compared, promotion, finding.reason)
    dismiss_challenger(ledger, registry, who=who, reason=f"shadow period ended: {finding.reason}", now=now)
    return TrialEnd(challenger, finding, compared, None, finding.reason)


def _labels_by(ledger: Ledger, since: datetime, now: datetime) -> datetime:
    """As of when labels are judged: by the newest answered payment's own time, since a simulated world lies in the past."""
    query = (
        sa.select(decisions.c.payload)
        .where(decisions.c.role == "decided", decisions.c.decided_at >= since)
        .order_by(decisions.c.decided_at.desc())
        .limit(1)
    )
    with ledger.database.reading() as connection:
        newest = connection.execute(query).scalar()
    return now if newest is None else min(now, _event_time(newest))


def _event_time(payload: Any) -> datetime:
    return datetime.fromisoformat(orjson.loads(payload)["event_time"])
