"""This machine: what it has and lacks, how it is configured, compiled kernels, the Dagster UI."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from fraud_pipeline.commands.output import Json, emit, remark, rows_table, text

if TYPE_CHECKING:
    from fraud_pipeline.commands.diagnosis import Finding

PANEL = "This machine"


def register(app: typer.Typer) -> None:
    """Add this area's commands."""
    for command in (doctor, settings, warm, dev):
        app.command(rich_help_panel=PANEL)(command)


def doctor(as_json: Json = False) -> None:
    """Check versions, addresses, disk and permissions; say what is missing and how to start it."""
    from fraud_pipeline.commands.diagnosis import diagnose

    findings = diagnose()
    broken = any(finding.status == "broken" for finding in findings)
    emit({"healthy": not broken, "findings": findings}, as_json=as_json, tables=lambda: _finding_lines(findings))
    raise typer.Exit(2 if broken else 0)


def _finding_lines(findings: list[Finding]) -> Iterator[str]:
    colours = {"ok": "green", "note": "yellow", "broken": "red"}
    for finding in findings:
        mark = f"[{colours[finding.status]}]{finding.status:<6}[/]"
        yield f"{mark} [bold]{finding.name:<20}[/bold] {text(finding.detail)}"
        if finding.remedy:
            yield f"{'':27} -> {text(finding.remedy)}"


def settings(as_json: Json = False) -> None:
    """Every setting: its value here, and whether it was set or is the default. Passwords are not shown."""
    from fraud_pipeline.settings import Settings, load_settings, variable, without_password

    loaded = load_settings()
    values = {variable(name): without_password(str(getattr(loaded, name))) for name in Settings.model_fields}
    origin = {variable(name): "set" if name in loaded.model_fields_set else "default" for name in Settings.model_fields}
    emit(
        {name: {"value": value, "origin": origin[name]} for name, value in values.items()},
        as_json=as_json,
        tables=lambda: iter(
            [rows_table(("variable", "value", "from"), [(n, v, origin[n]) for n, v in values.items()])]
        ),
    )


def warm(as_json: Json = False) -> None:
    """Compile the feature kernels, so that nothing later waits for it; instant when they are compiled already."""
    from time import perf_counter

    from fraud_pipeline.domain import kernel_cache

    if not any(kernel_cache.CACHE_DIR.glob("**/*.nbi")):
        remark("Compiling the feature kernels (once for each version of them, about a minute) ...")
    started = perf_counter()
    from fraud_pipeline.domain import customer_record, feature_batch, feature_many_writers, payment_columns

    for kernels in (feature_batch, feature_many_writers, customer_record, payment_columns):
        kernels.warm()
    result = {"seconds": round(perf_counter() - started, 2), "folder": str(kernel_cache.CACHE_DIR)}
    emit(result, as_json=as_json, tables=lambda: iter([f"Kernels are compiled ({result['seconds']} s)."]))


def dev(
    port: Annotated[int, typer.Option(help="Port of the Dagster UI.")] = 3000,
    host: Annotated[str, typer.Option(help="Address to listen on; the UI has no login.")] = "127.0.0.1",
) -> None:
    """Start the Dagster UI and its daemon on the embedded home (stop with Ctrl-C)."""
    import os
    import sys
    from pathlib import Path

    from fraud_pipeline.dagster_home import prepare_dagster_home
    from fraud_pipeline.errors import InputError
    from fraud_pipeline.settings import load_settings

    workspace = Path("workspace.yaml")
    if not workspace.exists():
        raise InputError("There is no workspace.yaml here.", remedy="Run `fraud dev` in the project's folder.")
    home = prepare_dagster_home(load_settings())
    os.environ["DAGSTER_HOME"] = str(home)
    remark(f"Dagster UI on http://{host}:{port} (home {home})")
    arguments = ["dagster", "dev", "-w", str(workspace), "-h", host, "-p", str(port)]
    os.execv(sys.executable, [sys.executable, "-m", *arguments])  # noqa: S606 our own interpreter, fixed arguments
