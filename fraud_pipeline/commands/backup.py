"""`fraud backup` and `fraud restore`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fraud_pipeline.commands.output import Json, emit, field_table, remark, stages

PANEL = "Stack"
Database = Annotated[
    str,
    typer.Option(
        metavar="DATABASE",
        help="An MLflow server's database: a name on the ledger's server, or an address. [default: mlflow]",
    ),
]


def register(app: typer.Typer) -> None:
    """Add this area's commands."""
    app.command(rich_help_panel=PANEL)(backup)
    app.command(rich_help_panel=PANEL)(restore)


def backup(
    target: Annotated[str, typer.Argument(metavar="DIR|URL", help="A folder or fsspec address that is not there yet.")],
    mlflow: Database = "",
    as_json: Json = False,
) -> None:
    """Write ledger, registry, checkpoints and the home's data to a folder or an address (s3://...), while everything runs.

    It is there whole or not at all. Kafka's log is not part of it: the ledger has every payment that the sink has stored.
    """
    from datetime import UTC, datetime

    from fraud_pipeline.backup import back_up
    from fraud_pipeline.settings import load_settings

    with stages() as report:
        made = back_up(load_settings(), target, now=datetime.now(UTC), mlflow=mlflow, progress=report)
    _show(made, as_json=as_json)
    remark(f"Backup {made.identity} is whole: {made.files:,} files, {made.bytes / 2**20:,.1f} MiB")


def restore(
    source: Annotated[str, typer.Argument(metavar="DIR|URL", help="A backup.")],
    mlflow: Database = "",
    as_json: Json = False,
) -> None:
    """Fill an empty installation with a backup; SQLite and PostgreSQL may be on either side.

    Everything is verified first, and nothing that holds something already is touched. After a kill, the same command goes on.
    """
    from fraud_pipeline.backup import restore as fill
    from fraud_pipeline.settings import load_settings

    with stages() as report:
        done = fill(load_settings(), source, mlflow=mlflow, progress=report)
    _show(done, as_json=as_json)
    remark(
        f"Backup {done.identity} of {done.made_at} is restored; services and scorers replay what their state lags behind"
    )


def _show(report: Any, *, as_json: bool) -> None:
    fields = {
        name: getattr(report, name)
        for name in ("address", "identity", "made_at", "files", "bytes", "ledger", "registry")
    }
    shown = {**fields, "ledger": _counts(report.ledger), "registry": _counts(report.registry)}
    emit(fields, as_json=as_json, tables=lambda: iter([field_table(shown)]))


def _counts(rows: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in rows.items() if count) or "empty"
