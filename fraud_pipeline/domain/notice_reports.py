"""What reports, promotions, candidates and failed runs mean for people: as conditions, where they end, or as notices.

Takes what others found; judges nothing anew. Knows neither Dagster nor MLflow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from fraud_pipeline.domain.notice import Notice, RecordedNotice, Severity, without_secrets
from fraud_pipeline.domain.notice_conditions import Condition, subject_of
from fraud_pipeline.domain.promotion import Promotion

NO_PAYMENTS: Final = "payments"
"""The field that is broken where there is nothing to judge."""
REGISTRY_AWAY_FOR: Final = timedelta(minutes=3)
"""It is looked at once a minute, and nothing is decided by it: a restart wakes nobody."""
_SHOWN: Final = 10
_LONGEST_SUBJECT: Final = 80
_LONGEST_ERROR: Final = 600


def drift_conditions(
    report: Mapping[str, Any], opened: Iterable[RecordedNotice], *, at: datetime, link: str | None
) -> Iterator[Condition]:
    """What the newest drift report says: `status`, `champion`, `as_of`, `reasons` and the whole `verdict`.

    A broken input hides whether the world has drifted, and a report that could judge nothing ends nothing.
    """
    status, verdict = report["status"], report["verdict"]
    judged = bool(verdict.get("judged", True))
    if judged and status != "broken_input":
        yield _drift(report, verdict, at=at, link=link)
    if judged or status == "broken_input":
        yield from _broken(report, verdict, opened, at=at, link=link)


def _drift(report: Mapping[str, Any], verdict: Mapping[str, Any], *, at: datetime, link: str | None) -> Condition:
    holds, champion = report["status"] == "drift", report["champion"]
    said = "; ".join(report["reasons"]) or "no reason is given"
    return Condition(
        "drift",
        "world",
        holds,
        at=at,
        title=f"The world has drifted away from version {champion}",
        text=f"As of {report['as_of']}: {said}."
        if holds
        else f"As of {report['as_of']} version {champion} knows this world: {report['status']}.",
        facts={
            "champion": champion,
            "as_of": str(report["as_of"]),
            "drifted_features": list(verdict.get("drifted_features", ()))[:_SHOWN],
            "drifted_share": verdict.get("dataset_drift_share"),
        },
        link=link,
    )


def _broken(
    report: Mapping[str, Any],
    verdict: Mapping[str, Any],
    opened: Iterable[RecordedNotice],
    *,
    at: datetime,
    link: str | None,
) -> Iterator[Condition]:
    """Each group of fields that broke together is an episode: another field that breaks later is told too."""
    broken = list(verdict.get("broken_features", ())) if report["status"] == "broken_input" else []
    if report["status"] == "broken_input" and not broken:
        broken = [NO_PAYMENTS]
    told: set[str] = set()
    for each in opened:
        if each.notice.kind != "broken_input":
            continue
        fields = {str(name) for name in each.notice.facts.get("fields", ())}
        told |= fields
        subject, still = subject_of(each.notice), bool(fields & set(broken))
        yield Condition("broken_input", subject, still, at=at, text=f"As of {report['as_of']} they are sound again.")
    new = [name for name in broken if name not in told]
    if new:
        yield _newly_broken(new, report, verdict.get("broken_since") or {}, at=at, link=link)


def _newly_broken(
    fields: list[str], report: Mapping[str, Any], since: Mapping[str, Any], *, at: datetime, link: str | None
) -> Condition:
    dated = [f"{name} since {since[name]}" if since.get(name) else name for name in fields]
    more = f" and {len(fields) - 3} more" if len(fields) > 3 else ""
    return Condition(
        "broken_input",
        ",".join(fields)[:_LONGEST_SUBJECT],
        True,
        at=at,
        severity="critical",
        title=f"Broken input: {', '.join(dated[:3])}{more}",
        text=(
            f"As of {report['as_of']}: {'; '.join(report['reasons'])}. Mend the source: nothing is retrained until then. "
            f"Broken: {', '.join(dated)}."
        ),
        facts={"fields": fields, "since": {name: since.get(name) for name in fields}, "as_of": str(report["as_of"])},
        link=link,
    )


def parity_condition(*, live: int, logged: int, compared: int, at: datetime, link: str | None) -> Condition:
    """What the newest parity report found: values that differ `live`, and as they were `logged` when they served."""
    return Condition(
        "parity",
        "batch and online",
        live + logged > 0,
        at=at,
        severity="critical",
        title=f"{live + logged:,} feature values differ between training and serving",
        text=f"Of {compared:,} compared values {live:,} differ computed live, and {logged:,} as logged when they were served.",
        facts={"live": live, "logged": logged, "compared": compared},
        link=link,
    )


def champion_condition(version: int, problem: str | None, *, at: datetime, link: str | None) -> Condition:
    """Whether the champion's files could be fetched just now; `problem` says why not."""
    return Condition(
        "champion_missing",
        f"version {version}",
        problem is not None,
        at=at,
        severity="critical",
        title=f"The champion, version {version}, cannot be fetched",
        text=f"{problem} What serves it already goes on; nothing that starts now can."
        if problem
        else f"Version {version} can be fetched again.",
        facts={"version": version},
        link=link,
    )


def registry_condition(away: str | None, *, at: datetime) -> Condition:
    """Whether MLflow could be looked at; `away` says why not."""
    return Condition(
        "degraded",
        "mlflow",
        away is not None,
        at=at,
        title="MLflow does not answer",
        text=f"{without_secrets(away)} What serves a model goes on; nothing is trained, promoted or fetched meanwhile."
        if away
        else "MLflow answers again.",
        begins_after=REGISTRY_AWAY_FOR,
    )


def promotion_notice(promotion: Promotion, *, link: str | None) -> Notice:
    """What tells of a row of `promotions`."""
    version, before = promotion.version, promotion.previous_version
    kinds: dict[str, tuple[Severity, str]] = {
        "promotion": ("info", f"Version {version} is champion"),
        "forced": ("warning", f"Version {version} was made champion by force"),
        "rollback": ("critical", f"Version {before} was rolled back: version {version} is champion again"),
    }
    severity, title = kinds[promotion.kind]
    return Notice(
        kind="rollback" if promotion.kind == "rollback" else "promotion",
        severity=severity,
        episode=promotion_episode(promotion),
        title=title,
        text=f"{without_secrets(promotion.reason) or 'No reason was given'}. By {without_secrets(promotion.who)}.",
        facts={"version": version, "previous_version": before, "kind": promotion.kind, "who": promotion.who,
               "evidence": _scalars(promotion.evidence)},
        link=link,
        at=promotion.promoted_at,
    )  # fmt: skip


def promotion_episode(promotion: Promotion) -> str:
    """A promotion is an episode of its own."""
    return f"promotion-{promotion.promotion_id}"


def gate_notice(version: int, *, reason: str, failed: Sequence[str], at: datetime, link: str | None) -> Notice:
    """What tells of a candidate that the gates stopped."""
    return Notice(
        "gate_failed",
        "warning",
        gate_episode(version),
        f"Version {version} was stopped by its gates",
        f"{without_secrets(reason) or 'A gate failed'}. The champion stays.",
        {"version": version, "failed_gates": list(failed)},
        link,
        at,
    )


def gate_episode(version: int) -> str:
    """A candidate is judged once."""
    return f"version-{version}"


def run_over(told: RecordedNotice, *, made_since: bool, at: datetime) -> Condition:
    """Whether what a failed run should have made has been made since."""
    text = "A later run has made what this one should have." if made_since else told.notice.text
    return Condition("run_failed", subject_of(told.notice), not made_since, at=at, text=text)


def run_condition(
    job: str, assets: Sequence[str], *, run_id: str, error: str, at: datetime, link: str | None
) -> Condition:
    """A run failed, for good. It is over when the job, or what the run should have made, has been made since."""
    what = f"{job} of {', '.join(assets[:3])}{' and more' if len(assets) > 3 else ''}" if assets else job
    return Condition(
        "run_failed",
        run_subject(job, assets),
        True,
        at=at,
        title=f"A run of {what} failed",
        text=f"Run {run_id}: {without_secrets(error)[:_LONGEST_ERROR] or 'no error was recorded'}",
        facts={"job": job, "assets": list(assets), "run_id": run_id},
        link=link,
    )


def run_subject(job: str, assets: Sequence[str]) -> str:
    """The same job on the same assets fails once until it succeeds."""
    if not assets:
        return job
    return f"{job}:{hashlib.sha256('|'.join(sorted(assets)).encode()).hexdigest()[:12]}"


def _scalars(evidence: Mapping[str, object]) -> dict[str, Any]:
    """What of a promotion's evidence fits a message; the whole stands in its row."""
    return {name: value for name, value in evidence.items() if isinstance(value, str | int | float | bool)}
