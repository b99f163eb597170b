"""What the drift reports found, read from the files beside their pages: for who serves it without Dagster and Evidently.

The fields of `status` are those that users of other drift APIs know; `status` and `reasons` are our verdict.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from fraud_pipeline.errors import DependencyError, IntegrityError, NotFound

if TYPE_CHECKING:
    from fraud_pipeline.adapters.ledger import Ledger
    from fraud_pipeline.domain.drift_episode import DriftEpisode

FOLDER: Final = "drift"
NEWEST: Final = 100
"""Reports that are looked at: three months of daily ones."""
SHOWN_FEATURES: Final = 10
_NAME: Final = re.compile(r"\d{4}-\d\d-\d\d-version-\d{1,10}")
_LONGEST_NAME: Final = 40
_FIGURES: Final = (
    "timestamp", "as_of", "champion", "status", "dataset_drift_detected", "dataset_drift_share", "num_features_checked",
    "num_features_drifted", "reference_rows", "current_rows", "drifted_features",
)  # fmt: skip
_REMEDY: Final = "`fraud run` writes one; so does the job `monitor` in Dagster (POST /drift/run)."


class DriftResults:
    """The drift reports under `settings.reports_dir`, with the ledger's episodes. Threads may share it.

    Keep one: it reads only the files that changed.
    """

    def __init__(self, reports_dir: Path, ledger: Ledger) -> None:
        self._folder = reports_dir / FOLDER
        self._ledger = ledger
        self._read: dict[Path, tuple[int, dict[str, Any]]] = {}  # figures by file, with its time of change

    def status(self) -> dict[str, Any]:
        """The newest report, whole. Raises NotFound before the first, IntegrityError for a damaged file."""
        newest, _ = self._newest()
        return _load(newest)

    def report_path(self, report: str | None = None) -> Path:
        """The page of the newest report, or of the one of that name (`2026-03-08-version-3`). Raises NotFound."""
        if report is not None:
            page = self._folder / f"{report}.html"
            if not _NAME.fullmatch(report) or not page.is_file():
                raise NotFound(f"There is no drift report {report[:_LONGEST_NAME]!r}.", remedy=_REMEDY)
            return page
        newest, _ = self._newest()
        page = newest.with_suffix(".html")
        if not page.is_file():
            raise NotFound(f"The page {page} of the newest drift report is gone.", remedy=_REMEDY)
        return page

    def stats(self) -> dict[str, Any]:
        """How drift went: the newest reports in figures, the features that drift most, the episodes and their retrainings.

        DependencyError where the ledger does not answer.
        """
        figures = sorted((figure for _, figure in self._figures()), key=_moment, reverse=True)
        episodes = self._ledger.episodes(limit=NEWEST)
        shares = [figure["dataset_drift_share"] for figure in figures]
        return {
            "reports": len(figures),
            "by_status": dict(Counter(figure["status"] for figure in figures)),
            "drift_detected": sum(figure["dataset_drift_detected"] for figure in figures),
            "first_timestamp": figures[-1]["timestamp"] if figures else None,
            "last_timestamp": figures[0]["timestamp"] if figures else None,
            "mean_drift_share": sum(shares) / len(shares) if shares else None,
            "max_drift_share": max(shares, default=None),
            "most_drifted_features": _most_drifted(figures),
            "history": [{**figure, "drifted_features": len(figure["drifted_features"])} for figure in figures],
            "open_episode": next((e.episode_id for e in episodes if e.closed_at is None), None),
            "episodes": [_episode(episode) for episode in episodes],
        }

    def _newest(self) -> tuple[Path, dict[str, Any]]:
        found = max(self._figures(), key=lambda pair: _moment(pair[1]), default=None)
        if found is None:
            raise NotFound("There is no drift report yet.", remedy=_REMEDY)
        return found

    def _figures(self) -> list[tuple[Path, dict[str, Any]]]:
        """The figures of the newest reports, by what they are of; only files that changed are read again."""
        held: dict[Path, tuple[int, dict[str, Any]]] = {}
        try:
            for path in sorted(self._folder.glob("*.json"))[-NEWEST:]:
                changed = path.stat().st_mtime_ns
                known = self._read.get(path)
                held[path] = known if known and known[0] == changed else (changed, _figures_of(_load(path)))
        except OSError as err:
            raise DependencyError(
                f"The drift reports in {self._folder} cannot be read: {err}.",
                remedy="Check the disk and the permissions.",
            ) from err
        self._read = held
        return [(path, figure) for path, (_, figure) in held.items()]


def _load(path: Path) -> dict[str, Any]:
    """A verdict as it was written. Raises IntegrityError for what is none."""
    try:
        told = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as err:
        raise _damaged(path) from err
    if not isinstance(told, dict) or not told.keys() >= {*_FIGURES, "reasons", "feature_details"}:
        raise _damaged(path)
    return told


def _damaged(path: Path) -> IntegrityError:
    return IntegrityError(f"{path} holds no drift verdict.", remedy="Remove it and materialize drift_report again.")


def _figures_of(told: dict[str, Any]) -> dict[str, Any]:
    return {name: told[name] for name in _FIGURES}


def _moment(figure: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(figure["timestamp"])


def _most_drifted(figures: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    counted = Counter(feature for figure in figures for feature in figure["drifted_features"])
    return [{"feature": feature, "reports": reports} for feature, reports in counted.most_common(SHOWN_FEATURES)]


def _episode(episode: DriftEpisode) -> dict[str, Any]:
    told = asdict(episode)
    told["attempts"] = [_with_text_times(attempt) for attempt in told["attempts"]]
    return _with_text_times(told)


def _with_text_times(told: dict[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in told.items()}
