"""The live route from the command line: serving, and its state."""

from __future__ import annotations

from typing import Annotated

import typer

from fraud_pipeline.commands.output import Json, emit, field_table, remark

state = typer.Typer(help="The live feature state: checkpoints and rebuilding.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(serve)
    app.add_typer(state, name="state")


def serve(
    port: Annotated[int | None, typer.Option(help="Port to listen on. [default: FRAUD_REST_PORT]")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [default: FRAUD_REST_HOST]")] = None,
) -> None:
    """Start the scoring service (BentoML; stop with Ctrl-C)."""
    import os
    import sys

    from fraud_pipeline.adapters.api_keys import KeyStore
    from fraud_pipeline.adapters.ledger import Ledger
    from fraud_pipeline.adapters.ledger_writer import LedgerWriter
    from fraud_pipeline.settings import load_settings

    settings = load_settings()
    with Ledger.open(settings.ledger_url) as ledger:
        LedgerWriter.open(ledger.database).close()  # refuses here, in one line, where another process owns the log
        locked = settings.require_keys or KeyStore(ledger.database).list()
    address, number = host or settings.rest_host, port or settings.rest_port
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not locked:
        remark("No API key was ever made: only this machine may ask. `fraud keys create NAME --scope score` makes one.")
    remark(
        f"Scoring service on http://{address}:{number} (home {settings.home}); its API at /, GET /health says how it is"
    )
    arguments = ["bentoml", "serve", "serving.service:FraudScoringService", "--host", address, "--port", str(number)]
    os.execv(sys.executable, [sys.executable, "-m", *arguments])  # noqa: S606 our own interpreter, fixed arguments


@state.command()
def checkpoint(as_json: Json = False) -> None:
    """Replay the log into a checkpoint, so that the next start is quick; runs beside a service."""
    from time import perf_counter

    from fraud_pipeline.commands.opening import open_live_states
    from fraud_pipeline.settings import load_settings

    started = perf_counter()
    with open_live_states(load_settings()) as states:
        live = states.recover()
        name = states.keep(live)
    result = {"checkpoint": name, "sequence": live.sequence, "seconds": round(perf_counter() - started, 2)}
    emit(result, as_json=as_json, tables=lambda: iter([f"{name} ({result['seconds']} s)"]))


@state.command()
def rebuild(
    stream: Annotated[
        bool, typer.Option("--stream", help="The states of the Kafka scorers instead, from topics and ledger.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Build the state from the history and the whole log, not from any checkpoint, and keep it."""
    from time import perf_counter

    from fraud_pipeline.commands.opening import open_ledger, open_live_states
    from fraud_pipeline.settings import load_settings

    started = perf_counter()
    if stream:
        from fraud_pipeline.commands.stream_states import rebuild_stream

        settings = load_settings()
        with open_ledger(settings) as ledger:
            found = rebuild_stream(settings, ledger)
        found["seconds"] = round(perf_counter() - started, 2)
        emit(found, as_json=as_json, tables=lambda: iter([field_table(found)]))
        return
    with open_live_states(load_settings()) as states:
        live = states.base()
        places = states.replay(live)
        name = states.keep(live)
    seconds = perf_counter() - started
    result = {"checkpoint": name, "sequence": live.sequence, "replayed": places, "seconds": round(seconds, 2)}
    emit(result, as_json=as_json, tables=lambda: iter([f"{name}: {places:,} places replayed ({result['seconds']} s)"]))


@state.command()
def repartition(
    partitions: Annotated[int, typer.Option(min=2, max=10_000, help="How many the topics have, or are to have.")],
    drain: Annotated[
        bool, typer.Option("--drain", help="Decide first, in the old layout, what waits in the old partitions.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Divide the scorers' states among more partitions, once all scorers are stopped; raises the topics' partitions too.

    Ends with exit code 2 while a scorer runs, or while payments from before the change are not decided.
    """
    from fraud_pipeline.commands.opening import open_ledger
    from fraud_pipeline.commands.stream_states import repartition as divided
    from fraud_pipeline.settings import load_settings

    settings = load_settings()
    with open_ledger(settings) as ledger:
        found = divided(settings, ledger, partitions=partitions, drain=drain)
    emit(found, as_json=as_json, tables=lambda: iter([field_table(found)]))
