"""Plots of a model's evaluation as PNG bytes: arrays in, pictures out.

One restrained style, readable at 700 pixels. Blue and orange differ for every kind of colour vision, and nothing is told by colour alone.
matplotlib is imported when something is drawn, by its object API: no pyplot, no state, any thread.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fraud_pipeline.domain.curves import Curves
    from fraud_pipeline.domain.evaluation import Confusion, Evaluation
    from fraud_pipeline.domain.thresholds import Thresholds, ValueCurve

INK, ACCENT, WARNING, PALE = "#1f2933", "#3b6fb5", "#c8553d", "#cfd8e3"
WIDTH, HEIGHT = 7.0, 4.0  # inches; at DOTS_PER_INCH 770 x 440 pixels
DOTS_PER_INCH = 110
MUTED = "#7b8794"
SHOWN_FEATURES = 20


def evaluation_plots(
    evaluation: Evaluation, *, thresholds: Thresholds, importance: Mapping[str, float], budget: float
) -> dict[str, bytes]:
    """All plots of an evaluation by name, in the order in which a person reads them."""
    curves = evaluation.curves
    return {
        "precision_recall": precision_recall(curves, pr_auc=evaluation["pr_auc"].value),
        "gain": cumulative_gain(curves, budget=budget),
        "score_distributions": score_distributions(curves, thresholds=thresholds),
        "calibration": calibration(curves, error=evaluation["calibration_error"].value),
        "value": value_against_threshold(curves.value, budget=budget),
        "decisions": decisions(evaluation.confusion),
        "importance": feature_importance(importance),
    }


def precision_recall(curves: Curves, *, pr_auc: float) -> bytes:
    """Precision against recall, with the share of fraud that guessing would reach."""
    figure, axis = _figure("Precision and recall", f"average precision {pr_auc:.3f}")
    axis.plot(curves.recall, curves.precision, color=ACCENT, linewidth=1.8, drawstyle="steps-pre")
    axis.axhline(curves.base_rate, color=MUTED, linewidth=1, linestyle="--")
    axis.text(0.99, curves.base_rate + 0.015, f"guessing: {curves.base_rate:.2%}", ha="right", fontsize=8, color=MUTED)
    _label(axis, "recall: share of frauds found", "precision: share of alerts that are fraud")
    axis.set(xlim=(0, 1), ylim=(0, 1.02))
    return _png(figure)


def cumulative_gain(curves: Curves, *, budget: float) -> bytes:
    """Share of frauds found against the share of payments alerted, from the most suspect down."""
    with np.errstate(divide="ignore", invalid="ignore"):
        alerted = curves.recall * curves.base_rate / curves.precision
    known = np.isfinite(alerted) & (alerted > 0)
    alerted, found = alerted[known], curves.recall[known]
    at_budget = float(np.interp(budget, alerted, found))
    figure, axis = _figure(
        "Gain: frauds found by alerting the most suspect payments", f"{at_budget:.0%} at the alert budget"
    )
    axis.plot(alerted, found, color=ACCENT, linewidth=1.8)
    least = min(float(alerted.min()), budget / 2)
    every = np.geomspace(least, 1, 100)
    axis.plot(every, every, color=MUTED, linewidth=1, linestyle="--")
    axis.text(0.6, 0.5, "guessing", color=MUTED, fontsize=8, ha="right")
    axis.axvline(budget, color=WARNING, linewidth=1.2)
    axis.plot([budget], [at_budget], "o", color=WARNING, markersize=5)
    _note(axis, budget, f"budget {budget:.2%}", colour=WARNING, side="right")
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(_percent)
    _label(axis, "payments alerted (log scale)", "frauds found")
    axis.set(xlim=(least, 1), ylim=(0, 1.02))
    return _png(figure)


def score_distributions(curves: Curves, *, thresholds: Thresholds) -> bytes:
    """How many payments have which raw score, legitimate and fraud, with the thresholds."""
    figure, axis = _figure("Scores of legitimate payments and of frauds", "payments on a log scale")
    for counts, colour, name, filled in (
        (curves.score_legitimate, ACCENT, "legitimate", True),
        (curves.score_fraud, WARNING, "fraud", False),
    ):
        axis.stairs(
            np.maximum(counts, 0.5), curves.score_edges, baseline=0.5, color=colour, fill=filled, alpha=0.45 if filled else 1,
            linewidth=1.8, label=name,
        )  # fmt: skip
    left, right = float(curves.score_edges[0]), float(curves.score_edges[-1])
    marks = [(thresholds.review, "REVIEW", "right"), (thresholds.block, "BLOCK", "left")]
    if thresholds.review == thresholds.block:
        marks = [(thresholds.block, "BLOCK, no REVIEW", "left")]
    for raw, name, side in marks:
        if left <= raw <= right:
            axis.axvline(raw, color=INK, linewidth=1, linestyle=":")
            _note(axis, raw, name, colour=INK, side=side)
    axis.set_yscale("log")
    axis.set_ylim(bottom=0.5)
    axis.legend(frameon=False, fontsize=8, loc="upper center")
    _label(axis, "raw score", "payments")
    return _png(figure)


def calibration(curves: Curves, *, error: float) -> bytes:
    """Share of fraud observed against the probability promised; each point stands for a tenth of the expected frauds."""
    figure, axis = _figure("Calibration: what was promised and what came", f"calibration error {error:.4f}")
    expected, observed = curves.calibration_expected, curves.calibration_observed
    lowest = max(float(expected[expected > 0].min(initial=1.0)) / 2, 1e-5)
    axis.plot([lowest, 1], [lowest, 1], color=MUTED, linewidth=1, linestyle="--")
    axis.text(0.5, 0.62, "perfect", color=MUTED, fontsize=8, ha="right")
    sizes = 25 + 12 * np.log10(np.maximum(curves.calibration_weight, 1))
    axis.plot(expected, np.maximum(observed, lowest), color=ACCENT, linewidth=1)
    axis.scatter(expected, np.maximum(observed, lowest), s=sizes, color=ACCENT, zorder=3)
    axis.set_xscale("log")
    axis.set_yscale("log")
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_formatter(_percent)
    axis.set(xlim=(lowest, 1.1), ylim=(lowest, 1.1))
    _label(axis, "promised probability (log scale)", "observed share of fraud (log scale)")
    return _png(figure)


def value_against_threshold(curve: ValueCurve, *, budget: float) -> bytes:
    """Net value per 1,000 payments against the share of payments alerted, with the budget."""
    per_thousand = curve.value * 1_000
    inside = curve.alert_share <= budget
    best = int(np.argmax(np.where(inside, per_thousand, -np.inf)))
    figure, axis = _figure(
        "Net value against threshold", f"best within the budget: {per_thousand[best]:,.0f} per 1,000 payments"
    )
    axis.plot(curve.alert_share, per_thousand, color=ACCENT, linewidth=1.8)
    axis.axvline(budget, color=WARNING, linewidth=1.2)
    _note(axis, budget, f"budget {budget:.2%}", colour=WARNING, side="left")
    axis.plot([curve.alert_share[best]], [per_thousand[best]], "o", color=INK, markersize=5)
    axis.axhline(0, color=MUTED, linewidth=0.8)
    axis.xaxis.set_major_formatter(_percent)
    _label(axis, "payments alerted, from the most suspect down", "net value per 1,000 payments")
    axis.margins(x=0.01, y=0.14)
    return _png(figure)


def decisions(confusion: Confusion) -> bytes:
    """What became of legitimate payments and of frauds, as a table with shares."""
    counts = np.array(
        [
            [confusion.approved_legitimate, confusion.reviewed_legitimate, confusion.blocked_legitimate],
            [confusion.approved_fraud, confusion.reviewed_fraud, confusion.blocked_fraud],
        ]
    )
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-12)
    figure, axis = _figure("Decisions at the chosen thresholds", "shares of each row", height=2.4)
    good = np.array([[1, 0, 0], [0, 1, 1]])
    for row, column in np.ndindex(counts.shape):
        colour = ACCENT if good[row, column] else WARNING
        axis.add_patch(_cell(column, row, colour, 0.10 + 0.55 * shares[row, column]))
        axis.text(
            column + 0.5, row + 0.42, f"{counts[row, column]:,.0f}", ha="center", va="center", fontsize=13, color=INK
        )
        axis.text(
            column + 0.5, row + 0.72, f"{shares[row, column]:.2%}", ha="center", va="center", fontsize=8, color=INK
        )
    axis.set(xlim=(0, 3), ylim=(2, 0))
    axis.set_xticks([0.5, 1.5, 2.5], ["APPROVE", "REVIEW", "BLOCK"])
    axis.set_yticks([0.5, 1.5], ["legitimate", "fraud"])
    axis.grid(visible=False)
    axis.spines[["left", "bottom"]].set_visible(False)
    return _png(figure)


def feature_importance(importance: Mapping[str, float]) -> bytes:
    """The features with the largest share of the model's gain, the largest on top."""
    largest = sorted(importance.items(), key=lambda item: -item[1])[:SHOWN_FEATURES][::-1]
    covered = sum(share for _, share in largest)
    figure, axis = _figure(
        "Feature importance",
        f"share of total gain; these {len(largest)}: {covered:.0%}",
        height=0.9 + 0.2 * max(1, len(largest)),
    )
    bars = axis.barh([name for name, _ in largest], [share for _, share in largest], color=ACCENT, height=0.7)
    axis.bar_label(bars, [f" {share:.1%}" for _, share in largest], fontsize=7, color=MUTED)
    axis.grid(visible=False)
    axis.tick_params(axis="y", labelsize=8)
    axis.xaxis.set_major_formatter(_percent)
    axis.margins(x=0.08, y=0.01)
    return _png(figure)


def _figure(title: str, subtitle: str, *, height: float = HEIGHT) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axis = figure.subplots()
    axis.set_title(f"{title}\n", loc="left", fontsize=11, color=INK, fontweight="bold")
    axis.annotate(
        subtitle, (0, 1), xytext=(0, 8), xycoords="axes fraction", textcoords="offset points", fontsize=9, color=MUTED
    )
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(PALE)
    axis.tick_params(labelsize=8, colors=INK, length=0)
    axis.tick_params(which="minor", length=0)
    axis.grid(color=PALE, linewidth=0.5)
    axis.set_axisbelow(True)
    return figure, axis


def _label(axis: Any, x: str, y: str) -> None:
    axis.set_xlabel(x, fontsize=9, color=INK)
    axis.set_ylabel(y, fontsize=9, color=INK)


def _note(axis: Any, x: float, text: str, *, colour: str, side: str) -> None:
    """Text beside a vertical line at x, inside the plot at its top; `side` is where the line is seen from the text."""
    axis.annotate(
        text, (x, 1), xytext=(-4 if side == "right" else 4, -4), xycoords=axis.get_xaxis_transform(),
        textcoords="offset points", fontsize=8, color=colour, ha=side, va="top",
    )  # fmt: skip


def _cell(column: int, row: int, colour: str, alpha: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column + 0.02, row + 0.04), 0.96, 0.92, facecolor=colour, alpha=alpha, linewidth=0)


def _percent(share: float, _: int) -> str:
    return f"{share * 100:g}%"


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return buffer.getvalue()
