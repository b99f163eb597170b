"""Plots of daily datasets, as PNG bytes for people. Imports matplotlib only when something is drawn."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

INK, ACCENT, WARNING, PALE = "#1f2933", "#3b6fb5", "#c8553d", "#cfd8e3"
DOTS_PER_INCH = 110


def daily_bars(values: Mapping[date, float], *, title: str, marked: Sequence[date] = (), newest: int = 120) -> bytes:
    """A bar a day for the newest days; `marked` ones (failed checks) stand out."""
    figure, axis = _figure(8.0, 2.6)
    days = sorted(values)[-newest:]
    bad = set(marked)
    axis.bar(days, [values[day] for day in days], width=0.85, color=[WARNING if day in bad else ACCENT for day in days])
    axis.set_title(title, loc="left", fontsize=10, color=INK)
    axis.margins(x=0.01)
    figure.autofmt_xdate(rotation=0, ha="center")
    return _png(figure)


def ranked_bars(values: Mapping[str, float], *, title: str, shown: int = 15) -> bytes:
    """Names with the largest values, largest on top."""
    largest = sorted(values.items(), key=lambda item: -item[1])[:shown][::-1]
    figure, axis = _figure(8.0, 0.6 + 0.24 * max(1, len(largest)))
    axis.barh([name for name, _ in largest], [value for _, value in largest], color=ACCENT, height=0.75)
    axis.set_title(title, loc="left", fontsize=10, color=INK)
    return _png(figure)


def periods(spans: Mapping[str, tuple[date, date]], frauds: Mapping[date, float], *, title: str) -> bytes:
    """Frauds a day, with named spans (first day, day after the last) shaded behind them."""
    figure, axis = _figure(8.0, 2.8)
    days = sorted(frauds)
    colours = ("#dbe7f5", "#e7f3e1", "#fbe9d7", "#eee3f5")
    for (name, (start, end)), colour in zip(spans.items(), colours, strict=False):
        axis.axvspan(start, end, color=colour, zorder=0)
        axis.text(start, 1.01, f" {name}", transform=axis.get_xaxis_transform(), fontsize=8, color=INK, va="bottom")
    axis.bar(days, [frauds[day] for day in days], width=0.85, color=WARNING)
    axis.set_title(title, loc="left", fontsize=10, color=INK, pad=16)
    axis.margins(x=0.01)
    figure.autofmt_xdate(rotation=0, ha="center")
    return _png(figure)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # not pyplot: no global state, no window system

    figure = Figure(figsize=(width, height), layout="constrained")
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(PALE)
    axis.tick_params(labelsize=8, colors=INK, length=0)
    axis.grid(axis="y", color=PALE, linewidth=0.5)
    axis.set_axisbelow(True)
    return figure, axis


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return buffer.getvalue()
