"""A drift verdict as a page for people, and as a file for who serves it: `drift_results` reads that.

The page has what we judged, and Evidently's distributions to look closer.

Evidently is imported in the call (it takes seconds) and works on samples in memory. It cannot look at columns without
values and hardly notices missing ones, so those are shown by us. The page holds all of its scripts: it needs no network.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from fraud_pipeline import telemetry
from fraud_pipeline.domain.drift import DriftVerdict, FeatureDrift, Outcomes
from fraud_pipeline.errors import DependencyError, InputError

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS: Final = 5_000
"""Of each sample: the picture does not change with more, and Evidently takes 7 s for these."""
MISSING_SHOWN: Final = 0.01
"""Change of a missing rate worth a line."""
PREDICTION: Final = "prediction (raw score)"
TARGET: Final = "label"
_EMPTY_PAGE: Final = "<!doctype html><html><head><meta charset='utf-8'></head><body></body></html>"


@dataclass(frozen=True, slots=True, eq=False)
class ReportSample:
    """Columns by name (1-dimensional, equal lengths, NaN where missing), the champion's raw scores, and the labels."""

    columns: Mapping[str, NDArray[Any]]
    predictions: NDArray[Any] | None = None
    is_fraud: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


def render(
    verdict: DriftVerdict, path: Path, *, reference: ReportSample, current: ReportSample, title: str, seed: int = 0
) -> Path:
    """Write the page to `path`, whole or not at all, and return it. A verdict that judged nothing is a page without Evidently.

    Labels are compared where both samples have them. Raises InputError where no column has values in both samples,
    DependencyError where Evidently is not installed or the disk refuses.
    """
    before, now = _frame(reference, seed=seed), _frame(current, seed=seed)
    page = _evidently_page(verdict, before, now) if verdict.features else _EMPTY_PAGE
    start = page.index("<body>") + len("<body>")
    summary = _summary(verdict, title, empty=[c for c in _names(before) if _is_empty(before, now, c)])
    _write_whole(path, page[:start] + summary + page[start:])
    return path


def write_verdict(path: Path, verdict: DriftVerdict, *, champion: int, as_of: date, now: datetime) -> Path:
    """Write the verdict as JSON to `path`, whole or not at all, and return it. To be called after `render`.

    So that a verdict always has its page, at the same path but for the suffix. DependencyError where the disk refuses.
    """
    told = {"timestamp": now.isoformat(), "as_of": as_of.isoformat(), "champion": champion, **verdict.to_dict()}
    _write_whole(path, json.dumps(told, allow_nan=False))
    return path


def _frame(sample: ReportSample, *, seed: int) -> pd.DataFrame:
    import pandas as pd

    rows = np.arange(len(sample))
    if len(rows) > MAX_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MAX_ROWS, replace=False))
    columns = {name: np.asarray(values)[rows].astype(np.float64) for name, values in sample.columns.items()}
    if sample.predictions is not None:
        columns[PREDICTION] = np.asarray(sample.predictions)[rows].astype(np.float64)
    frame = pd.DataFrame(columns)
    if sample.is_fraud is not None:
        frame[TARGET] = np.where(np.asarray(sample.is_fraud)[rows], "fraud", "legitimate")
    return frame


def _names(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame.columns]


def _is_empty(before: pd.DataFrame, now: pd.DataFrame, column: str) -> bool:
    return column not in now or bool(before[column].isna().all() or now[column].isna().all())


def _evidently_page(verdict: DriftVerdict, before: pd.DataFrame, now: pd.DataFrame) -> str:
    shared = [c for c in _names(before) if not _is_empty(before, now, c)]
    inputs = [f.feature for f in verdict.features if f.counted and f.feature in shared]
    if not inputs:
        raise InputError("No input has values in both samples.", remedy="Compare days that have payments.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Evidently's own: of numpy, pandas and litestar
        metrics = _metrics(verdict, inputs, shared)
        from evidently import DataDefinition, Dataset, Report

        definition = DataDefinition(
            numerical_columns=[c for c in shared if c != TARGET], categorical_columns=[c for c in shared if c == TARGET]
        )
        samples = (Dataset.from_pandas(frame[shared], data_definition=definition) for frame in (now, before))
        with np.errstate(all="ignore"):
            return str(Report(metrics).run(*samples).get_html_str(as_iframe=False))


def _metrics(verdict: DriftVerdict, inputs: list[str], shared: list[str]) -> list[Any]:
    """The limits of the verdict, so that the page and the verdict say the same of each input."""
    telemetry.disable()
    try:
        from evidently.metrics import ValueDrift
        from evidently.presets import DataDriftPreset
    except ImportError as err:
        remedy = "Install the pipeline extra: pip install 'fraud-pipeline[pipeline]'."
        raise DependencyError("Evidently is not installed.", remedy=remedy) from err
    limits = verdict.limits
    few = [f.feature for f in verdict.features if f.measures.stattest == "jensenshannon" and f.feature in inputs]
    preset = DataDriftPreset(
        columns=inputs,
        drift_share=limits.share,
        num_method="wasserstein",
        num_threshold=limits.wasserstein,
        per_column_method=dict.fromkeys(few, "jensenshannon"),
        per_column_threshold=dict.fromkeys(few, limits.jensen_shannon),
        include_tests=False,
    )
    metrics: list[Any] = [preset]
    if PREDICTION in shared:
        metrics.append(ValueDrift(column=PREDICTION, method="wasserstein", threshold=limits.prediction))
    if TARGET in shared:
        metrics.append(ValueDrift(column=TARGET, method="jensenshannon", threshold=limits.jensen_shannon))
    return metrics


def _summary(verdict: DriftVerdict, title: str, *, empty: list[str]) -> str:
    """Our own part of the page, above Evidently's."""
    badge = f'<span class="status {verdict.status}">{verdict.status.replace("_", " ")}</span>'
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{badge} {verdict.reference_rows:,} reference payments, {verdict.current_rows:,} current ones</p>",
        "<ul>" + "".join(f"<li>{escape(reason)}</li>" for reason in verdict.reasons) + "</ul>",
        _outcome_table(verdict.reference_outcomes, verdict.current_outcomes),
        _fault_table(verdict.features),
        _missing_table(verdict.features),
        _label_driven_table(verdict.features),
    ]
    if not verdict.features:
        return f'<style>{_STYLE}</style><section class="verdict">{"".join(parts[:3])}</section>'
    if empty:
        parts.append(f"<p>Without values in one of the samples, so not shown below: {escape(', '.join(empty))}.</p>")
    parts.append(
        "<p>Below: Evidently's view of a sample by the same limits, without what is made from labels. It does not see "
        "missing values, nor whether chance explains a difference: the verdict above does.</p>"
    )
    return f'<style>{_STYLE}</style><section class="verdict">{"".join(parts)}</section>'


def _outcome_table(before: Outcomes | None, now: Outcomes | None) -> str:
    if before is None or now is None:
        return "<p>No mature labels since the champion was fitted: outcomes are not judged yet.</p>"
    names = {
        "fraud rate": "fraud_rate",
        "missed frauds per payment": "missed_rate",
        "recall": "recall",
        "precision": "precision",
    }
    rows = [
        ("payments", f"{before.payments:,}", f"{now.payments:,}"),
        ("frauds", f"{before.frauds:,}", f"{now.frauds:,}"),
    ]
    rows += [(name, f"{getattr(before, field):.2%}", f"{getattr(now, field):.2%}") for name, field in names.items()]
    return _table("Outcomes of mature labels", ("", "reference", "current"), rows)


def _fault_table(features: tuple[FeatureDrift, ...]) -> str:
    """Broken inputs with the days that show it; nothing where none is broken."""
    rows = [(f.feature, str(f.fault), _day(f.since), _day(f.until)) for f in features if f.broken]
    return _table("Broken inputs", ("input", "fault", "since", "until"), rows) if rows else ""


def _day(day: date | None) -> str:
    return "" if day is None else day.isoformat()


def _missing_table(features: tuple[FeatureDrift, ...]) -> str:
    changed = [f for f in features if abs(f.measures.missing_rise) >= MISSING_SHOWN]
    rows = [
        (
            f.feature,
            f"{f.measures.reference_missing:.1%}",
            f"{f.measures.current_missing:.1%}",
            "yes" if f.broken else "",
        )
        for f in sorted(changed, key=lambda f: -abs(f.measures.missing_rise))
    ]
    if not rows:
        return "<p>No input is missing more or less often than before.</p>"
    return _table("Missing values that changed", ("input", "reference", "current", "broken"), rows)


def _label_driven_table(features: tuple[FeatureDrift, ...]) -> str:
    rows = [
        (f.feature, f.measures.stattest, f"{f.measures.score:.3f}", f"{f.measures.reference_mean:.4g}", f"{f.measures.current_mean:.4g}")
        for f in features
        if not f.counted
    ]  # fmt: skip
    if not rows:
        return ""
    headings = ("input", "measure", "distance", "reference mean", "current mean")
    return _table("Made from labels: they move with every campaign, and do not count", headings, rows)


def _table(caption: str, headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in headings)
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    return f"<details open><summary>{escape(caption)}</summary><table><tr>{head}</tr>{body}</table></details>"


def _write_whole(path: Path, page: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
            written = Path(file.name)
            try:
                file.write(page)
                file.flush()
                os.fsync(file.fileno())
                written.chmod(0o644)
                written.replace(path)
            except BaseException:
                written.unlink(missing_ok=True)
                raise
    except OSError as err:
        raise DependencyError(f"{path} cannot be written: {err}.", remedy="See whether the disk has room.") from err


_STYLE: Final = """
.verdict{font:15px/1.5 Roboto,Helvetica,Arial,sans-serif;max-width:1200px;margin:24px auto 0;padding:0 24px;color:#222}
.verdict h1{font-size:24px;font-weight:500;margin:0 0 8px}
.verdict .status{display:inline-block;padding:2px 12px;border-radius:12px;color:#fff;font-weight:600;margin-right:8px}
.verdict .stable{background:#2e7d32}.verdict .watch{background:#b26a00}
.verdict .drift{background:#c62828}.verdict .broken_input{background:#6a1b9a}
.verdict summary{font-weight:600;margin:12px 0 4px;cursor:pointer}
.verdict table{border-collapse:collapse}
.verdict th,.verdict td{text-align:left;padding:3px 16px 3px 0;border-bottom:1px solid #ddd}
.verdict td+td{font-variant-numeric:tabular-nums}
"""
