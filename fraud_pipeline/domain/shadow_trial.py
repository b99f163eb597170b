"""When a challenger's shadow period is over, and whether it may become champion by what it said in it. Pure."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from fraud_pipeline.domain.promotion import Challenger
from fraud_pipeline.domain.promotion_watch import WatchCheck, share_bounds
from fraud_pipeline.domain.shadow_comparison import ShadowComparison

TRIAL = "shadow trial"
"""How the reason of an appointment begins that the automation made: it ends those and leaves a person's alone."""


@dataclass(frozen=True, slots=True)
class TrialLimits:
    """`days` of data and `least` shadow decisions must be over; `patience` times the days without them end it too.

    The challenger may raise `most_ratio` times the champion's alerts where that is also `most_alerts` times the budget, and
    must raise `fewest_ratio` of them; frauds that it would have lost must not be more than chance explains: `z` standard deviations
    (1 in 100, for it is asked once, and a candidate that is dismissed wrongly costs little), `cluster` counts as one.
    """

    days: float
    budget: float
    least: int = 500
    patience: float = 2.0
    most_ratio: float = 3.0
    most_alerts: float = 3.0
    fewest_ratio: float = 1 / 3
    z: float = 2.3
    cluster: float = 2.0


@dataclass(frozen=True, slots=True)
class TrialProgress:
    """Payments that the challenger scored in shadow (counted up to what is needed), and days of data since its appointment."""

    payments: int
    days: float


@dataclass(frozen=True, slots=True)
class TrialFinding:
    """Whether it is promoted, each limit's result, and the reason in one sentence."""

    promoted: bool
    checks: tuple[WatchCheck, ...]
    reason: str

    def to_dict(self) -> dict[str, Any]:
        return {"promoted": self.promoted, "reason": self.reason, "checks": [asdict(check) for check in self.checks]}


def is_trial(challenger: Challenger) -> bool:
    """Whether the automation appointed it, and so ends its shadow period."""
    return challenger.version is not None and challenger.reason.startswith(TRIAL)


def waiting_for(progress: TrialProgress, limits: TrialLimits) -> str:
    """What the shadow period still waits for, in words; empty where it is over."""
    if progress.days >= limits.days and progress.payments >= limits.least:
        return ""
    if progress.days >= limits.days * limits.patience and progress.days >= 1:
        return ""
    return f"{progress.days:.1f} of {limits.days:g} days of data and {progress.payments:,} of {limits.least:,} shadow decisions are over."


def judge_trial(comparison: ShadowComparison | None, limits: TrialLimits) -> TrialFinding:
    """The verdict at the end; `comparison` has the challenger on its left side, None where no payment was decided by both."""
    payments = 0 if comparison is None else comparison.payments
    if comparison is None or payments < limits.least:
        why = f"only {payments:,} of {limits.least:,} payments were scored in shadow: does a service or a scorer run?"
        return TrialFinding(False, (), f"The shadow period ended without enough to judge by: {why}")
    checks = (_alerts(comparison, limits), _not_blind(comparison, limits), _frauds(comparison, limits))
    broken = [check for check in checks if not check.passed]
    if broken:
        return TrialFinding(False, checks, " ".join(check.explanation for check in broken))
    known = comparison.outcomes
    return TrialFinding(
        True,
        checks,
        f"In shadow on {payments:,} payments it alerted {comparison.left_alert_rate:.2%} (the champion {comparison.right_alert_rate:.2%}) "
        f"and would have caught {known.left.caught} of {known.frauds} known frauds (the champion {known.right.caught}).",
    )


def _alerts(comparison: ShadowComparison, limits: TrialLimits) -> WatchCheck:
    ours, theirs, n = comparison.left_alert_rate, comparison.right_alert_rate, comparison.payments
    low, _ = share_bounds(ours * n, n, z=limits.z, cluster=limits.cluster)
    passed = low <= limits.most_alerts * limits.budget or ours <= limits.most_ratio * theirs
    said = f"It would have alerted {ours:.2%} of {n:,} payments, the champion {theirs:.2%}; the budget is {limits.budget:.2%}."
    return WatchCheck("alerts_within_the_budget", passed, ours, f"<= {limits.most_alerts:g} times the budget", said)


def _not_blind(comparison: ShadowComparison, limits: TrialLimits) -> WatchCheck:
    ours, theirs, n = comparison.left_alert_rate, comparison.right_alert_rate, comparison.payments
    _, high = share_bounds(ours * n, n, z=limits.z, cluster=limits.cluster)
    passed = high >= limits.fewest_ratio * min(theirs, limits.budget)
    said = (
        f"It would have alerted {ours:.3%} of {n:,} payments (surely less than {high:.3%}), the champion {theirs:.3%}."
    )
    return WatchCheck("alerts_not_gone", passed, ours, f">= {limits.fewest_ratio:.2f} of the champion's", said)


def _frauds(comparison: ShadowComparison, limits: TrialLimits) -> WatchCheck:
    known = comparison.outcomes
    lost = known.right.caught - known.left.caught
    chance = limits.z * math.sqrt(limits.cluster * (known.left.caught + known.right.caught))
    said = (
        f"Of {known.frauds} known frauds it would have caught {known.left.caught}, the champion {known.right.caught}."
    )
    return WatchCheck("no_fraud_lost", lost <= chance, float(lost), f"<= {chance:.0f}, which chance explains", said)
