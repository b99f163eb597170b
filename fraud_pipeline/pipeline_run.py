"""What `fraud run` does: days, a training, a promotion, reports; reached by the command line without importing Dagster.

Everything that needs Dagster stands in `defs.run` and is imported when a run begins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from fraud_pipeline.dagster_home import prepare_dagster_home
from fraud_pipeline.settings import Settings

__all__ = ["Progress", "RunReport", "export_training_set", "prepare_dagster_home", "run_pipeline"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, and how many of how many steps are done."""


@dataclass(frozen=True)
class RunReport:
    """What a run did. `promoted`: the champion was trained on these very days, by this run or by an earlier one.

    `gates` are the results of the candidate (name, passed, severity, value, limit, explanation), `seconds` by stage.
    """

    champion_version: int | None
    candidate_version: int | None
    promoted: bool
    unchanged: bool
    as_of: date
    gates: tuple[Any, ...]
    metrics: Mapping[str, Any]
    rows: Mapping[str, int]
    seconds: Mapping[str, float]
    reason: str
    home: Path
    failed_days: tuple[date, ...] = ()
    runs: Mapping[str, str] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """The outcome in one line."""
        total = sum(self.seconds.values())
        return f"{self.reason} ({total:,.0f} s; {self.rows.get('transactions', 0):,} payments as of {self.as_of})"


def run_pipeline(
    settings: Settings,
    *,
    from_scratch: bool = False,
    start: date | None = None,
    end: date | None = None,
    retrain: bool = True,
    as_of: date | None = None,
    shuffle_labels: bool = False,
    progress: Progress | None = None,
) -> RunReport:
    """Materialize the days from `start` to before `end`, train as of `as_of` and promote what passes the gates.

    Without bounds: the whole world (simulated first, by the settings, where the home is empty), and `as_of` its end. What
    is there already and still current is left as it is. `shuffle_labels` is the fire drill: its candidate must fail.
    Raises FraudError: the world, the days or the frauds do not suffice, or a system does not answer.
    """
    started = time.perf_counter()
    prepare_dagster_home(settings)
    from fraud_pipeline.defs.run import run_stages

    report = run_stages(
        settings,
        from_scratch=from_scratch,
        start=start,
        end=end,
        retrain=retrain,
        as_of=as_of,
        shuffle_labels=shuffle_labels,
        now=datetime.now(UTC),
        progress=progress or _unseen,
    )
    rest = time.perf_counter() - started - sum(report.seconds.values())
    return replace(report, seconds={**report.seconds, "everything else": round(rest, 2)})


def export_training_set(settings: Settings, *, as_of: date, path: Path) -> dict[str, Any]:
    """Write payments, features and labels as known at the midnight that begins `as_of` to one Parquet file."""
    from fraud_pipeline.adapters.training_export import write_training_set
    from fraud_pipeline.defs.resources import resources_for

    builder = resources_for(settings)["builder"]
    return write_training_set(builder, as_of=as_of, path=path)


def _unseen(stage: str, done: int, total: int) -> None:
    """Progress that nobody watches."""
