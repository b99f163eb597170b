"""One run from a warm champion to the rollback of a sabotaged one: what is waited for, in which order, and when it came."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from fraud_pipeline.domain.promotion import Promotion
from fraud_pipeline.errors import FraudError
from fraud_pipeline_tests.closed_loop import automation as seen
from fraud_pipeline_tests.closed_loop.automation import Automation, Run
from fraud_pipeline_tests.closed_loop.decisions import DecisionWatch
from fraud_pipeline_tests.closed_loop.feed import Gateway, LiveWorld
from fraud_pipeline_tests.closed_loop.harm import FAULTS, Place
from fraud_pipeline_tests.closed_loop.judging import Counts, compare_champions, count
from fraud_pipeline_tests.closed_loop.plan import Plan
from fraud_pipeline_tests.closed_loop.sabotage import promote_by_force, register_damaged
from fraud_pipeline_tests.closed_loop.stack import Stack
from fraud_pipeline_tests.faults.members import NotInTime, until

LOOK_S: Final = 0.5
STANDSTILL_S: Final = 1_800.0
"""No new day in the store for so long: the automation stands."""
SWAP_S: Final = 120.0
"""A swap takes two seconds and the next payment; the machine may be busy, or a process on its way back."""
ROLLBACK_S: Final = 900.0
DRAIN_S: Final = 300.0
log = logging.getLogger(__name__)
Tell = Callable[[str], None]


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


class ClosedLoop:
    """`run` once. `tell` gets a line for whoever watches."""

    def __init__(self, folder: Path, plan: Plan, end: date, tell: Tell) -> None:
        self.plan, self.end = plan, end
        self.result = Result(plan, end)
        self.stack = Stack(folder, plan)
        self._tell = tell
        self._began = self._wall = 0.0
        self._automation: Automation
        self._world: LiveWorld
        self._gateway: Gateway
        self._decisions: DecisionWatch

    def run(self) -> Result:
        started = time.monotonic()
        try:
            self._tell("starting PostgreSQL, Kafka, Valkey, code server, daemon, service, scorer and sink")
            self.stack.open()
            self._open()
            self._story()
        except NotInTime as err:
            self.result.broken.append(str(err))
        finally:
            self._end()
            self.stack.close()
            self.result.seconds = time.monotonic() - started
        return self.result

    # The story

    def _story(self) -> None:
        self._note("stream begins")
        self._until(lambda: self._world.days >= self.plan.calm_days, "the first days")
        if self.plan.kind != "stable":
            self._note("drift begins", self._world.day_began.get(self.plan.drift_on(self.end)))
        if self.plan.promotes:
            self._to_a_promotion()
        else:
            self._without_one()

    def _to_a_promotion(self) -> None:
        champion = self.champion_version
        self._until(lambda: self._verdict("drift", champion), "a verdict of drift")
        verdict = self._verdict("drift", champion)
        assert verdict is not None
        self._note("verdict", verdict.told, f"as of {verdict.as_of}: {'; '.join(verdict.reasons)}")
        self._harm("verdict")
        self._kill_where_asked()
        self._until(self._training, "a training that the sensor asked for")
        first = self._training()
        assert first is not None
        self._note(
            "run asked for", first.asked, f"tick of drift_retrain, episode {first.tags.get('fraud/drift_episode')}"
        )
        self._harm("training")
        self._until(lambda: self._promotion(champion), "a promotion")
        promotion = self._promotion(champion)
        assert promotion is not None
        training = self._run_of(promotion) or first
        if training.started:
            self._note("run starts", training.started)
        self.result.gates = self._automation.checks(training.run_id)
        self._note(
            "promotion",
            promotion.promoted_at.timestamp(),
            f"version {promotion.version}, gates passed: {promotion.reason}",
        )
        self._wait_for_swap(promotion, "")
        self._later_days(champion, promotion)
        if self.plan.sabotage:
            self._sabotage(promotion)

    def _without_one(self) -> None:
        if self.plan.kind == "sensor_fault":
            self._until(lambda: self._verdict("broken_input"), "a verdict of broken input")
            verdict = self._verdict("broken_input")
            assert verdict is not None
            self._note("verdict", verdict.told, f"as of {verdict.as_of}: {'; '.join(verdict.reasons)}")
            self._kill_where_asked()
            self._until(lambda: self._notices("broken_input"), "a notice of the broken input")
            self._note("alarm", None, self._notices("broken_input")[0][2])
        else:
            self._kill_where_asked()
        self._until(lambda: self._world.days >= self.plan.quiet_days, f"{self.plan.quiet_days} days without a training")

    def _later_days(self, before: int, promotion: Promotion) -> None:
        """Stream on, so that both champions can be compared on days that neither has seen."""
        first = self._world.now.date() + timedelta(days=1)
        wanted = first + timedelta(days=self.plan.later_days - 1)
        self._until(lambda: (self._automation.newest_day() or self.end) >= wanted, "later days in the store")
        self._note("later days", None, f"{first} to {wanted}")
        compared = compare_champions(
            self.stack, (before, promotion.version), first=first, last=wanted, frauds=self._world.frauds
        )
        old, new = compared.get(f"version_{before}"), compared.get(f"version_{promotion.version}")
        self.result.pr_auc = {"old": old, "new": new, **compared}

    def _sabotage(self, promotion: Promotion) -> None:
        damaged = register_damaged(self.stack, promotion.version)
        promote_by_force(self.stack, damaged)
        forced = self._automation.promotions()[-1]
        self._note("sabotage", forced.promoted_at.timestamp(), f"version {damaged} by force: {forced.reason}")
        self._wait_for_swap(forced, " to the damaged one")
        self._until(lambda: self._automation.promotions()[-1].kind == "rollback", "the rollback", patience_s=ROLLBACK_S)
        back = self._automation.promotions()[-1]
        self._note("rollback", back.promoted_at.timestamp(), f"to version {back.version}, by {back.who}: {back.reason}")
        if back.version != promotion.version:
            self.result.broken.append(f"rolled back to version {back.version} and not to {promotion.version}")
        self._wait_for_swap(back, " back")

    def _wait_for_swap(self, promotion: Promotion, where: str) -> None:
        """Until the service and the scorer decide by it, on payments that they had not seen before."""
        since, version = promotion.promoted_at.timestamp(), str(promotion.version)
        for route, who in (("rest", "service"), ("kafka", "scorer")):
            self._until(
                lambda route=route: self._decisions.first(route, version, since=since),  # type: ignore[misc]
                f"version {version} in the {who}", patience_s=SWAP_S,
            )  # fmt: skip
            self._note(f"{who} swaps{where}", self._decisions.first(route, version, since=since), f"version {version}")

    def _kill_where_asked(self) -> None:
        if self.plan.kill:
            self._note("kill", None, self.plan.kill)
            self.stack.supervisor.kill(self.stack.roles[self.plan.kill])

    def _harm(self, place: Place) -> None:
        fault = FAULTS.get(self.plan.fault)
        if fault is not None and fault.at == place:
            began = time.time()
            self._tell(f"fault: {self.plan.fault}")
            self._note("fault", began, fault.do(self))

    # What is looked for

    @property
    def champion_version(self) -> int:
        return self._automation.promotions()[-1].version

    def _verdict(self, status: str, champion: int | None = None) -> seen.Verdict | None:
        found = self._automation.verdicts(since=self._wall)
        return next((v for v in found if v.status == status and champion in (None, v.champion)), None)

    def _training(self) -> Run | None:
        return next(iter(self._automation.trainings(since=self._wall)), None)

    def _run_of(self, promotion: Promotion) -> Run | None:
        return next((run for run in self._automation.runs(since=self._wall) if run.run_id in promotion.who), None)

    def _promotion(self, before: int) -> Promotion | None:
        newest = self._automation.promotions()[-1]
        return None if newest.version == before else newest

    def _notices(self, kind: str) -> list[list[str]]:
        rows = self.stack.rows("SELECT kind, episode, title FROM notices ORDER BY at")
        return [[str(value) for value in row] for row in rows if row[0] == kind]

    # Waiting

    def _until(self, condition: Callable[[], object], what: str, *, patience_s: float | None = None) -> None:
        """Wait for it while days go by. NotInTime where the automation stands still, or the days are over."""
        self._tell(f"waiting for {what}")
        newest, moved = self._automation.newest_day(), time.monotonic()
        deadline = None if patience_s is None else time.monotonic() + patience_s
        while not self._holds(condition):
            self._look_at_the_clock()
            if self._world.failure is not None:
                raise self._world.failure
            day = self._automation.newest_day()
            if day != newest:
                newest, moved = day, time.monotonic()
                self._tell(f"waiting for {what}: day {self._world.days:.1f}, {newest} is in the store")
            if time.monotonic() - moved > STANDSTILL_S:
                raise NotInTime(f"{what}: no day has come into the store for {STANDSTILL_S:g} s")
            if deadline is None and self._world.days > self.plan.longest_days:
                raise NotInTime(f"{what}: not within {self.plan.longest_days} simulated days")
            if deadline is not None and time.monotonic() > deadline:
                raise NotInTime(f"{what}: not within {patience_s:g} s")
            time.sleep(LOOK_S)

    def _holds(self, condition: Callable[[], object]) -> bool:
        """Where PostgreSQL was killed, our own connections are broken once, too."""
        try:
            return bool(condition())
        except (FraudError, sa.exc.SQLAlchemyError):
            if not self.plan.fault.startswith("postgres"):
                raise
            return False

    def _look_at_the_clock(self) -> None:
        self.result.clock.append((round(time.time() - self._wall, 1), round(self._world.days, 2)))

    def _may_begin(self, day: date) -> bool:
        """The clock waits where more than `ahead` ended days are not in the store."""
        newest = self._newest or self.end - timedelta(days=1)
        return (day - newest).days - 1 <= self.plan.ahead

    @property
    def _newest(self) -> date | None:
        return self._automation.newest_day()

    def _note(self, what: str, at: float | None = None, detail: str = "") -> None:
        """`at` in s since 1970, or of the monotonic clock where it is one."""
        wall = time.time() if at is None else at if at > 1e9 else time.time() - (time.monotonic() - at)
        moment = Moment(what, round(wall - self._wall, 2), round(self._day_at(wall), 2), detail)
        self.result.moments.append(moment)
        self._tell(f"{moment.at_s:7.1f} s  day {moment.day:5.1f}  {what}  {detail}")
        log.info("%7.1f s  day %5.1f  %s  %s", moment.at_s, moment.day, what, detail)

    def _day_at(self, wall: float) -> float:
        """The simulated clock at a moment of the past, in days since the stream began."""
        began = {day: at - time.monotonic() + time.time() for day, at in self._world.day_began.items()}
        passed = [(day, at) for day, at in began.items() if at <= wall]
        if not passed:
            return 0.0
        day, at = max(passed)
        return (day - self.end).days + min(1.0, (wall - at) / self.plan.day_s)

    # Beginning and end

    def _open(self) -> None:
        stack, plan = self.stack, self.plan
        self._automation = Automation(stack.environment, stack.settings.ledger_url, stack.settings.home)
        self._gateway = Gateway(stack.ports["service"])
        self._decisions = DecisionWatch(
            stack.settings, stack.topics.decisions, plan.partitions, lambda each: self._world.sent.get(each, "unknown")
        )
        self._world = LiveWorld(
            stack.settings, stack.topics, self._gateway, world=plan.live_world(self.end), since=self.end, day_s=plan.day_s,
            rest_share=plan.rest_share, may_begin=self._may_begin, blocked=self._decisions.blocked,
        )  # fmt: skip
        self._decisions.start()
        self._wall = time.time()
        self._world.start()

    def _end(self) -> None:
        if not hasattr(self, "_world"):
            return
        world, decisions, result = self._world, self._decisions, self.result
        world.stop()
        try:
            until(
                lambda: all(decisions.count[each] for each in world.sent) and self._ledger_has_all(),
                "a decision for every payment, in the topic and in the ledger", patience_s=DRAIN_S,
            )  # fmt: skip
        except NotInTime as err:
            result.broken.append(str(err))
        decisions.stop()
        self._collect()
        self._judge()
        self._automation.close()

    def _ledger_has_all(self) -> bool:
        rows = self.stack.rows("SELECT count(*) FROM decisions WHERE role = 'decided'")
        return int(rows[0][0]) >= len(self._world.sent)

    def _collect(self) -> None:
        result, automation, world = self.result, self._automation, self._world
        result.counts = count(self.stack, world, self._gateway, self._decisions)
        result.verdicts = [
            {"as_of": v.as_of, "status": v.status, "champion": v.champion, "reasons": v.reasons, "at_s": round(v.told - self._wall, 1)}
            for v in automation.verdicts(since=self._wall)
        ]  # fmt: skip
        result.runs = [
            {"job": run.job, "status": run.status, "asked_s": round(run.asked - self._wall, 1), "run_id": run.run_id,
             "took_s": None if run.ended is None else round(run.ended - run.asked, 1), "assets": sorted(run.assets)}
            for run in automation.runs(since=self._wall)
        ]  # fmt: skip
        result.promotions = [
            {"kind": p.kind, "version": p.version, "previous_version": p.previous_version, "who": p.who, "reason": p.reason,
             "at_s": round(p.promoted_at.timestamp() - self._wall, 1)}
            for p in automation.promotions()
        ]  # fmt: skip
        result.notices = [
            [str(v) for v in row] for row in self.stack.rows("SELECT kind, episode, title FROM notices ORDER BY at")
        ]
        result.ticks = [seen.said(tick) for tick in automation.ticks()]
        result.restarts = [{"name": e.name, "code": e.code, "said": e.said} for e in self.stack.supervisor.ended]
        result.degraded = dict(self._decisions.degraded)
        result.decided = {
            f"version {version} {verdict}": n for (version, verdict), n in sorted(self._decisions.by_kind.items())
        }
        result.slowest_request_s, result.held_s = self._gateway.slowest_s, world.held_s
        result.days_of_stream = world.days

    def _judge(self) -> None:
        """Each promise that was not kept."""
        result, plan, counts = self.result, self.plan, self.result.counts
        assert counts is not None
        if not counts.whole:
            result.broken.append(f"payments: {asdict(counts)}")
        if counts.refused_attempts and plan.kill != "service":
            result.broken.append(
                f"{counts.refused_attempts} requests were refused once or more: {self._gateway.refused[:3]}"
            )
        trainings = self._automation.trainings(since=self._wall)
        if not plan.promotes and trainings:
            result.broken.append(f"{len(trainings)} trainings were started in a world that needed none")
        if result.restarts:
            names = sorted({each["name"] for each in result.restarts})
            result.broken.append(f"processes ended unasked: {', '.join(names)}")
        failed = [run["job"] for run in result.runs if run["status"] == "FAILURE"]
        if failed and not plan.kill and not plan.fault:
            result.broken.append(f"runs failed: {', '.join(failed)}")
