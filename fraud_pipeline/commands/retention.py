"""`fraud retention`: what is old in the home and needed by nothing, deleted or only named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fraud_pipeline.commands.output import Json, emit, rows_table

if TYPE_CHECKING:
    from fraud_pipeline.adapters.retention import Retained

PANEL = "Pipeline"


def register(app: typer.Typer) -> None:
    """Add this area's commands."""
    app.command(rich_help_panel=PANEL)(retention)


def retention(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    as_json: Json = False,
) -> None:
    """Delete days, reports and local bundles older than FRAUD_DATA_RETENTION_DAYS that nothing needs any more.

    A day's age is counted from the newest day. What the features' state, a training, a promotion or a decision in the ledger still
    needs stays, whatever its age. Dagster's daily job does the same.
    """
    from fraud_pipeline.home_retention import apply_retention
    from fraud_pipeline.settings import load_settings

    settings = load_settings()
    done = apply_retention(settings, dry_run=dry_run)
    emit(done.to_json(), as_json=as_json, tables=lambda: _tables(done))


def _tables(done: Retained) -> Iterator[Any]:
    if done.cutoff is None:
        yield "Nothing is deleted: FRAUD_DATA_RETENTION_DAYS is 0, or there is no day yet."
        return
    verb = "Would free" if done.dry_run else "Freed"
    days = f"{done.days[0]} to {done.days[-1]}" if done.days else "-"
    rows = [
        ("days", len(done.days), days),
        ("reports and plots", len(done.files), ""),
        ("bundles", len(done.bundles), ""),
    ]
    yield rows_table(("what", "how many", ""), rows)
    yield f"{verb} {done.freed_bytes / 1e6:,.1f} MB of what is older than {done.cutoff}."
    for name, why in done.needed.items():
        yield f"{name} stays: {why}."
