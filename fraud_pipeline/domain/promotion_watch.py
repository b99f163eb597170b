"""Is a model that was just promoted what it promised to be? Its answers since, beside what the champion before would have said.

The two are compared on the very same payments, so that a busy night, a campaign of fraud or a world that has moved does not
look like a bad model: in a stable simulated world the alerts of 500 payments in a row were up to 13 times the budget, and
both models raise them. Every limit is both large and not chance: it is asked at each tick, so chance has many tries.

Pure. Reading decisions and labels, scoring them by the other model, and acting on the verdict is the adapters'.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fraud_pipeline.domain.watch_tally import WatchTally, psi

WatchVerdict = Literal["watching", "passed", "breached", "superseded"]


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """When a promoted model is taken back.

    `days` and `least_decisions` must be over for it to pass. Until a whole day of data is seen the alerts of an hour stand for
    nothing but that hour: they must be `early_alerts` times the budget, later `most_alerts` times; and that many times what
    the champion before would have raised (`most_ratio`). `fewest_alerts` is the share of the promised alerts below which a
    model is blind. `psi` is the usual limit of a population that has shifted. `lost_ratio`: frauds that only the champion
    before would have alerted over those that only this one did. `z` one-sided standard deviations rule out chance (1 in 2,000);
    alerts and frauds come in campaigns, `cluster` of them weigh as one, and `score_cluster` payments of one customer.
    """

    days: float = 7.0
    least_decisions: int = 500
    early_alerts: float = 8.0
    most_alerts: float = 3.0
    most_ratio: float = 3.0
    fewest_alerts: float = 1 / 3
    psi: float = 0.25
    lost_ratio: float = 1.5
    z: float = 3.3
    cluster: float = 2.0
    score_cluster: float = 5.0


@dataclass(frozen=True, slots=True)
class WatchPromise:
    """What the model said of itself when it was promoted; shares of payments.

    `alert_share` is what its thresholds alerted where they were chosen, None where that is not known or where no gate vouched
    for it (a forced promotion): then the budget stands for it. `score_edges` are the inner edges of SCORE_BINS bins of its
    reference's scores, `reference_rows` how many there were.
    """

    budget: float
    alert_share: float | None
    score_edges: tuple[float, ...]
    reference_rows: int
    compared_with: int | None = None
    other_edges: tuple[float, ...] = ()

    @property
    def expected_share(self) -> float:
        return self.budget if self.alert_share is None else min(self.alert_share, self.budget)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> WatchPromise:
        edges = {name: tuple(stored[name]) for name in ("score_edges", "other_edges")}
        return cls(**{**stored, **edges})


@dataclass(frozen=True, slots=True)
class WatchCheck:
    """One limit: the claim as its name, the number it was judged by (None: too little is known), and what that means."""

    name: str
    passed: bool
    value: float | None
    limit: str
    explanation: str


@dataclass(frozen=True, slots=True)
class WatchFinding:
    """The verdict so far with each limit's result; `reason` is one sentence for people."""

    verdict: WatchVerdict
    checks: tuple[WatchCheck, ...]
    reason: str

    @property
    def breaches(self) -> tuple[WatchCheck, ...]:
        return tuple(check for check in self.checks if not check.passed)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: what a rollback and the watch itself keep as evidence."""
        return {"verdict": self.verdict, "reason": self.reason, "checks": [asdict(check) for check in self.checks]}


def judge_watch(tally: WatchTally, promise: WatchPromise, limits: WatchLimits = WatchLimits()) -> WatchFinding:
    """The verdict on what is known so far."""
    checks = (
        _not_too_many_alerts(tally, promise, limits),
        _not_too_few_alerts(tally, promise, limits),
        _scores_as_in_reference(tally, promise, limits),
        _no_fraud_lost(tally, promise, limits),
    )
    breaches = [check for check in checks if not check.passed]
    if breaches:
        return WatchFinding("breached", checks, " ".join(check.explanation for check in breaches))
    seen = f"{tally.decisions:,} decisions over {tally.days:.1f} days of data"
    if tally.days >= limits.days and tally.decisions >= limits.least_decisions:
        return WatchFinding("passed", checks, f"Every limit was kept in {seen}.")
    needed = f"{limits.days:g} days and {limits.least_decisions:,} decisions"
    return WatchFinding("watching", checks, f"Every limit is kept so far, in {seen}; it ends after {needed}.")


def share_bounds(count: float, of: float, *, z: float, cluster: float) -> tuple[float, float]:
    """Wilson's interval of a share, of counts that come `cluster` together; (0, 1) of nothing."""
    n = of / cluster
    if n <= 0:
        return 0.0, 1.0
    share = count / of
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def _not_too_many_alerts(tally: WatchTally, promise: WatchPromise, limits: WatchLimits) -> WatchCheck:
    name = "alerts_within_the_budget"
    times = limits.most_alerts if tally.days >= 1 else limits.early_alerts
    limit = f"<= {times:g} times the budget of {promise.budget:.2%}"
    if tally.decisions < limits.least_decisions:
        return _unknown(name, limit, f"{tally.decisions:,} decisions say nothing of the share of alerts yet.")
    low, _ = share_bounds(tally.alerts, tally.decisions, z=limits.z, cluster=limits.cluster)
    surge = low > times * promise.budget
    said = f"{tally.alert_share:.2%} of {tally.decisions:,} payments were alerted (surely more than {low:.2%}); "
    said += f"the budget is {promise.budget:.2%}"
    if tally.compared:
        others = tally.other_alerts / tally.compared
        surge = surge and tally.both + tally.new_only > limits.most_ratio * tally.other_alerts
        said += f", and version {promise.compared_with} would have alerted {others:.2%} of the same payments"
    return WatchCheck(name, not surge, tally.alert_share, limit, f"{said}.")


def _not_too_few_alerts(tally: WatchTally, promise: WatchPromise, limits: WatchLimits) -> WatchCheck:
    name, wanted = "alerts_not_gone", promise.expected_share
    limit = f">= {limits.fewest_alerts:.2f} of the promised {wanted:.2%}"
    if tally.days < 1 or tally.decisions < limits.least_decisions:
        return _unknown(name, limit, "Less than a day of data says nothing of alerts that are missing.")
    _, high = share_bounds(tally.alerts, tally.decisions, z=limits.z, cluster=limits.cluster)
    blind = high < limits.fewest_alerts * wanted
    said = f"{tally.alert_share:.3%} of {tally.decisions:,} payments were alerted (surely less than {high:.3%}); {wanted:.2%} was promised"
    if tally.compared:
        blind = blind and tally.both + tally.new_only < limits.fewest_alerts * tally.other_alerts
        said += f", and version {promise.compared_with} would have alerted {tally.other_alerts / tally.compared:.3%}"
    return WatchCheck(name, not blind, tally.alert_share, limit, f"{said}.")


def _scores_as_in_reference(tally: WatchTally, promise: WatchPromise, limits: WatchLimits) -> WatchCheck:
    """PSI times nm/(n+m) is about a chi-square of bins-1 degrees where nothing has changed (Yurdakul 2018)."""
    name, limit = "scores_as_in_the_reference", f"PSI <= {limits.psi:g}"
    n = sum(tally.scores)
    if tally.days < 1 or n < limits.least_decisions or not promise.reference_rows:
        return _unknown(name, limit, "Less than a day of data says nothing of the scores: nights differ from days.")
    found, bins = psi(tally.scores), len(tally.scores)
    chance = limits.score_cluster * (bins - 1 + limits.z * math.sqrt(2 * (bins - 1)))
    noise = chance * (1 / n + 1 / promise.reference_rows)
    moved = found > limits.psi and found > noise
    said = f"The scores of {n:,} payments have a PSI of {found:.3f} against the bundle's reference (chance explains {noise:.3f})"
    if sum(tally.other_scores):
        others = psi(tally.other_scores)
        moved = moved and others < found / 2  # else it is the world that has moved, under both
        said += f"; those of version {promise.compared_with} on the same payments {others:.3f}"
    return WatchCheck(name, not moved, found, limit, f"{said}.")


def _no_fraud_lost(tally: WatchTally, promise: WatchPromise, limits: WatchLimits) -> WatchCheck:
    name = "no_fraud_lost_to_the_champion_before"
    limit = f"only alerted before <= {limits.lost_ratio:g} times only alerted now"
    if not tally.compared:
        return _unknown(name, limit, "There is no champion before it to compare with.")
    lost, gained = float(tally.old_only_frauds), tally.new_only_frauds + tally.held_gain
    excess = lost - limits.lost_ratio * gained
    chance = limits.z * math.sqrt(limits.cluster * (lost + limits.lost_ratio**2 * gained))
    explanation = (
        f"Of {tally.frauds:,} known frauds {tally.caught:,} were alerted; version {promise.compared_with} alone would have alerted "
        f"{tally.old_only_frauds:,} more, and {gained:.1f} are this one's alone ({tally.held_gain:.1f} of them blocked)."
    )
    return WatchCheck(name, not excess > chance, lost, limit, explanation)


def _unknown(name: str, limit: str, explanation: str) -> WatchCheck:
    return WatchCheck(name, True, None, limit, explanation)
