"""One run from a warm champion to the rollback of a sabotaged one: what is waited for, in which order, and when it came."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from fraud_pipeline.domain.promotion import Promotion
from fraud_pipeline.errors import FraudError
from fraud_pipeline_tests.closed_loop import automation as seen
from fraud_pipeline_tests.closed_loop.automation import Automation, Run
from fraud_pipeline_tests.closed_loop.decisions import DecisionWatch
from fraud_pipeline_tests.closed_loop.feed import Gateway, LiveWorld, record_history_labels
from fraud_pipeline_tests.closed_loop.harm import FAULTS, Place
from fraud_pipeline_tests.closed_loop.judging import compare_champions
from fraud_pipeline_tests.closed_loop.plan import Plan
from fraud_pipeline_tests.closed_loop.result import Moment, Parts, Result, collect, judge
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


class ClosedLoop:
    """`run` once. `tell` gets a line for whoever watches."""

    def __init__(self, folder: Path, plan: Plan, end: date, tell: Tell) -> None:
        self.plan, self.end = plan, end
        self.result = Result(plan, end)
        self.stack = Stack(folder, plan)
        self._tell = tell
        self._wall = 0.0
        self._labels_are_told = False
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
        # Only now: a ledger without a stream would take them for its own log's.
        self._until(self._every_partition_has_closed_a_minute, "closed minutes of every partition in the ledger")
        record_history_labels(self.stack.settings)
        self._labels_are_told = True
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

    def _every_partition_has_closed_a_minute(self) -> bool:
        rows = self.stack.rows("SELECT count(DISTINCT writer) FROM minute_closings")
        return int(rows[0][0]) >= self.plan.partitions

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
        if day > self.end and not self._labels_are_told:
            return False
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
            rest_share=plan.rest_share, may_begin=self._may_begin, newly_blocked=self._decisions.newly_blocked,
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
        parts = Parts(self.stack, self._automation, world, self._gateway, decisions, self._wall)
        collect(result, parts)
        judge(result, parts)
        self._automation.close()

    def _ledger_has_all(self) -> bool:
        rows = self.stack.rows("SELECT count(*) FROM decisions WHERE role = 'decided'")
        return int(rows[0][0]) >= len(self._world.sent)
