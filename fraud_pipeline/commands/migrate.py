"""`fraud migrate`: what must be in place before processes start."""

from __future__ import annotations

from typing import Annotated

import typer

from fraud_pipeline.commands.output import Json, emit, rows_table, stages

PANEL = "Stack"


def register(app: typer.Typer) -> None:
    """Add this area's commands."""
    app.command(rich_help_panel=PANEL)(migrate)


def migrate(
    mlflow: Annotated[
        str, typer.Option(metavar="DATABASE", help="The MLflow server's database, on the ledger's server.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Make and upgrade what the settings name: databases, the ledger's schema, Dagster's storage, topics.

    Run it once before a new version's processes start. Many at once: one does it, the others wait and find it done.
    """
    from fraud_pipeline.migration import migrate as everything
    from fraud_pipeline.settings import load_settings

    with stages() as report:
        steps = everything(load_settings(), mlflow=mlflow, progress=lambda name: report(name, 0, 1))
    rows = [(step.name, step.state, step.detail or None) for step in steps]
    emit({"steps": steps}, as_json=as_json, tables=lambda: iter([rows_table(("what", "state", ""), rows)]))
