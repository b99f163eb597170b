"""The history of drift and performance over the as-of dates, as one PNG for an asset's page. matplotlib is imported when drawn."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np

from fraud_pipeline.adapters.monitoring_history import HistoryPoint
from fraud_pipeline.adapters.plots import ACCENT, DOTS_PER_INCH, INK, MUTED, PALE, WARNING

MARKS: Final = {
    "stable": ("o", "#5b8c5a"), "watch": ("D", "#b26a00"), "drift": ("s", WARNING), "broken_input": ("X", "#6a1b9a"),
}  # fmt: skip
"""A shape and a colour for each verdict: nothing is told by colour alone."""


def history_chart(points: Sequence[HistoryPoint], *, share_limit: float, score_limit: float) -> bytes:
    """Three panels over the as-of dates: the verdict and the drifted share, the scores' distance, measured and expected PR-AUC."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.4, 6.2), layout="constrained")
    drift, score, performance = figure.subplots(3, 1, sharex=True)
    days: Any = [point.as_of for point in points]
    _panel(drift, "Verdict and drifted share of the inputs")
    _series(drift, days, [point.drifted_share for point in points], label=None)
    for status, (mark, colour) in MARKS.items():
        rows = [(point.as_of, point.drifted_share) for point in points if point.status == status]
        if rows:
            when, share = zip(*rows, strict=True)
            known = [0.0 if math.isnan(each) else each for each in share]
            drift.plot(when, known, mark, color=colour, markersize=6, label=status.replace("_", " "), linestyle="none")
    _limit(drift, share_limit)
    if any(point.status for point in points):
        drift.legend(frameon=False, fontsize=8, ncols=4, loc="upper left", bbox_to_anchor=(0, 1.02))
    drift.set_ylim(bottom=0, top=max(1.6 * share_limit, *_above([point.drifted_share for point in points], 1.35)))
    _panel(score, "Distance of the scores from the reference (standard deviations)")
    _series(score, days, [point.score_distance for point in points], label=None)
    _limit(score, score_limit)
    score.set_ylim(bottom=0)
    _panel(
        performance,
        "PR-AUC: measured on mature labels (95 % interval), and what the probabilities promised of the same days",
    )
    bands = [point.pr_auc for point in points]
    performance.fill_between(
        days, [band.low for band in bands], [band.high for band in bands], color=ACCENT, alpha=0.18, linewidth=0
    )
    _series(performance, days, [band.value for band in bands], label="measured")
    _series(
        performance, days, [point.expected_pr_auc for point in points], label="expected", colour=WARNING, style="--"
    )
    _new_champions(performance, points)
    performance.set_ylim(0, 1)
    performance.legend(frameon=False, fontsize=8, ncols=2, loc="lower left")
    figure.autofmt_xdate(rotation=0, ha="center")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return buffer.getvalue()


def _panel(axis: Any, title: str) -> None:
    axis.set_title(title, loc="left", fontsize=9, color=INK)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(PALE)
    axis.tick_params(labelsize=8, colors=INK, length=0)
    axis.grid(color=PALE, linewidth=0.5)
    axis.set_axisbelow(True)


def _series(
    axis: Any,
    days: Sequence[Any],
    values: Sequence[float],
    *,
    label: str | None,
    colour: str = ACCENT,
    style: str = "-",
) -> None:
    axis.plot(days, values, color=colour, linestyle=style, linewidth=1.4, marker="." if label else None, label=label)


def _limit(axis: Any, limit: float) -> None:
    axis.axhline(limit, color=MUTED, linewidth=1, linestyle=":")
    axis.annotate(
        "limit", (1, limit), xycoords=axis.get_yaxis_transform(), fontsize=7, color=MUTED, ha="right", va="bottom"
    )


def _new_champions(axis: Any, points: Sequence[HistoryPoint]) -> None:
    for before, point in pairwise(points):
        if point.champion != before.champion:
            axis.axvline(point.as_of, color=INK, linewidth=0.8, linestyle=":")
            axis.annotate(
                f" version {point.champion}", (point.as_of, 1), xycoords=axis.get_xaxis_transform(), fontsize=7, va="top",
                color=INK,
            )  # fmt: skip


def _above(values: Sequence[float], factor: float) -> list[float]:
    known = np.array([value for value in values if math.isfinite(value)])
    return [float(known.max()) * factor] if len(known) else [0.0]
