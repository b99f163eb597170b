"""The watch over a promoted model, one bounded step at a time: count what came, judge, and take the model back where it must be.

Everything that a step knows lies in the ledger, so any process may do the next one, and one that is killed leaves nothing
half done. MLflow is asked only for a bundle that this home does not have; its alias is a projection, set afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.watch_records import WatchRecord, find_watch, open_watches, write_watch
from fraud_pipeline.adapters.watched_answers import Place, count_answers, count_labels
from fraud_pipeline.adapters.watched_models import Fetch, WatchedModels, open_models
from fraud_pipeline.domain.promotion import Promotion, put_back_by_hand, rollback_target
from fraud_pipeline.domain.promotion_watch import WatchFinding, WatchLimits, WatchPromise, judge_watch
from fraud_pipeline.domain.watch_tally import WatchTally
from fraud_pipeline.errors import BundleError

STEP_S: Final = 0.5
"""How long one step counts; a tick is to take no more than a second."""
SETTLE: Final = timedelta(seconds=2)
"""Newer decisions are left for the next step: those of another writer may still be on their way with an earlier time."""


@dataclass(frozen=True)
class WatchStep:
    """What a step did. `said` is for people; `finding` is None where nothing could be judged; `behind`: more is to be counted.

    `alarm` is why a breach, or a promoted bundle that is gone, needs a person; empty where it does not.
    """

    said: str
    promotion: Promotion | None = None
    record: WatchRecord | None = None
    finding: WatchFinding | None = None
    rolled_back: Promotion | None = None
    behind: bool = False
    alarm: str = ""

    @property
    def tally(self) -> WatchTally | None:
        found = None if self.record is None else self.record.state.get("tally")
        return None if found is None else WatchTally.from_dict(dict(found))


@dataclass(frozen=True)
class WatchPolicy:
    """The limits, the alert budget, and who acts."""

    limits: WatchLimits
    budget: float
    who: str


def watch_step(
    ledger: Ledger, fetch: Fetch, *, policy: WatchPolicy, now: datetime, broken_input: str = "", for_s: float = STEP_S
) -> WatchStep:
    """Count for about `for_s` seconds, judge, and act. `broken_input`, where it is not empty, says what upstream is broken:
    then no model is taken back, for the one before would read the same.

    DependencyError where the ledger, or the MLflow that a bundle must come from, is away: nothing is changed then.
    """
    history = ledger.promotions()
    if not history:
        return WatchStep("There is no champion yet.")
    promotion = history[-1]
    _close_superseded(ledger, promotion, now)
    if promotion.kind == "rollback":
        return WatchStep(f"Version {promotion.version} is champion again by a rollback: it is not watched.", promotion)
    record = find_watch(ledger.database, promotion.promotion_id)
    if record is not None and record.verdict != "watching":
        return WatchStep(f"The watch over version {promotion.version} is over: {record.verdict}.", promotion, record)
    target = rollback_target(history)
    try:
        models = open_models(fetch, promotion, target)
    except BundleError as err:
        alarm = f"The bundle of champion {promotion.version} cannot be had: {err.message}"
        return WatchStep(
            f"{alarm} Who has it loaded goes on with it; nothing can be watched.", promotion, record, alarm=alarm
        )
    record = record or _begun(promotion, models, policy, now)
    counted, behind = _count(ledger, record, promotion, models, now, for_s)
    state = counted.state
    finding = judge_watch(
        WatchTally.from_dict(dict(state["tally"])), WatchPromise.from_dict(dict(state["promise"])), policy.limits
    )
    return _act(
        ledger, counted, finding, history, models, policy=policy, now=now, broken_input=broken_input, behind=behind
    )


def watch_evidence(finding: WatchFinding, tally: WatchTally, *, action: str) -> dict[str, Any]:
    """What a watch and a rollback keep: the verdict, each limit with its value, the counts, and what was done."""
    shown = {name: value for name, value in tally.to_dict().items() if name not in ("scores", "other_scores")}
    return {**finding.to_dict(), "counted": {**shown, "days": round(tally.days, 2)}, "action": action}


def _begun(promotion: Promotion, models: WatchedModels, policy: WatchPolicy, now: datetime) -> WatchRecord:
    """A watch that has counted nothing. It reads from the promotion on, or from now where that lies ahead of the clock."""
    since = min(promotion.promoted_at, now)
    state = {
        "since": since.isoformat(),
        "promise": asdict(models.promise(promotion, budget=policy.budget)),
        "tally": WatchTally().to_dict(),
        "place": Place(since).to_dict(),
    }
    return WatchRecord(promotion.promotion_id, "watching", now, now, state)


def _count(
    ledger: Ledger, record: WatchRecord, promotion: Promotion, models: WatchedModels, now: datetime, for_s: float
) -> tuple[WatchRecord, bool]:
    state = dict(record.state)
    promise, tally = WatchPromise.from_dict(dict(state["promise"])), WatchTally.from_dict(dict(state["tally"]))
    place, since = Place.from_dict(dict(state["place"])).not_ahead_of(now), datetime.fromisoformat(state["since"])
    ends, version = time.monotonic() + for_s, promotion.version
    more = True
    while more and time.monotonic() < ends:
        part, place, more = count_answers(
            ledger.database, version, place, until=now - SETTLE, models=models, promise=promise
        )
        tally = tally.plus(part)
    behind, more = more, not more  # labels of decisions that are not counted yet wait for them
    while more and time.monotonic() < ends:
        part, place, more = count_labels(ledger.database, version, place, since=since, models=models)
        tally = tally.plus(part)
    state |= {"tally": tally.to_dict(), "place": place.to_dict()}
    return replace(record, state=state, updated_at=now), behind or more


def _act(
    ledger: Ledger, record: WatchRecord, finding: WatchFinding, history: Sequence[Promotion], models: WatchedModels, *,
    policy: WatchPolicy, now: datetime, broken_input: str, behind: bool,
) -> WatchStep:  # fmt: skip
    promotion, rollback, alarm, action = history[-1], None, "", ""
    tally = WatchTally.from_dict(dict(record.state["tally"]))
    if finding.verdict == "breached" and broken_input:
        action = f"not taken back: the input is broken, which the champion before would read too ({broken_input})"
        finding = WatchFinding("watching", finding.checks, f"{finding.reason} It is {action}.")
    elif finding.verdict == "breached":
        target, why_not = _target(history, models)
        if target is None:
            alarm = f"Version {promotion.version} breaks its limits and stays champion: {why_not}. {finding.reason}"
            action = f"not taken back: {why_not}"
        else:
            action = f"rolled back to version {target.version}"
            rollback = _rollback(promotion, target, finding, tally, policy, now)
    written = replace(record, verdict=finding.verdict, evidence=watch_evidence(finding, tally, action=action))
    unchanged = record.revision > 0 and finding.verdict == "watching" and _same(ledger, written)
    if not unchanged and not write_watch(ledger.database, written, rollback=rollback):
        return WatchStep("Another daemon has just acted on this watch.", promotion, behind=behind)
    said = f"Version {promotion.version}: {finding.reason}"
    if rollback is not None:
        said = f"Version {promotion.version} was {action}: {finding.reason}"
    stored = find_watch(ledger.database, promotion.promotion_id)
    return WatchStep(alarm or said, promotion, stored, finding, rollback, behind, alarm)


def _same(ledger: Ledger, record: WatchRecord) -> bool:
    """Whether the ledger says all of it already: a tick in which nothing came writes nothing."""
    before = find_watch(ledger.database, record.promotion_id)
    return before is not None and (dict(before.state), dict(before.evidence)) == (
        dict(record.state),
        dict(record.evidence),
    )


def _target(history: Sequence[Promotion], models: WatchedModels) -> tuple[Promotion | None, str]:
    """Whom to go back to, or why to nobody."""
    if put_back_by_hand(history):
        return None, "a person made it champion again after it had been rolled back"
    target = rollback_target(history)
    if target is None:
        return None, "there is no champion before it to go back to"
    if models.gone:
        return None, models.why_alone
    return target, ""


def _rollback(
    promotion: Promotion,
    target: Promotion,
    finding: WatchFinding,
    tally: WatchTally,
    policy: WatchPolicy,
    now: datetime,
) -> Promotion:
    """Back to what passed its gates when it was promoted: its evidence of then, and why it is champion again."""
    evidence = {
        **target.evidence,
        "of_promotion": target.promotion_id,
        "rolled_back_version": promotion.version,
        "watch": watch_evidence(finding, tally, action=f"rolled back to version {target.version}"),
    }
    return Promotion(
        promotion_id=promotion.promotion_id + 1, previous_id=promotion.promotion_id, kind="rollback",
        version=target.version, fingerprint=target.fingerprint, previous_version=promotion.version, who=policy.who,
        reason=finding.reason, promoted_at=now, evidence=evidence,
    )  # fmt: skip


def _close_superseded(ledger: Ledger, current: Promotion, now: datetime) -> None:
    """Watches of promotions that are no longer the newest: somebody promoted another version or rolled back by hand."""
    for record in open_watches(ledger.database):
        if record.promotion_id != current.promotion_id:
            action = f"ended: promotion {current.promotion_id} made version {current.version} champion"
            evidence = {**record.evidence, "verdict": "superseded", "action": action}
            write_watch(ledger.database, replace(record, verdict="superseded", evidence=evidence, updated_at=now))
