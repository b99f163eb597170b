"""A run's timeline as a picture, from its JSON result: what the world did, what the platform did about it, and who decided."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

LANES: Final = ("days", "reports", "training", "verdicts", "decides")
NAMES: Final = {
    "days": "ingest days", "reports": "reports", "training": "retrain", "verdicts": "drift verdict", "decides": "version that decides",
}  # fmt: skip
RUN_COLOURS: Final = {"days": "#90a4ae", "reports": "#80cbc4", "training": "#5c6bc0"}
VERDICT_COLOURS: Final = {"stable": "#2e7d32", "watch": "#f9a825", "drift": "#c62828", "broken_input": "#6a1b9a"}
CHAMPION_COLOURS: Final = {"before": "#b0bec5", "promotion": "#43a047", "forced": "#e53935", "rollback": "#43a047"}
TOLD: Final = {
    "drift begins": "drift begins", "verdict": "verdict", "promotion": "promotion", "sabotage": "sabotage (forced)", "rollback": "rollback",
    "kill": "kill -9", "alarm": "alarm",
}  # fmt: skip
CLOSE_S: Final = 0.055
"""Of the picture's width: labels nearer than this are written at different heights."""


def draw(result: dict[str, Any], path: Path) -> None:
    """Write the picture. KeyError where the result is of another shape."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    end = max([each["at_s"] for each in result["timeline"]] + [_end(run) for run in result["runs"]] + [1.0])
    figure, (clock, lanes) = plt.subplots(
        2, 1, figsize=(11, 5.6), sharex=True, height_ratios=(1.3, 2), layout="constrained"
    )
    _draw_clock(clock, result, end)
    _draw_lanes(lanes, result, end)
    for axes in (clock, lanes):
        axes.set_xlim(0, end * 1.01)
        axes.spines[["top", "right"]].set_visible(False)
    lanes.set_xlabel("seconds since the live stream began")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _draw_clock(axes: Any, result: dict[str, Any], end: float) -> None:
    """The simulated clock, with each thing that came about."""
    line = result["clock"]
    axes.plot([at for at, _ in line], [day for _, day in line], color="#37474f", lw=1.5)
    begins = next((each["at_s"] for each in result["timeline"] if each["what"] == "drift begins"), None)
    top = max([day for _, day in line] + [1.0])
    if begins is not None:
        axes.axvspan(begins, end * 1.01, color="#ffe0b2", alpha=0.5, lw=0)
        axes.text(
            end,
            top * 0.05,
            f"the world has changed: {result['kind'].replace('_', ' ')}",
            ha="right",
            color="#e65100",
            fontsize=9,
        )
    before, step = -1.0, 0
    for each in (moment for moment in result["timeline"] if moment["what"] in TOLD):
        near = before >= 0 and (each["at_s"] - before) < CLOSE_S * 2.2 * end
        step = (step + 1) % 3 if near else 0
        axes.axvline(each["at_s"], color="#546e7a", lw=0.8, ls=":")
        axes.annotate(
            TOLD[each["what"]], (each["at_s"], top * (1.3 - 0.13 * step)), fontsize=9, ha="left", va="top", xytext=(3, 0),
            textcoords="offset points",
        )  # fmt: skip
        before = each["at_s"]
    axes.set_ylim(0, top * 1.32)
    axes.set_ylabel("simulated day")
    axes.set_title(_title(result), loc="left", fontsize=10)


def _draw_lanes(axes: Any, result: dict[str, Any], end: float) -> None:
    places = {lane: len(LANES) - 1 - row for row, lane in enumerate(LANES)}
    for run in result["runs"]:
        lane = _lane(run)
        failed = run["status"] == "FAILURE"
        width = max(_end(run) - run["asked_s"], end / 400)
        axes.barh(
            places[lane], width, left=run["asked_s"], height=0.55, color="#e53935" if failed else RUN_COLOURS[lane],
            edgecolor="white", lw=0.4,
        )  # fmt: skip
    for verdict in result["verdicts"]:
        axes.plot(verdict["at_s"], places["verdicts"], "o", ms=7, color=VERDICT_COLOURS[verdict["status"]])
    for status in sorted({each["status"] for each in result["verdicts"]}, key=list(VERDICT_COLOURS).index):
        axes.plot([], [], "o", ms=7, color=VERDICT_COLOURS[status], label=status.replace("_", " "))
    for start, stop, version, kind in _champions(result, end):
        axes.barh(
            places["decides"],
            stop - start,
            left=start,
            height=0.55,
            color=CHAMPION_COLOURS[kind],
            edgecolor="white",
            lw=0.6,
        )
        if stop - start > 0.03 * end:
            axes.text((start + stop) / 2, places["decides"], f"version {version}", ha="center", va="center", fontsize=9)
    axes.set_yticks(list(places.values()), [NAMES[lane] for lane in places])
    axes.set_ylim(-0.6, len(LANES) - 0.4)
    axes.tick_params(axis="y", length=0)
    if result["verdicts"]:
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.16), ncols=4, frameon=False, fontsize=9)


def _champions(result: dict[str, Any], end: float) -> list[tuple[float, float, int, str]]:
    """(from, to, version, kind) of each champion within the picture."""
    found: list[tuple[float, float, int, str]] = []
    rows = result["promotions"]
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        start, stop = max(0.0, row["at_s"]), end if following is None else following["at_s"]
        if stop > start:
            found.append((start, stop, row["version"], "before" if row["at_s"] < 0 else row["kind"]))
    return found


def _lane(run: dict[str, Any]) -> str:
    if run["job"] == "retrain" or "training_set" in run["assets"]:
        return "training"
    return "days" if run["job"] == "ingest_days" or "features" in run["assets"] else "reports"


def _end(run: dict[str, Any]) -> float:
    return float(run["asked_s"]) + float(run["took_s"] or 0.0)


def _title(result: dict[str, Any]) -> str:
    counts, areas = result["counts"], result["pr_auc"]
    told = [
        f"{counts['sent']:,} payments: {result['failed_requests']} requests failed, {result['lost_messages']} messages lost"
    ]
    if areas.get("new") is not None:
        told.append(f"PR-AUC on the days after: {areas['old']:.2f} before, {areas['new']:.2f} now")
    return ";  ".join(told)
