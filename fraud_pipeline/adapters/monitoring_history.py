"""How the champions did over the as-of dates: the drift verdicts and performance reports beside each other, as files.

One file per report and version under the home's reports, written whole or not at all; a report of the same day replaces its
own. Knows nothing of Dagster.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

import orjson

from fraud_pipeline.adapters.drift_results import FOLDER as DRIFT_FOLDER
from fraud_pipeline.errors import DependencyError

PERFORMANCE_FOLDER: Final = "performance"
NEWEST: Final = 120
"""Reports in the chart: four months of daily ones."""


@dataclass(frozen=True, slots=True)
class Band:
    """A value and its 95 % interval; NaN where there is none."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan

    @classmethod
    def of(cls, told: Any) -> Band:
        """From a metric as JSON: an object of value, low and high (null: not a number), or nothing."""
        numbers = told if isinstance(told, dict) else {}
        return cls(
            *(math.nan if numbers.get(name) is None else float(numbers[name]) for name in ("value", "low", "high"))
        )


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """What was reported as of a day. NaN and empty where a report is not there or found nothing."""

    as_of: date
    champion: int
    status: str = ""
    drifted_share: float = math.nan
    score_distance: float = math.nan
    pr_auc: Band = Band()
    expected_pr_auc: float = math.nan
    recall: Band = Band()
    expected_recall: Band = Band()


def write_performance(folder: Path, told: dict[str, Any], *, champion: int, as_of: date) -> Path:
    """Write a performance report as JSON. DependencyError where the disk refuses."""
    path = folder / PERFORMANCE_FOLDER / f"{as_of.isoformat()}-version-{champion}.json"
    content = json.dumps({"as_of": as_of.isoformat(), "champion": champion, **plain(told)}, allow_nan=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).chmod(0o644)
        os.replace(file.name, path)
    except OSError as err:
        raise DependencyError(f"{path} cannot be written: {err}.", remedy="See whether the disk has room.") from err
    return path


def read_history(folder: Path) -> list[HistoryPoint]:
    """The newest reports by day; of a day with several champions the newest version's. Damaged files are left out."""
    drift, performance = _newest(folder / DRIFT_FOLDER), _newest(folder / PERFORMANCE_FOLDER)
    points = []
    for day in sorted(drift.keys() | performance.keys())[-NEWEST:]:
        verdict, measured = drift.get(day, {}), performance.get(day, {})
        found, expected = measured.get("found") or {}, measured.get("expected_of_mature") or {}
        points.append(
            HistoryPoint(
                as_of=day,
                champion=max(verdict.get("champion", 0), measured.get("champion", 0)),
                status=str(verdict.get("status", "")),
                drifted_share=_number(verdict.get("dataset_drift_share")),
                score_distance=_number((verdict.get("prediction") or {}).get("drift_score")),
                pr_auc=Band.of(found.get("pr_auc")),
                expected_pr_auc=Band.of(expected.get("pr_auc")).value,
                recall=Band.of(found.get("recall")),
                expected_recall=Band.of(expected.get("recall")),
            )
        )
    return points


def plain(told: Any) -> Any:
    """JSON's own types: what is not a number becomes null."""
    if isinstance(told, dict):
        return {str(name): plain(value) for name, value in told.items()}
    if isinstance(told, list | tuple):
        return [plain(value) for value in told]
    if isinstance(told, float) and not math.isfinite(told):
        return None
    return told


def _newest(folder: Path) -> dict[date, dict[str, Any]]:
    found: dict[date, dict[str, Any]] = {}
    for path in sorted(folder.glob("????-??-??-version-*.json"))[-2 * NEWEST :]:
        try:
            told = orjson.loads(path.read_bytes())
            day, champion = date.fromisoformat(told["as_of"]), int(told["champion"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a chart of what can be read is better than none; who serves a report names a damaged one
        if champion >= found.get(day, {}).get("champion", 0):
            found[day] = told
    return found


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
