"""From data to champion, and what stands where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fraud_pipeline.commands.output import Json, day_option, emit, field_table, gate_tables, remark, rows_table, stages

if TYPE_CHECKING:
    from fraud_pipeline.settings import Settings

PANEL = "Pipeline"
DATASETS = ("transactions", "labels", "features")


def register(app: typer.Typer) -> None:
    """Add this area's commands."""
    app.command(rich_help_panel=PANEL)(run)
    app.command(rich_help_panel=PANEL)(status)


def run(
    start: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="First day. [default: the world's first]")
    ] = None,
    end: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="The day after the last. [default: the world's end]")
    ] = None,
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="YYYY-MM-DD", help="Train on what was known then. [default: --end]")
    ] = None,
    train: Annotated[
        bool, typer.Option("--train/--no-train", help="Train and judge, or only materialize days.")
    ] = True,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Make every day and model again.")] = False,
    shuffle_labels: Annotated[
        bool, typer.Option("--shuffle-labels", help="Fire drill: a candidate made bad on purpose, which must fail.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Materialize everything from data to a promoted champion; simulates a world first where there is none.

    What is there already and still current is left as it is. Exit code 1 when the candidate failed a gate.
    """
    from fraud_pipeline.pipeline_run import run_pipeline
    from fraud_pipeline.settings import load_settings

    with stages() as report:
        outcome = run_pipeline(
            load_settings(),
            start=day_option(start, "--start"),
            end=day_option(end, "--end"),
            as_of=day_option(as_of, "--as-of"),
            retrain=train,
            from_scratch=from_scratch,
            shuffle_labels=shuffle_labels,
            progress=report,
        )
    emit(vars(outcome), as_json=as_json, tables=lambda: gate_tables(outcome.gates) if outcome.gates else iter(()))
    remark(outcome.sentence)
    raise typer.Exit(1 if train and not outcome.promoted else 0)


def status(as_json: Json = False) -> None:
    """What is there: the world, each dataset's days, the champion, drift."""
    from fraud_pipeline.settings import load_settings

    settings = load_settings()
    result = {"home": settings.home, "world": _world(settings), "datasets": _datasets(settings), **_history(settings)}
    emit(result, as_json=as_json, tables=lambda: iter(_status_tables(result)))


def _world(settings: Settings) -> dict[str, Any] | None:
    from fraud_pipeline.adapters.source_store import SourceStore

    source = SourceStore(settings.home)
    return source.manifest().to_json() if source.exists() else None


def _datasets(settings: Settings) -> dict[str, dict[str, Any]]:
    from fraud_pipeline.adapters.dataset_store import DatasetStore

    store = DatasetStore(settings.home)
    found = {}
    for dataset in DATASETS:
        days = store.days(dataset)
        manifests = [store.manifest(dataset, day) for day in days]
        found[dataset] = {
            "days": len(days),
            "first": days[0] if days else None,
            "last": days[-1] if days else None,
            "rows": sum(manifest.rows for manifest in manifests),
            "failed": [day for day, manifest in zip(days, manifests, strict=True) if manifest.verdict == "failed"],
        }
    return found


def _history(settings: Settings) -> dict[str, Any]:
    """The champion and the last drift episode; without opening, and so making, a ledger that is not there yet."""
    from fraud_pipeline.commands.opening import is_missing_file, open_ledger

    if is_missing_file(settings.ledger_url):
        return {"champion": None, "drift": None}
    with open_ledger(settings) as ledger:
        return {"champion": ledger.current_promotion(), "drift": ledger.last_episode()}


def _status_tables(result: dict[str, Any]) -> list[Any]:
    world, champion, drift = result["world"], result["champion"], result["drift"]
    shown = {
        "home": result["home"],
        "world": f"{world['name']}: {world['rows']:,} payments, {world['start']} to {world['end']}"
        if world
        else "none yet: `fraud run`",
        "champion": f"version {champion.version}, {champion.kind} of {champion.promoted_at:%Y-%m-%d %H:%M} by {champion.who}"
        if champion
        else None,
        "drift": f"episode {drift.episode_id} since {drift.opened_at:%Y-%m-%d}"
        if drift and drift.closed_at is None
        else "no open episode",
    }
    rows = [(name, d["days"], d["first"], d["last"], d["rows"], d["failed"]) for name, d in result["datasets"].items()]
    return [
        field_table(shown),
        rows_table(("dataset", "days", "first", "last", "rows", "days that failed their checks"), rows),
    ]
