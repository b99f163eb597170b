"""A run: a schedule of faults by seed, each with time to recover, and the judgement at the end."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, Final

from fraud_pipeline_tests.faults.judging import Content, Judgement, judge
from fraud_pipeline_tests.faults.kinds import FAULTS, Fault
from fraud_pipeline_tests.faults.members import Ended, NotInTime
from fraud_pipeline_tests.faults.rig import Plan, Rig, keep

OFTEN: Final = ("scorer_killed", "scorer_killed_for_good", "scorer_held", "broker_killed")
"""Twice as often as the others: where most can go wrong."""
TOGETHER: Final = 0.2
"""Share of faults that are not waited for: the next one comes in the middle of the recovery."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Happened:
    """One fault; `flowed_after_s`: until all that was produced by its end was decided, or None where the next one came first."""

    kind: str
    took_s: float
    flowed_after_s: float | None


@dataclass
class Report:
    """What a run found."""

    plan: Plan
    happened: list[Happened] = field(default_factory=list)
    produced: Mapping[str, int] = field(default_factory=dict)
    judgement: Judgement | None = None
    restarts: list[Ended] = field(default_factory=list)
    slow_stops: list[str] = field(default_factory=list)
    failure: str = ""
    kept: str = ""
    seconds: float = 0.0

    @property
    def equal(self) -> bool:
        return not self.failure and self.judgement is not None and self.judgement.equal

    def by_kind(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for kind in sorted({each.kind for each in self.happened}):
            times = [each.flowed_after_s for each in self.happened if each.kind == kind]
            known = [each for each in times if each is not None]
            found[kind] = {
                "faults": len(times),
                "median_s": round(median(known), 1) if known else None,
                "worst_s": round(max(known), 1) if known else None,
            }
        return found

    def to_json(self) -> dict[str, Any]:
        judged = self.judgement
        return {
            "seed": self.plan.seed, "faults": len(self.happened), "seconds": round(self.seconds), "equal": self.equal,
            "by_kind": self.by_kind(), "produced": dict(self.produced),
            "comparison": None if judged is None else judged.parity.to_json(),
            "rows": None if judged is None else judged.rows,
            "differences": None if judged is None else judged.differences,
            "dead_letters": None if judged is None else judged.dead_letters,
            "ended_unasked": [{"name": each.name, "code": each.code, "said": each.said} for each in self.restarts],
            "slow_stops": self.slow_stops, "failure": self.failure, "kept": self.kept,
        }  # fmt: skip


def run(folder: Path, plan: Plan, faults: int | Sequence[str], *, known: Mapping[str, Fault] = FAULTS) -> Report:
    """So many faults by the plan's seed, or these. `folder` is left as it is for who examines it."""
    report, started = Report(plan), time.monotonic()
    rig = Rig(folder, plan)
    kinds = schedule(plan.seed, faults, known) if isinstance(faults, int) else iter(faults)
    try:
        rig.open()
        _harm(rig, kinds, report, known)
        rig.drain()
        content = Content.of(rig)
        report.produced = dict(rig.feed.produced)
        report.judgement = judge(rig, content)
        if not report.equal:
            keep(folder, "topics.json", content.to_json())
    except NotInTime as err:
        report.failure = str(err)
        log.exception("the run ends here")
        rig.supervisor.abort()
    finally:
        report.restarts, report.slow_stops = list(rig.supervisor.ended), rig.slow_stops
        rig.close()
        report.seconds = time.monotonic() - started
        keep(folder, "report.json", report.to_json())
    return report


def schedule(seed: int, count: int, known: Mapping[str, Fault]) -> Iterator[str]:
    """Each kind once, those of OFTEN twice, shuffled; and so on until there are enough."""
    pick, bag = Random(seed), list[str]()
    for _ in range(count):
        if not bag:
            bag = [*known, *(kind for kind in OFTEN if kind in known)]
            pick.shuffle(bag)
        yield bag.pop()


def _harm(rig: Rig, kinds: Iterator[str], report: Report, known: Mapping[str, Fault]) -> None:
    waiting: list[tuple[str, float, float]] = []
    for kind in kinds:
        started = time.monotonic()
        log.info("fault %d: %s", len(report.happened) + len(waiting) + 1, kind)
        known[kind](rig)
        waiting.append((kind, started, time.monotonic() - started))
        if rig.random.random() < TOGETHER:
            report.happened += [Happened(kind, took, None) for kind, _, took in waiting]
            waiting.clear()
            continue
        rig.wait_until_decided(f"decisions after {kind}")
        log.info("   decided after %.1f s", time.monotonic() - started)
        report.happened += [Happened(kind, took, time.monotonic() - begun) for kind, begun, took in waiting]
        waiting.clear()


def forget(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
