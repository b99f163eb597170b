"""One feature in two samples: whether it has drifted, or its source is broken, and since which day.

Drift is judged on the whole window and must hold without any single day of it: a holiday is no new world. A broken source is
judged on the whole window and on its newest day alone, so that it is told on the first day and not when a week is full of it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

from fraud_pipeline.domain.drift_comparison import Comparison, date_of
from fraud_pipeline.domain.drift_measures import Measures
from fraud_pipeline.domain.drift_verdict import DriftLimits, Fault, FeatureDrift

FEWEST_DAYS = 3
"""With fewer days each of them is too much of the window to be left out."""


def follows_labels(feature: str) -> bool:
    """Whether a feature is made from fraud labels; their names say so."""
    return "fraud" in feature


def judge_feature(comparison: Comparison, name: str, limits: DriftLimits) -> FeatureDrift:
    """What the feature's measures mean by these limits."""
    found, counted = comparison.whole(name), not follows_labels(name)
    fault, shown_by = _fault_of_window(comparison, name, limits) if counted else (None, found)
    first, last = _broken_days(comparison, name, limits) if fault else (None, None)
    drifted, lone = has_drifted(found, limits), None
    if drifted and not fault:
        lone = lone_day(comparison, name, lambda measures: has_drifted(measures, limits))
    return FeatureDrift(
        name, drifted and lone is None, fault is not None, counted, shown_by, fault, first, last, lone
    )  # fmt: skip


def has_drifted(found: Measures, limits: DriftLimits) -> bool:
    """Whether the values, or how often there are none, have changed by more than the limits and chance allow."""
    limit = limits.wasserstein if found.stattest == "wasserstein" else limits.jensen_shannon
    moved = found.score >= limit and found.ks_p < limits.significance
    refilled = abs(found.missing_rise) >= limits.missing_rise and found.missing_p < limits.significance
    return moved or refilled


def fault_of(found: Measures, limits: DriftLimits) -> Fault | None:
    """How the feature's source has failed, the plainest sign first; None where it has not."""
    level = limits.significance
    if found.missing_rise >= limits.broken_missing_rise and found.missing_p < level:
        return "missing"
    if found.constant_p < level:
        return "constant"
    if found.ks_p >= level:
        return None
    if found.stattest == "jensenshannon":
        unknown = found.unseen >= limits.broken_unseen or found.score >= limits.broken_jensen_shannon
        return "codes" if unknown else None
    if found.score >= limits.broken_wasserstein:
        return "scale"
    return "range" if found.outside >= limits.broken_outside else None


def lone_day(comparison: Comparison, name: str, drifted: Callable[[Measures], bool]) -> date | None:
    """The day without which the feature has not drifted; None where there is no such day."""
    if len(comparison.days) < FEWEST_DAYS:
        return None
    spared = [day for day in reversed(comparison.days) if not drifted(comparison.without(name, day))]
    return date_of(spared[0]) if spared else None


def describe_fault(broken: FeatureDrift) -> str:
    """The fault in words, with the days that show it."""
    found, name = broken.measures, broken.feature
    said = {
        "missing": f"{name} is missing in {found.current_missing:.0%}, it was in {found.reference_missing:.0%}",
        "range": f"{name} has impossible values in {found.outside:.0%}",
        "constant": f"{name} is always {found.current_mean:g}, it varied",
        "codes": f"{name} has other codes than it had: {found.unseen:.0%} never occurred (distance {found.score:.2f})",
        "scale": f"{name} moved by {found.score:.1f} standard deviations, more than any habit does",
    }[broken.fault or "scale"]
    if broken.since is None:
        return said
    return f"{said}; since {broken.since}" + (f" until {broken.until}" if broken.until else "")


def _fault_of_window(comparison: Comparison, name: str, limits: DriftLimits) -> tuple[Fault | None, Measures]:
    """The fault, of the whole window or of its newest day, and the measures that show it (else the window's)."""
    whole = comparison.whole(name)
    if found := fault_of(whole, limits):
        return found, whole
    newest = [day for day in comparison.days if comparison.rows_on(day) >= limits.min_day_rows][-1:]
    for day in newest:
        alone = comparison.only(name, day)
        if found := fault_of(alone, limits):
            return found, alone
    return None, whole


def _broken_days(comparison: Comparison, name: str, limits: DriftLimits) -> tuple[date | None, date | None]:
    """The first day of the newest run of broken days, and its last one where sound days follow.

    Days with too few rows to judge neither end a run nor begin one. (None, None) where no day shows the fault by itself.
    """
    since = until = None
    for day in comparison.days:
        if comparison.rows_on(day) < limits.min_day_rows:
            continue
        if fault_of(comparison.only(name, day), limits):
            since, until = (day, None) if since is None or until is not None else (since, None)
        elif since is not None and until is None:
            until = day
    if since is None:
        return None, None
    last = None if until is None else max(day for day in comparison.days if day < until)
    return date_of(since), None if last is None else date_of(last)
