"""What a run showed: its timeline, its counts, what the platform said of itself, and each promise that was not kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

from fraud_pipeline_tests.closed_loop.automation import Automation, said
from fraud_pipeline_tests.closed_loop.decisions import DecisionWatch
from fraud_pipeline_tests.closed_loop.feed import Gateway, LiveWorld
from fraud_pipeline_tests.closed_loop.judging import Counts, count
from fraud_pipeline_tests.closed_loop.plan import Plan
from fraud_pipeline_tests.closed_loop.stack import Stack


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that came about: `at_s` after the stream began, `day` by the simulated clock since then."""

    what: str
    at_s: float
    day: float
    detail: str = ""


@dataclass
class Result:
    """What a run showed. `broken` names each promise that was not kept; empty where all were."""

    plan: Plan
    end: date
    moments: list[Moment] = field(default_factory=list)
    clock: list[tuple[float, float]] = field(default_factory=list)
    """(seconds, simulated day), as the clock went."""
    broken: list[str] = field(default_factory=list)
    counts: Counts | None = None
    pr_auc: dict[str, Any] = field(default_factory=dict)
    gates: dict[str, bool] = field(default_factory=dict)
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    promotions: list[dict[str, Any]] = field(default_factory=list)
    notices: list[list[str]] = field(default_factory=list)
    restarts: list[dict[str, Any]] = field(default_factory=list)
    ticks: list[str] = field(default_factory=list)
    degraded: dict[str, int] = field(default_factory=dict)
    decided: dict[str, int] = field(default_factory=dict)
    slowest_request_s: float = 0.0
    days_of_stream: float = 0.0
    held_s: float = 0.0
    seconds: float = 0.0
    kept: str = ""

    @property
    def kept_its_promise(self) -> bool:
        return not self.broken

    def moment(self, what: str) -> Moment | None:
        return next((each for each in self.moments if each.what == what), None)

    def since_drift(self, what: str) -> dict[str, float] | None:
        """When it came, from the drift's first day on."""
        begun, came = self.moment("drift begins"), self.moment(what)
        if begun is None or came is None:
            return None
        return {"seconds": round(came.at_s - begun.at_s, 1), "days": round(came.day - begun.day, 1)}

    def to_json(self) -> dict[str, Any]:
        counts = self.counts
        return {
            "kind": self.plan.kind, "kill": self.plan.kill, "fault": self.plan.fault,
            "kept_its_promise": self.kept_its_promise, "broken": self.broken,
            "promoted": any(each["kind"] == "promotion" and each["previous_version"] for each in self.promotions),
            "rolled_back": any(each["kind"] == "rollback" for each in self.promotions),
            "failed_requests": None if counts is None else counts.failed_requests,
            "lost_messages": None if counts is None else counts.lost_messages,
            "counts": None if counts is None else asdict(counts),
            "pr_auc": self.pr_auc, "gates": self.gates,
            "since_drift": {each.what: self.since_drift(each.what) for each in self.moments},
            "timeline": [asdict(each) for each in self.moments], "clock": self.clock, "verdicts": self.verdicts, "runs": self.runs,
            "promotions": self.promotions, "notices": self.notices, "ticks": self.ticks, "restarts": self.restarts,
            "degraded": self.degraded, "decided": self.decided, "slowest_request_s": round(self.slowest_request_s, 3),
            "days_of_stream": round(self.days_of_stream, 2), "clock_held_s": round(self.held_s, 1),
            "seconds": round(self.seconds), "plan": self.plan.to_json(), "world_ended": self.end, "kept": self.kept,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run is looked at with. `wall`: when its stream began, s since 1970."""

    stack: Stack
    automation: Automation
    world: LiveWorld
    gateway: Gateway
    decisions: DecisionWatch
    wall: float


def collect(result: Result, parts: Parts) -> None:
    """Fill in what is known when all is over."""
    automation, stack, wall = parts.automation, parts.stack, parts.wall
    result.counts = count(stack, parts.world, parts.gateway, parts.decisions)
    result.verdicts = [
        {"as_of": v.as_of, "status": v.status, "champion": v.champion, "reasons": v.reasons, "at_s": round(v.told - wall, 1)}
        for v in automation.verdicts(since=wall)
    ]  # fmt: skip
    result.runs = [
        {"job": run.job, "status": run.status, "asked_s": round(run.asked - wall, 1), "run_id": run.run_id,
         "started_s": None if run.started is None else round(run.started - wall, 1),
         "took_s": None if run.ended is None else round(run.ended - run.asked, 1), "assets": sorted(run.assets)}
        for run in automation.runs(since=wall)
    ]  # fmt: skip
    result.promotions = [
        {"kind": p.kind, "version": p.version, "previous_version": p.previous_version, "who": p.who, "reason": p.reason,
         "at_s": round(p.promoted_at.timestamp() - wall, 1)}
        for p in automation.promotions()
    ]  # fmt: skip
    notices = stack.rows("SELECT kind, episode, title FROM notices ORDER BY at")
    result.notices = [[str(value) for value in row] for row in notices]
    result.ticks = [said(tick) for tick in automation.ticks()]
    result.restarts = [{"name": e.name, "code": e.code, "said": e.said} for e in stack.supervisor.ended]
    result.degraded = dict(parts.decisions.degraded)
    decided = sorted(parts.decisions.by_kind.items())
    result.decided = {f"version {version} {verdict}": n for (version, verdict), n in decided}
    result.slowest_request_s, result.held_s = parts.gateway.slowest_s, parts.world.held_s
    result.days_of_stream = parts.world.days


def judge(result: Result, parts: Parts) -> None:
    """Each promise that was not kept."""
    plan, counts = result.plan, result.counts
    assert counts is not None
    if not counts.whole:
        result.broken.append(f"payments: {asdict(counts)}")
    if counts.refused_attempts and plan.kill != "service":
        result.broken.append(
            f"{counts.refused_attempts} requests were refused once or more: {parts.gateway.refused[:3]}"
        )
    trainings = parts.automation.trainings(since=parts.wall)
    if not plan.promotes and trainings:
        result.broken.append(f"{len(trainings)} trainings were started in a world that needed none")
    if plan.promotes and len(trainings) > 1 and not (plan.kill or plan.fault):
        result.broken.append(f"{len(trainings)} trainings were started where one was needed")
    if result.restarts:
        result.broken.append(f"ended unasked: {', '.join(sorted({each['name'] for each in result.restarts}))}")
    failed = [run["job"] for run in result.runs if run["status"] == "FAILURE"]
    if failed and not plan.kill and not plan.fault:
        result.broken.append(f"runs failed: {', '.join(failed)}")
