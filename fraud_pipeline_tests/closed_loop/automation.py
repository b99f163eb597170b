"""What the automation has done by now, read where it keeps it: Dagster's storage, the ledger and the store of days."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

import dagster as dg

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.domain.promotion import Promotion

NEWEST: Final = 50
TRAINING_JOB: Final = "retrain"
SENSOR: Final = "drift_retrain"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of Dagster. Times in s since 1970; None where it has not come so far."""

    run_id: str
    job: str
    status: str
    asked: float
    started: float | None
    ended: float | None
    tags: Mapping[str, str]
    assets: frozenset[str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one drift report said. `as_of` is the data's moment, `told` the machine's."""

    status: str
    champion: int
    as_of: date
    reasons: tuple[str, ...]
    told: float


class Automation:
    """Reads only. Use it from one thread."""

    def __init__(self, environment: Mapping[str, str], ledger_url: str, home: Path) -> None:
        os.environ.update(
            {name: value for name, value in environment.items() if "DAGSTER" in name}
        )  # dagster.yaml asks
        self._instance = dg.DagsterInstance.from_config(environment["DAGSTER_HOME"])
        self._ledger = Ledger.open(ledger_url)
        self._features = home / "data" / "features"

    def close(self) -> None:
        self._ledger.close()
        self._instance.dispose()

    def newest_day(self) -> date | None:
        """The newest day with features."""
        days = sorted(self._features.glob("day=*"))
        return date.fromisoformat(days[-1].name.removeprefix("day=")) if days else None

    def runs(self, *, since: float) -> list[Run]:
        """Those asked for since a moment, the oldest first."""
        found = self._instance.get_run_records(limit=10 * NEWEST)
        runs = [_run(record) for record in found]
        return sorted((run for run in runs if run.asked >= since), key=lambda run: run.asked)

    def trainings(self, *, since: float) -> list[Run]:
        return [run for run in self.runs(since=since) if run.job == TRAINING_JOB or "training_set" in run.assets]

    def verdicts(self, *, since: float) -> list[Verdict]:
        """Of the drift reports since a moment, the oldest first."""
        found = self._instance.fetch_materializations(dg.AssetKey("drift_report"), limit=10 * NEWEST).records
        return sorted((_verdict(each) for each in found if each.timestamp >= since), key=lambda each: each.told)

    def checks(self, run_id: str) -> dict[str, bool]:
        """The results of a run's asset checks."""
        found = self._instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        evaluations: list[Any] = [entry.dagster_event.event_specific_data for entry in found if entry.dagster_event]
        return {each.check_name: bool(each.passed) for each in evaluations}

    def ticks(self, sensor: str = SENSOR) -> Sequence[Any]:
        """A sensor's ticks, the newest first."""
        for state in self._instance.all_instigator_state():
            if state.instigator_name == sensor:
                return self._instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=NEWEST)
        return ()

    def promotions(self) -> list[Promotion]:
        """All of them, the oldest first."""
        return self._ledger.promotions()


def _run(record: Any) -> Run:
    run = record.dagster_run
    keys = frozenset(key.to_user_string() for key in run.asset_selection or ())
    return Run(
        run.run_id, run.job_name, run.status.value, record.create_timestamp.timestamp(), record.start_time, record.end_time,
        dict(run.tags), keys,
    )  # fmt: skip


def _verdict(record: Any) -> Verdict:
    metadata = record.asset_materialization.metadata
    return Verdict(
        metadata["status"].value, int(metadata["champion"].value), date.fromisoformat(str(metadata["as of"].value)),
        tuple(metadata["verdict"].value["reasons"]), record.timestamp,
    )  # fmt: skip


def said(tick: Any) -> str:
    """What a tick says to whoever looks at it."""
    return str(tick.skip_reason or ", ".join(tick.run_keys or ()) or tick.error or tick.status.value)


def at(moment: float) -> str:
    return datetime.fromtimestamp(moment).astimezone().isoformat(timespec="seconds")


def now() -> float:
    return time.time()
