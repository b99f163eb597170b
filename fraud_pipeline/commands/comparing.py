"""Two versions side by side: as they were judged, and on the payments that both decided."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fraud_pipeline.commands.output import Json, emit, field_table, rows_table
from fraud_pipeline.commands.versions import Version, find_version, interval, summary

if TYPE_CHECKING:
    from fraud_pipeline.adapters.registered_version import RegisteredVersion
    from fraud_pipeline.domain.shadow_comparison import ShadowComparison
    from fraud_pipeline.settings import Settings


def compare(
    version: Version,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="What to compare it with.")] = "champion",
    since: Annotated[
        str | None, typer.Option(help="Payments decided from then on: 2026-03-01 or 2026-03-01T12:00Z.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Payments decided before then.")] = None,
    as_json: Json = False,
) -> None:
    """Two versions' metrics side by side, each on its own test period, and their decisions on the same payments."""
    from fraud_pipeline.commands.opening import open_registry
    from fraud_pipeline.settings import load_settings

    settings = load_settings()
    window = (_moment(since, "--since"), _moment(until, "--until"))
    registry = open_registry(settings)
    left, right = find_version(registry, version), find_version(registry, other)
    decided = _decided(settings, left, right, window)
    names = sorted({*left.metrics, *right.metrics})
    differences = {name: _difference(left, right, name) for name in names}
    rows = [
        (name, interval(left.metrics.get(name)), interval(right.metrics.get(name)), differences[name]) for name in names
    ]
    periods = {
        f"version {v.version}": f"trained on {v.training_window}, as of {v.tags.get('as_of')}" for v in (left, right)
    }
    columns = ("metric", f"version {left.version}", f"version {right.version}", "difference")

    def tables() -> Iterator[Any]:
        yield field_table(periods)
        yield rows_table(columns, rows)
        yield from _decision_tables(left.version, right.version, decided)

    emit(
        {"versions": [summary(left), summary(right)], "differences": differences, "decisions": decided},
        as_json=as_json,
        tables=tables,
    )


def _decided(
    settings: Settings,
    left: RegisteredVersion,
    right: RegisteredVersion,
    window: tuple[datetime | None, datetime | None],
) -> ShadowComparison | None:
    """What the ledger says of the payments that both decided; None where there are none."""
    from fraud_pipeline.adapters.decision_pairs import paired_decisions
    from fraud_pipeline.commands.opening import is_missing_file, open_ledger
    from fraud_pipeline.domain.shadow_comparison import compare_decisions

    if is_missing_file(settings.ledger_url):
        return None
    now = datetime.now(UTC)
    with open_ledger(settings) as ledger:
        pairs = paired_decisions(
            ledger.database, str(left.version), str(right.version), as_of=now, since=window[0], until=window[1]
        )
    maturity = timedelta(days=settings.label_maturity_days)
    return compare_decisions(pairs, as_of=now, maturity=maturity, control_share=settings.control_share)


def _decision_tables(left: int, right: int, decided: ShadowComparison | None) -> Iterator[Any]:
    if decided is None:
        yield "No payment was decided by both: `fraud models challenge VERSION` has a running service do that."
        return
    names = (f"version {left}", f"version {right}")
    quantiles = decided.difference_quantiles
    yield field_table(
        {
            "payments decided by both": decided.payments,
            f"answered by {names[0]}": decided.left_answered,
            f"answered by {names[1]}": decided.right_answered,
            "same verdict": f"{decided.agreed:.2%}",
            "probabilities differ by": f"{decided.mean_difference:+.6f} on average ({names[0]} less {names[1]})",
            "quantiles of that": ", ".join(f"{float(at):.0%} {value:+.4f}" for at, value in quantiles.items()),
        }
    )
    verdicts = tuple(decided.agreement)
    yield rows_table(
        (f"{names[0]} \\ {names[1]}", *verdicts),
        [(ours, *(decided.agreement[ours][theirs] for theirs in verdicts)) for ours in verdicts],
    )
    known = decided.outcomes
    yield rows_table(
        ("outcome", *names),
        [
            ("alert rate", f"{decided.left_alert_rate:.4%}", f"{decided.right_alert_rate:.4%}"),
            ("alerts of known outcome", known.left.alerts, known.right.alerts),
            ("frauds caught", known.left.caught, known.right.caught),
            ("recall", known.left.recall, known.right.recall),
            ("precision", known.left.precision, known.right.precision),
            ("average precision", known.left.average_precision, known.right.average_precision),
        ],
    )
    yield (
        f"Of {known.payments:,} payments of known outcome {known.labelled:,} are labelled, {known.frauds:,} as fraud; "
        "the others are old enough for a label and were not blocked."
    )


def _moment(text: str | None, option: str) -> datetime | None:
    """The moment that an option names; a day is its midnight, and without a zone it is UTC."""
    from fraud_pipeline.errors import InputError

    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as err:
        raise InputError(
            f"{option} {text!r} is no moment.", remedy="Write it as 2026-03-01 or 2026-03-01T12:00Z."
        ) from err
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def _difference(left: RegisteredVersion, right: RegisteredVersion, name: str) -> float | None:
    ours, theirs = left.metric(name), right.metric(name)
    return None if ours is None or theirs is None else ours - theirs
