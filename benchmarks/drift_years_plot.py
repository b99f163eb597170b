"""The trade-off of the drift limits as a picture: false retrainings a year against days until a drift is noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from fraud_pipeline.adapters.plots import ACCENT, DOTS_PER_INCH, INK, MUTED, PALE, WARNING

STYLES: Final = {
    "inflation": (ACCENT, "o", "-"), "covid": ("#5b8c5a", "s", "-"), "new_channel": (WARNING, "^", "-"),
    "new_fraud": ("#6a1b9a", "D", "-"), "sensor_fault": (INK, "X", "--"),
}  # fmt: skip
"""A colour, a shape and a dash each: nothing is told by colour alone."""


def draw_trade_off(result: dict[str, Any], path: Path) -> None:
    """One line per kind of drift, one point per factor on the limits; the default is ringed. What was missed stands on top."""
    from matplotlib.figure import Figure

    rows = result["by_factor"]
    missed = result["watched_days"] + 4
    figure = Figure(figsize=(7.4, 4.6), layout="constrained")
    axis = figure.subplots()
    kinds = next(iter(rows.values()))["days_to_detect"]
    for kind in kinds:
        colour, mark, dash = STYLES.get(kind, (MUTED, ".", "-"))
        x = [row["false_retrains_per_year"] for row in rows.values()]
        y = [missed if row["days_to_detect"][kind] is None else row["days_to_detect"][kind] for row in rows.values()]
        axis.plot(x, y, dash, color=colour, marker=mark, markersize=5, linewidth=1.5, label=kind.replace("_", " "))
        chosen = rows["1.0"]
        day = chosen["days_to_detect"][kind]
        axis.plot(
            [chosen["false_retrains_per_year"]], [missed if day is None else day], "o", markersize=12, markerfacecolor="none",
            markeredgecolor=INK, markeredgewidth=1.0,
        )  # fmt: skip
    for factor, row in rows.items():
        axis.annotate(
            f"x{factor}", (row["false_retrains_per_year"], 0), xycoords=("data", "axes fraction"), xytext=(0, 3),
            textcoords="offset points", fontsize=7, color=MUTED, ha="center", rotation=90,
        )  # fmt: skip
    axis.axhline(missed, color=PALE, linewidth=1, zorder=0)
    axis.annotate(
        f"not within {result['watched_days']} days", (1, missed), xycoords=("axes fraction", "data"), xytext=(0, 3),
        textcoords="offset points", fontsize=7, color=MUTED, ha="right",
    )  # fmt: skip
    axis.set_title(
        "Limits times a factor: what they cost and what they gain", loc="left", fontsize=11, color=INK, pad=12
    )
    axis.set_xlabel("false retrainings per year in a world without drift", fontsize=9, color=INK)
    axis.set_ylabel("median days from the drift's first day", fontsize=9, color=INK)
    axis.set_xscale("symlog", linthresh=0.5)
    axis.set_xlim(left=-0.05)
    axis.set_ylim(bottom=-4)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(PALE)
    axis.tick_params(labelsize=8, colors=INK, length=0)
    axis.grid(color=PALE, linewidth=0.5)
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DOTS_PER_INCH)
