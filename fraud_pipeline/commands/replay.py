"""`fraud replay` and `fraud decision`: the past decided again, a range or one payment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fraud_pipeline.commands.output import Json, emit, field_table, progress, rows_table, text

if TYPE_CHECKING:
    from fraud_pipeline.adapters.decision_check import CheckedDecision
    from fraud_pipeline.adapters.ledger import Ledger
    from fraud_pipeline.adapters.past_log import PastLog
    from fraud_pipeline.adapters.replay import ReplayPlan, ReplayReport
    from fraud_pipeline.domain.bundle import ModelBundle
    from fraud_pipeline.settings import Settings

PANEL = "Serving"
LOGGED = "logged"
decision = typer.Typer(help="A decision that was given: look at it again.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add this area's commands."""
    app.command(rich_help_panel=PANEL)(replay)
    app.add_typer(decision, name="decision", rich_help_panel=PANEL)


def replay(
    since: Annotated[
        str, typer.Option("--from", metavar="TIME", help="Payments received from then on (RFC 3339, or a day).")
    ],
    until: Annotated[str, typer.Option("--to", metavar="TIME", help="And before then.")],
    bundle: Annotated[
        str,
        typer.Option(
            help="A version's number, champion, challenger, or `logged`: each payment by the version that decided it."
        ),
    ] = LOGGED,
    out: Annotated[
        Path | None, typer.Option(help="A new folder for the decisions (Parquet). [default: under the home's reports]")
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="The days before the log, too, from their stored features.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Decide a past range anew, from the log, into files of its own; what was decided stays as it is.

    The bundle that decided it gives the identical decisions, bit for bit, and exit code 1 says that it did not; another one
    gives a what-if: which decisions would change, and what that would have been worth.
    """
    from time import perf_counter

    from fraud_pipeline.adapters.replay import Replay
    from fraud_pipeline.commands.opening import open_ledger
    from fraud_pipeline.settings import load_settings

    settings = load_settings()
    begin, end, now = _moment(since, "--from"), _moment(until, "--to"), datetime.now(UTC)
    with open_ledger(settings) as ledger:
        version = _version(ledger, bundle)
        plan = _plan(settings, version, now)
        folder = (
            out
            or settings.reports_dir
            / "replays"
            / f"{begin:%Y%m%dT%H%M%S}-{end:%Y%m%dT%H%M%S}-{version}-{now:%Y%m%dT%H%M%S}"
        )
        labels = {
            label.transaction_id: label.is_fraud
            for label, _ in ledger.labels_known(datetime(1970, 1, 1, tzinfo=UTC), now)
        }
        run = Replay(ledger, plan, bundle_source(settings, ledger), labels=labels, out=folder)
        started = perf_counter()
        with progress("Deciding anew") as report:
            pages = (
                page for log in _logs(settings, ledger, history=history) for page in log.payments(begin, end, report)
            )
            result = run.run(pages)
    seconds = perf_counter() - started
    content = {**result.to_json(), "from": begin, "to": end, "out": folder, "seconds": round(seconds, 2)}
    content["per_s"] = round(result.payments / seconds) if seconds else None
    emit(content, as_json=as_json, tables=lambda: _replay_tables(result, folder, seconds))
    raise typer.Exit(0 if result.equal else 1)


@decision.command()
def verify(
    transaction_id: Annotated[str, typer.Argument(metavar="ID", help="The payment's id.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Execute one logged decision again: from its logged vector, and from the log, feature by feature.

    Ends with exit code 1 where they part.
    """
    from fraud_pipeline.adapters.decision_check import check_decision
    from fraud_pipeline.commands.opening import open_ledger
    from fraud_pipeline.settings import load_settings

    settings = load_settings()
    with open_ledger(settings) as ledger:
        logs = _logs(settings, ledger, history=True)
        checked = check_decision(
            ledger, logs, bundle_source(settings, ledger), transaction_id, control_share=settings.control_share
        )
    emit(checked.to_json(), as_json=as_json, tables=lambda: _check_tables(checked))
    raise typer.Exit(0 if checked.equal else 1)


def bundle_source(settings: Settings, ledger: Ledger) -> Callable[[str], ModelBundle]:
    """Bundles by version: those that ever served from this home where they are here, others from the registry."""
    from functools import cache

    from fraud_pipeline.adapters.model_slot import fetcher
    from fraud_pipeline.commands.opening import open_registry
    from fraud_pipeline.domain.bundle import ModelBundle
    from fraud_pipeline.errors import NotFound

    served = {str(each.version): each.fingerprint for each in ledger.promotions()}
    served |= {str(each.version): each.fingerprint for each in ledger.challengers() if each.fingerprint is not None}
    fetch = fetcher(settings.bundles_dir, settings.mlflow_tracking_uri, settings.artifacts_dir)

    @cache
    def bundle_of(version: str) -> ModelBundle:
        if not version.isdecimal():
            raise NotFound(
                f"Bundle {version} is no registered version.", remedy="`fraud models list` shows those there are."
            )
        number = int(version)
        path = fetch(number, served[version]) if version in served else open_registry(settings).fetch(number)
        return ModelBundle.load(path, version=version)

    return bundle_of


def _logs(settings: Settings, ledger: Ledger, *, history: bool) -> list[PastLog]:
    """The writer `local`, the stream whose sink fills this ledger, and the days before them where they are asked for."""
    from fraud_pipeline.adapters.checkpoint_store import CheckpointStore
    from fraud_pipeline.adapters.dataset_store import DatasetStore
    from fraud_pipeline.adapters.feature_store import FeatureStore
    from fraud_pipeline.adapters.live_state import LiveStateStore
    from fraud_pipeline.adapters.past_log import HistoryPast, LocalPast
    from fraud_pipeline.adapters.source_store import SourceStore

    checkpoints = CheckpointStore(settings.checkpoint_url)
    states = LiveStateStore(settings.home, checkpoints, ledger, time_zone=settings.time_zone)
    local = LocalPast(ledger, states, time_zone=settings.time_zone)
    logs: list[PastLog] = [local, *_stream_logs(settings, ledger)]
    source = SourceStore(settings.home)
    if not history or not source.exists():
        return logs
    features = FeatureStore(DatasetStore(settings.home), checkpoints, time_zone=settings.time_zone)
    return [HistoryPast(features, end=source.manifest().end), *logs]


def _stream_logs(settings: Settings, ledger: Ledger) -> list[PastLog]:
    from fraud_pipeline.adapters.kafka.topics import Topics
    from fraud_pipeline.adapters.stream.stream_past import StreamPast, is_of_a_stream
    from fraud_pipeline.commands.opening import stream_checkpoints

    topic = Topics(settings.topic_prefix).transactions
    if not is_of_a_stream(ledger.database, topic):
        return []
    return [
        StreamPast(
            ledger.database,
            topic,
            lambda partitions: stream_checkpoints(settings, ledger, topic, partitions=partitions),
        )
    ]


def _version(ledger: Ledger, name: str) -> str:
    """The version that a name means; `logged` stays what it is."""
    from fraud_pipeline.errors import InputError, NotFound

    if name in {"champion", "challenger"}:
        found = ledger.current_promotion() if name == "champion" else ledger.current_challenger()
        if found is None or found.version is None:
            raise NotFound(f"There is no {name}.", remedy="`fraud models list` shows what there is.")
        return str(found.version)
    if name != LOGGED and not name.isdecimal():
        raise InputError(f"{name!r} is no version.", remedy=f"Give a number, champion, challenger or {LOGGED}.")
    return name


def _plan(settings: Settings, version: str, now: datetime) -> ReplayPlan:
    from datetime import timedelta

    from fraud_pipeline.adapters.replay import ReplayPlan
    from fraud_pipeline.domain.thresholds import Costs

    return ReplayPlan(
        bundle=version,
        now=now,
        control_share=settings.control_share,
        costs=Costs(settings.review_cost, settings.false_block_cost, settings.fraud_loss_share),
        maturity=timedelta(days=settings.label_maturity_days),
    )


def _moment(given: str, option: str) -> datetime:
    from fraud_pipeline.errors import InputError

    try:
        moment = datetime.fromisoformat(given)
    except ValueError as err:
        raise InputError(
            f"{option} {given!r} is no time.", remedy="Write it as 2026-03-01T00:00:00Z, or 2026-03-01."
        ) from err
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _replay_tables(report: ReplayReport, folder: Path, seconds: float) -> Iterator[Any]:
    """What was decided; whether it is the same; what would change."""
    rate = report.payments / seconds if seconds else 0.0
    yield f"{report.payments:,} payments decided by {text(report.bundle)} in {seconds:.1f} s ({rate:,.0f}/s), into {text(folder)}"
    if report.undecided:
        yield f"{report.undecided:,} of them had no decision to compare with."
    if report.again:
        verdict = (
            "all identical, bit for bit" if report.equal else f"[red]{report.again - report.identical:,} differ[/red]"
        )
        yield f"{report.again:,} were decided by the same version: {verdict}."
    if report.degraded_again:
        yield (
            f"{report.degraded_again:,} more say that they lacked something (degraded); {report.degraded_identical:,} of them came"
            " out the same all the same."
        )
    if report.first_difference is not None:
        yield field_table(report.first_difference)
    what_if = report.what_if.as_dict()
    if what_if["changed"]:
        rows = [(name, count) for name, count in what_if["decisions"].items() if len(set(name.split(" -> "))) == 2]
        yield rows_table(("decision then and now", "payments"), rows)
        yield field_table(
            {
                name: what_if[name]
                for name in ("known_outcomes", "frauds", "value_then", "value_now", "value_difference")
            }
        )


def _check_tables(checked: CheckedDecision) -> Iterator[Any]:
    """The decision; whether it comes out again; whether the log gives its vector."""
    given = checked.decision
    yield field_table({
        "payment": given.transaction_id, "decision": given.decision, "probability": given.fraud_probability,
        "decided by version": given.model_version, "degraded": given.degraded or None, "place": checked.place,
    })  # fmt: skip
    same = "comes out the same, bit for bit" if not checked.executed else "[red]comes out otherwise[/red]"
    yield f"Executed again on its logged vector it {same}."
    if checked.executed:
        yield rows_table(
            ("field", "logged", "again"), [(name, *map(str, pair)) for name, pair in checked.executed.items()]
        )
    if checked.place is None:
        yield "No log that is here has the payment: its vector was not recomputed."
    elif not checked.features and not checked.lagging:
        yield "The log gives the very vector."
    else:
        if checked.lagging:
            yield f"It was decided without others' newest minutes, and says so: {len(checked.lagging)} shared inputs differ."
        if checked.features:
            yield f"The log gives [red]another vector[/red]: {len(checked.features)} inputs differ."
        rows = [(f.feature, f.logged, f.recomputed) for f in (*checked.features, *checked.lagging)]
        yield rows_table(("input", "logged", "recomputed"), rows)
        if checked.recomputed is not None:
            yield f"On the recomputed one it would be {checked.recomputed.decision} ({checked.recomputed.fraud_probability:.4g})."
