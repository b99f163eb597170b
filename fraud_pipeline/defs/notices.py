"""Telling people: what is wrong is found by looking, written to the ledger's outbox once per episode, and delivered from there.

No step of the pipeline waits for a receiver, and none fails because of one.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, time, timedelta
from typing import Any

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.notices.channels import channels_of
from fraud_pipeline.adapters.notices.deliverer import Deliverer, Outcome
from fraud_pipeline.adapters.notices.metrics_pages import read_pages
from fraud_pipeline.adapters.notices.notice_book import NoticeBook
from fraud_pipeline.adapters.notices.registry_look import Findings, RegistryLook
from fraud_pipeline.adapters.promotions import current_champion
from fraud_pipeline.defs.automation import SENSOR_EVERY_S
from fraud_pipeline.defs.monitoring import newest_drift
from fraud_pipeline.defs.sensors import stopped_by_gates
from fraud_pipeline.domain.notice import Notice, RecordedNotice
from fraud_pipeline.domain.notice_conditions import Changes, Condition, judge
from fraud_pipeline.domain.notice_reports import (
    champion_condition,
    drift_conditions,
    gate_notice,
    parity_condition,
    promotion_notice,
    registry_condition,
    run_condition,
    run_over,
)
from fraud_pipeline.domain.platform_memory import Memory
from fraud_pipeline.domain.platform_rules import Limits, Target, judge_target, keep, no_longer_watched
from fraud_pipeline.settings import Settings

DELIVERY_BUDGET_S = 4.0
"""No attempt begins later in a tick: sensors of a location may wait for each other, and an attempt takes 5 s at most."""
REGISTRY_WAIT_S = 0.2
"""A look at the registry goes on beside the ticks; the next one has what this one did not wait for."""
TOLD_WITHIN = timedelta(days=7)
"""Promotions and candidates older than this are no news: a daemon that was off over a holiday still tells."""
NEWEST_RUNS = 5
"""A run that was started earlier than another may end later."""
WILL_RETRY = "dagster/will_retry"
"""Dagster's tag of a failed run that it starts again by itself."""


@dg.sensor(
    minimum_interval_seconds=SENSOR_EVERY_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Delivers notices to the channels that FRAUD_NOTIFY_* name; `fraud notices list` shows what became of them.",
)
def deliver_notices(
    context: dg.SensorEvaluationContext, ledger: dg.ResourceParam[Ledger], settings: dg.ResourceParam[Settings]
) -> dg.SkipReason:
    """One round of deliveries."""
    book, channels = NoticeBook(ledger.database), channels_of(settings)
    done = Deliverer(book, channels).deliver(budget_s=DELIVERY_BUDGET_S)
    book.prune(now=datetime.now(UTC))
    lines = [f"{name}: {_outcome(outcome)}" for name, outcome in done.items() if outcome.tried]
    for line in lines:
        context.log.info("%s", line)
    channel_names = ", ".join(each.name for each in channels)
    return dg.SkipReason("; ".join(lines) or f"Nothing to deliver. Channels: {channel_names}.")


@dg.sensor(
    minimum_interval_seconds=SENSOR_EVERY_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Looks at reports, promotions, candidates, the champion's files and the metrics pages of FRAUD_WATCH_URLS, and tells once "
        "when trouble begins and once when it ends."
    ),
)
def observe_platform(
    context: dg.SensorEvaluationContext,
    ledger: dg.ResourceParam[Ledger],
    settings: dg.ResourceParam[Settings],
    registry_look: dg.ResourceParam[RegistryLook],
) -> dg.SkipReason:
    """Compare what holds with what was told."""
    now, book = datetime.now(UTC), NoticeBook(ledger.database)
    memory, opened = Memory.from_json(context.cursor, now=now), book.open()
    champion = current_champion(ledger)
    version = champion.version if champion else None
    targets = _targets(settings, memory)
    found = registry_look.newest(version, wait_s=REGISTRY_WAIT_S)
    conditions = [
        *_report_conditions(context.instance, version, opened, settings),
        *_run_conditions(context.instance, opened, now),
        *_registry_conditions(found, version, settings, now),
        *(condition for target in targets for condition in judge_target(target, limits=_limits(settings), now=now)),
        *no_longer_watched(opened, {target.address for target in targets}, now=now),
    ]
    changes = judge(conditions, opened, pending=memory.pending, now=now)
    told = [*_tell(book, changes, now), *_tell_events(book, _events(ledger, found, settings), now)]
    samples = {t.address: keep(t.past, t.figures.values, now=now) if t.figures else t.past for t in targets}
    context.update_cursor(Memory(samples, changes.pending).to_json(now=now))
    for title in told:
        context.log.info("told: %s", title)
    return dg.SkipReason(_explain(told, opened, targets, found, changes))


@dg.run_failure_sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells of runs that failed for good, once until the same has succeeded.",
)
def tell_failed_runs(
    context: dg.RunFailureSensorContext, ledger: dg.ResourceParam[Ledger], settings: dg.ResourceParam[Settings]
) -> None:
    """A run that Dagster starts again by itself is no news yet."""
    run, now = context.dagster_run, datetime.now(UTC)
    if run.tags.get(WILL_RETRY) == "true":
        context.log.info("run %s of %s failed and is started again", run.run_id, run.job_name)
        return
    if stopped_by_gates(context.instance, run.run_id):
        context.log.info("the gates stopped the candidate of run %s, which is told by itself", run.run_id)
        return
    assets = sorted(key.to_user_string() for key in run.asset_selection or ())
    record = context.instance.get_run_record_by_id(run.run_id)
    failed_at = datetime.fromtimestamp(record.end_time, UTC) if record and record.end_time else now
    condition = run_condition(
        run.job_name, assets, run_id=run.run_id, error=_why(context), at=failed_at, link=_link(settings, f"runs/{run.run_id}")
    )  # fmt: skip
    if not NoticeBook(ledger.database).begin(condition, now=now):
        context.log.info("run %s of %s failed as one before it, which was told", run.run_id, run.job_name)


def _targets(settings: Settings, memory: Memory) -> list[Target]:
    addresses = list(dict.fromkeys(one.strip() for one in settings.watch_urls.split(",") if one.strip()))
    return [
        Target(address, figures, problem, memory.samples.get(address, ()))
        for address, (figures, problem) in read_pages(addresses).items()
    ]


def _limits(settings: Settings) -> Limits:
    return Limits(settings.watch_lag, settings.watch_dead_letters, settings.watch_degraded_share)


def _report_conditions(
    instance: dg.DagsterInstance, champion: int | None, opened: list[RecordedNotice], settings: Settings
) -> Iterator[Condition]:
    """What the newest drift and parity reports say; a drift report of another champion says nothing of this one."""
    drift = newest_drift(instance)
    if drift is not None and drift["champion"] == champion:
        at = datetime.combine(drift["as_of"], time.min, UTC)
        yield from drift_conditions(drift, opened, at=at, link=_link(settings, "assets/drift_report"))
    parity = instance.get_latest_materialization_event(dg.AssetKey("parity_report"))
    if parity is not None and parity.asset_materialization is not None:
        found = parity.asset_materialization.metadata
        yield parity_condition(
            live=_count(found, "differing values"),
            logged=_count(found, "served differing values"),
            compared=_count(found, "compared values") + _count(found, "served values"),
            at=datetime.fromtimestamp(parity.timestamp, UTC),
            link=_link(settings, "assets/parity_report"),
        )


def _count(metadata: Mapping[str, Any], name: str) -> int:
    """A count in an asset's metadata; 0 in a report that is older than the count."""
    return int(metadata[name].value) if name in metadata else 0


def _run_conditions(instance: dg.DagsterInstance, opened: list[RecordedNotice], now: datetime) -> Iterator[Condition]:
    for told in opened:
        if told.notice.kind == "run_failed":
            yield run_over(told, made_since=_made_since(instance, told), at=now)


def _made_since(instance: dg.DagsterInstance, told: RecordedNotice) -> bool:
    """Whether each asset of the failed run is newer than the failure, or the job has succeeded since where it names none."""
    facts, failed_at = told.notice.facts, told.notice.at
    if not facts["assets"]:
        succeeded = RunsFilter(job_name=facts["job"], statuses=[DagsterRunStatus.SUCCESS])
        records = instance.get_run_records(succeeded, limit=NEWEST_RUNS)
        return any((record.end_time or 0) > failed_at.timestamp() for record in records)
    newest = (instance.get_latest_materialization_event(dg.AssetKey.from_user_string(name)) for name in facts["assets"])
    return all(event is not None and event.timestamp > failed_at.timestamp() for event in newest)


def _registry_conditions(
    found: Findings | None, champion: int | None, settings: Settings, now: datetime
) -> Iterator[Condition]:
    if found is None:
        return
    yield registry_condition(found.away, at=now)
    if champion is not None and found.champion == champion:
        yield champion_condition(
            champion, found.champion_problem, at=now, link=_link(settings, "assets/champion_bundle")
        )  # fmt: skip


def _events(ledger: Ledger, found: Findings | None, settings: Settings) -> Iterator[Notice]:
    """What has happened, however long ago."""
    for promotion in ledger.promotions():
        yield promotion_notice(promotion, link=_link(settings, "assets/champion_bundle"))
    for stopped in found.stopped if found else ():
        yield gate_notice(
            stopped.version, reason=stopped.reason, failed=stopped.failed_gates, at=stopped.registered_at,
            link=_link(settings, "assets/candidate_bundle"),
        )  # fmt: skip


def _tell_events(book: NoticeBook, events: Iterable[Notice], now: datetime) -> Iterator[str]:
    told = {(each.notice.kind, each.notice.episode) for each in book.since(now - TOLD_WITHIN - timedelta(days=1))}
    for event in events:
        is_news = event.at >= now - TOLD_WITHIN and (event.kind, event.episode) not in told
        if is_news and book.tell(event, now=now):
            yield event.title


def _tell(book: NoticeBook, changes: Changes, now: datetime) -> Iterator[str]:
    for condition in changes.begin:
        if book.begin(condition, now=now):
            yield condition.title
    for ending in changes.end:
        if book.tell(ending, now=now):
            yield ending.title


def _link(settings: Settings, path: str) -> str | None:
    """A page of Dagster's; None where nobody serves them."""
    return f"{settings.dagster_url.rstrip('/')}/{path}" if settings.dagster_url else None


def _why(context: dg.RunFailureSensorContext) -> str:
    """The innermost error of the first step that failed, or what Dagster says of the run."""
    for event in context.get_step_failure_events():
        error = event.step_failure_data.error
        while error is not None and error.cause is not None:
            error = error.cause
        if error is not None:
            return f"{event.step_key}: {error.message.strip()}"
    return str(context.failure_event.message or "")


def _explain(
    told: list[str], opened: list[RecordedNotice], targets: list[Target], found: Findings | None, changes: Changes
) -> str:
    answering = sum(target.figures is not None for target in targets)
    registry = "the registry is still being looked at" if found is None else found.away or "the registry answers"
    said = f"Told: {'; '.join(told)}. " if told else "Nothing new to tell. "
    waiting = f" Not yet told: {', '.join(sorted(changes.pending))}." if changes.pending else ""
    return (
        f"{said}{answering} of {len(targets)} watched addresses answer; {registry}; "
        f"{len(opened)} episodes were open.{waiting}"
    )


def _outcome(outcome: Outcome) -> str:
    counts = {"delivered": outcome.delivered, "to be tried again": outcome.retried, "given up": outcome.given_up}
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)
