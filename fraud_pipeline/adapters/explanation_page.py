"""Exact explanations of a bundle's scores, and their picture.

The trees with their covers are read from the bundle's directory when a bundle is first asked, and kept for the few bundles
that are in use. Knows nothing of HTTP or the command line. matplotlib is imported when something is drawn, by its object
API: no pyplot, no state, any thread.
"""

from __future__ import annotations

import io
import math
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fraud_pipeline.adapters.plots import ACCENT, DOTS_PER_INCH, INK, MUTED, PALE, WARNING
from fraud_pipeline.domain.bundle import TREES, ModelBundle, npz_arrays
from fraud_pipeline.domain.bundle_files import read_directory
from fraud_pipeline.domain.exact_explanation import ExactExplanation, check_inputs, explain_exactly
from fraud_pipeline.domain.tree_ensemble import TreeEnsemble
from fraud_pipeline.domain.tree_shap import TreeShap, exact_contributions
from fraud_pipeline.errors import BundleError, DependencyError, NotFound

SHOWN_FEATURES: Final = 12
"""More bars than that are each too small to tell anything; the rest is one bar."""
_KEPT_BUNDLES: Final = 4
"""The champion, the one before it, a challenger, and one that is asked about; some 10 MB each."""
_LONGEST_LABEL: Final = 46
_CLEAR: Final = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
"""Behind numbers, which may stand on a threshold's line."""
_WIDTH: Final = 8.5  # inches; at DOTS_PER_INCH 935 pixels


def exact_explanation(bundle: ModelBundle, vector: NDArray[np.float32]) -> ExactExplanation:
    """Explain one input vector [F'] of the bundle exactly; milliseconds, after the first one.

    Raises NotFound for a bundle made before covers were kept, BundleError where its directory is gone or damaged,
    SchemaMismatch for a vector of other inputs.
    """
    check_inputs(bundle, vector)
    shap = _tree_shap(bundle.path, bundle.fingerprint)
    if shap is None:
        raise NotFound(
            f"Version {bundle.version} keeps no covers of its trees: it was made before exact explanations were.",
            remedy="Train a new version for exact ones (`fraud run`); `fraud explain` without --exact has path attributions.",
        )
    writable = np.array(vector, dtype=np.float32)  # a logged vector is not, and numba would compile for it anew
    return explain_exactly(bundle, writable, contributions=exact_contributions(shap, writable))


def waterfall_png(explanation: ExactExplanation) -> bytes:
    """From the base value at the top to the score at the bottom, the largest effects first.

    Raises DependencyError where matplotlib is not installed.
    """
    figure_class = _figure_class()
    rows = _rows(explanation)
    figure = figure_class(figsize=(_WIDTH, 1.5 + 0.3 * (len(rows) + 2)), layout="constrained")
    axis = figure.subplots()
    ends = explanation.base_value + np.cumsum([0.0, *(added for _, added in rows)])
    span = _limits(axis, explanation, ends)
    for place, (_, added) in enumerate(rows, start=1):
        _bar(axis, place, start=float(ends[place - 1]), added=added, gap=0.008 * span, text=_signed(added, span))
    last = len(rows) + 1
    axis.vlines(ends, np.arange(last) - 0.35, np.arange(last) + 1.35, color=MUTED, linewidth=0.8)
    for place, value in ((0, explanation.base_value), (last, explanation.raw_score)):
        axis.plot([value], [place], "D", color=INK, markersize=5, zorder=4)
        axis.annotate(
            _plain(value, span), (value, place), xytext=(8, 0), textcoords="offset points", va="center", fontsize=9,
            color=INK, fontweight="bold", bbox=_CLEAR, zorder=4,
        )  # fmt: skip
    labels = ["base value", *(label for label, _ in rows), "raw score"]
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(last + 0.6, -0.6)
    _thresholds(axis, explanation)
    _dress(axis, explanation)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return buffer.getvalue()


@lru_cache(maxsize=_KEPT_BUNDLES)
def _tree_shap(path: Path, fingerprint: str) -> TreeShap | None:
    """Ready trees of a bundle's directory; None where it keeps no covers."""
    files, found = read_directory(path)
    if found != fingerprint:
        raise BundleError(f"Bundle {path} was replaced since it was loaded.", remedy="Load the bundle again.")
    trees = TreeEnsemble.from_arrays(npz_arrays(files[TREES]))
    return None if trees.cover is None else TreeShap.of(trees)


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as err:
        raise DependencyError(
            "Pictures need matplotlib, which is not installed.",
            remedy="Install fraud-pipeline[pipeline], or ask for JSON.",
        ) from err
    return Figure


def _rows(explanation: ExactExplanation) -> list[tuple[str, float]]:
    """Labels and what they add: the strongest inputs, and all the others (and what rounding differs by) as one."""
    shown = [c for c in explanation.contributions[:SHOWN_FEATURES] if c.contribution]
    rows = [(_label(c.feature, c.text), c.contribution) for c in shown]
    others = len(explanation.contributions) - len(shown)
    if others:
        rest = explanation.raw_score - explanation.base_value - sum(added for _, added in rows)
        rows.append((f"{others} others", rest))
    return rows


def _label(name: str, text: str) -> str:
    """`name = value`, cut to fit; without what matplotlib takes for mathematics or its font cannot write."""
    value = text if len(text) <= _LONGEST_LABEL // 2 else text[: _LONGEST_LABEL // 2 - 1] + "…"
    room = _LONGEST_LABEL - len(value) - 3
    short = name if len(name) <= room else name[: room - 1] + "…"
    return _writable(f"{short} = {value}").replace("$", r"\$")


def _writable(text: str) -> str:
    from matplotlib import font_manager

    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    return "".join(char if font.get_char_index(ord(char)) else "?" for char in text)


def _limits(axis: Any, explanation: ExactExplanation, ends: NDArray[np.float64]) -> float:
    """Room for the bars, their numbers, and a threshold that is not far away; returns the width."""
    low, high = float(ends.min()), float(ends.max())
    near = max(high - low, 1e-3) / 2
    thresholds = [
        t for t in (explanation.review, explanation.block) if t is not None and low - near <= t <= high + near
    ]
    low, high = min([low, *thresholds]), max([high, *thresholds])
    span = max(high - low, 1e-3)
    axis.set_xlim(low - 0.14 * span, high + 0.14 * span)
    return 1.28 * span


def _plain(value: float, span: float) -> str:
    """Three decimals, or more where all that is drawn lies within less than a tenth."""
    return f"{value:.{max(3, 2 - math.floor(math.log10(span)))}f}".replace("-", "−")


def _signed(value: float, span: float) -> str:
    return ("" if value < 0 else "+") + _plain(value, span)


def _bar(axis: Any, place: int, *, start: float, added: float, gap: float, text: str) -> None:
    end = start + added
    axis.barh(place, added, left=start, height=0.7, color=WARNING if added > 0 else ACCENT, zorder=3)
    outside = max(start, end) + gap if added >= 0 else min(start, end) - gap
    axis.text(
        outside, place, text, va="center", ha="left" if added >= 0 else "right", fontsize=8, color=INK, zorder=3,
        bbox=_CLEAR,
    )  # fmt: skip


def _thresholds(axis: Any, explanation: ExactExplanation) -> None:
    """Dotted lines, named at the top, to the left of REVIEW and to the right of BLOCK so that the names stay apart."""
    left, right = axis.get_xlim()
    for raw, name, side in ((explanation.review, "REVIEW", "right"), (explanation.block, "BLOCK", "left")):
        if raw is None or not left <= raw <= right:
            continue
        axis.axvline(raw, color=INK, linewidth=1, linestyle=":", zorder=2)
        axis.annotate(
            name, (raw, 1), xytext=(-4 if side == "right" else 4, 2), xycoords=axis.get_xaxis_transform(),
            textcoords="offset points", fontsize=8, color=INK, ha=side, va="bottom",
        )  # fmt: skip


def _dress(axis: Any, explanation: ExactExplanation) -> None:
    axis.set_title("What made the score\n\n", loc="left", fontsize=11, color=INK, fontweight="bold")
    subtitle = (
        f"fraud probability {explanation.fraud_probability:.2%}, model version {_writable(explanation.model_version)}; "
        "orange raises, blue lowers"
    )
    axis.annotate(
        subtitle, (0, 1), xytext=(0, 18), xycoords="axes fraction", textcoords="offset points", fontsize=9, color=MUTED
    )
    axis.set_xlabel(f"raw score ({explanation.score_unit})", fontsize=9, color=INK)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(PALE)
    axis.tick_params(labelsize=8, colors=INK, length=0)
    axis.grid(axis="x", color=PALE, linewidth=0.5)
    axis.set_axisbelow(True)
