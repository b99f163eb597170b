"""Where payments come from, and what leaves again: simulate, import, export."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fraud_pipeline.commands.output import Json, day_of, day_option, emit, field_table, progress, remark, rows_table

PANEL = "Data"
export = typer.Typer(help="Write data for other tools.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add this area's commands."""
    app.command(rich_help_panel=PANEL)(simulate)
    app.command("import", rich_help_panel=PANEL)(import_)
    app.add_typer(export, name="export", rich_help_panel=PANEL)


Out = Annotated[Path | None, typer.Option("--out", help="The home to land it in. [default: FRAUD_HOME]")]


def simulate(
    customers: Annotated[int | None, typer.Option(help="Customers. [default: FRAUD_CUSTOMERS]")] = None,
    merchants: Annotated[int | None, typer.Option(help="Merchants. [default: FRAUD_MERCHANTS]")] = None,
    days: Annotated[int | None, typer.Option(help="Days of history. [default: FRAUD_DAYS]")] = None,
    rate: Annotated[float | None, typer.Option(help="Payments per customer and day. [default: FRAUD_RATE]")] = None,
    fraud_rate: Annotated[float | None, typer.Option(help="Share of fraud. [default: FRAUD_FRAUD_RATE]")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same world. [default: FRAUD_SEED]")] = None,
    end: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="The day after the last. [default: today, UTC]")
    ] = None,
    drift: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND@DATE",
            help="A change from that day: inflation, new_channel, new_fraud, sensor_fault, covid. Repeatable.",
        ),
    ] = None,
    label_delay: Annotated[
        tuple[float, float], typer.Option(metavar="MIN MAX", help="Days until a chargeback is known.")
    ] = (1, 30),
    unlabelled: Annotated[float, typer.Option(help="Share of frauds that nobody ever reports.")] = 0.05,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Make a world of payments: customers with habits, fraud in campaigns, labels that come late."""
    from datetime import UTC, datetime
    from time import perf_counter

    from fraud_pipeline.adapters.source_store import SourceStore
    from fraud_pipeline.adapters.world_source import land_world, settled_config
    from fraud_pipeline.domain.simulation_config import Drift, WorldConfig
    from fraud_pipeline.settings import load_settings

    settings = load_settings()
    home = (out or settings.home).expanduser().absolute()
    now = datetime.now(UTC)
    config = WorldConfig(
        end=day_option(end, "--end") or now.date(),
        customers=settings.customers if customers is None else customers,
        merchants=settings.merchants if merchants is None else merchants,
        days=settings.days if days is None else days,
        rate=settings.rate if rate is None else rate,
        fraud_rate=settings.fraud_rate if fraud_rate is None else fraud_rate,
        seed=settings.seed if seed is None else seed,
        label_delay_days=label_delay,
        unlabelled_share=unlabelled,
        drifts=tuple(Drift.parse(text) for text in drift or ()),
        currency=settings.currency,
    )
    if end is None:
        config = settled_config(config, home=home)
    there = SourceStore(home).exists()
    started = perf_counter()
    with progress("Simulating payments") as report:
        world = land_world(config, home=home, created_at=now, progress=report)
    seconds = perf_counter() - started
    result = {**world.to_json(), "home": home, "unchanged": there, "seconds": round(seconds, 2)}
    shown = {
        "world": world.name,
        "payments": world.rows,
        "frauds": world.frauds,
        "labels": world.labels,
        "days": f"{world.start} to {world.end} (exclusive)",
        "home": home,
    }
    emit(result, as_json=as_json, tables=lambda: iter([field_table(shown)]))
    remark(
        "This world was there already: nothing changed." if there else f"{world.rows / seconds:,.0f} payments a second."
    )


def import_(
    file: Annotated[Path, typer.Argument(help="A CSV or Parquet file.")],
    mapping: Annotated[
        str, typer.Option("--mapping", "-m", help="handbook, sparkov, ulb, or a TOML file of your own.")
    ],
    max_reject_share: Annotated[
        float, typer.Option(min=0, max=1, help="Import nothing if more rows than this are rejected.")
    ] = 0.01,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Land your own payments: column by column onto the contract, bad rows into a quarantine file."""
    from fraud_pipeline.adapters.import_mapping import load_mapping
    from fraud_pipeline.adapters.importer import import_file
    from fraud_pipeline.settings import load_settings

    settings = load_settings()
    home = (out or settings.home).expanduser().absolute()
    with progress(f"Importing {file.name}") as report:
        summary = import_file(
            file,
            load_mapping(mapping),
            home=home,
            currency=settings.currency,
            max_reject_share=max_reject_share,
            progress=report,
        )
    reasons = list(summary.reasons.items())
    shown = {
        "rows": summary.rows,
        "accepted": summary.accepted,
        "rejected": summary.rejected,
        "frauds": summary.frauds,
        "days": f"{summary.start} to {summary.end} (exclusive)",
        "home": home,
        **({"quarantine": summary.quarantine} if summary.rejected else {}),
    }
    tables = [field_table(shown), *([rows_table(("rejected because", "rows"), reasons)] if reasons else [])]
    emit({**asdict(summary), "home": home}, as_json=as_json, tables=lambda: iter(tables))
    if summary.unchanged:
        remark("These payments were there already: nothing changed.")


@export.command("training-set")
def training_set(
    as_of: Annotated[
        str, typer.Option("--as-of", metavar="YYYY-MM-DD", help="What was known at the midnight that begins this day.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The Parquet file to write.")] = Path("training_set.parquet"),
    as_json: Json = False,
) -> None:
    """Write the labelled features as they were known at a moment: one row a payment, for training elsewhere."""
    from fraud_pipeline.pipeline_run import export_training_set
    from fraud_pipeline.settings import load_settings

    with progress("Reading features and labels"):
        summary = export_training_set(load_settings(), as_of=day_of(as_of, "--as-of"), path=out)
    emit(summary, as_json=as_json)
