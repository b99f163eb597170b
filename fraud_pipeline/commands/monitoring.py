"""Is everything still as it should be: drift, parity, and the reasons of one payment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fraud_pipeline.commands.output import Json, day_option, emit, field_table, progress, remark, rows_table, to_json

PANEL = "Watch"

REST_ROWS = 20_000
"""Without --rows: a minute."""


def register(app: typer.Typer) -> None:
    """Add this area's commands."""
    for command in (drift, parity, explain):
        app.command(rich_help_panel=PANEL)(command)


def drift(
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="YYYY-MM-DD", help="[default: the newest day]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare the newest payments with what the champion was trained on; exit code 1 when they have drifted."""
    from fraud_pipeline.commands.judging import drift_now
    from fraud_pipeline.settings import load_settings

    with progress("Comparing with the champion's reference"):
        verdict, champion, day = drift_now(load_settings(), as_of=day_option(as_of, "--as-of"))
    shown = {
        "status": verdict.status,
        "champion": f"version {champion}",
        "as of": day,
        "drifted": f"{len(verdict.drifted_features)} of {len(verdict.features)} inputs",
    }
    rows = [(f.feature, f.measures.score, "broken" if f.broken else "") for f in verdict.features if f.drift_detected]
    emit(
        {**verdict.to_dict(), "champion": champion, "as_of": day},
        as_json=as_json,
        tables=lambda: iter(
            [field_table(shown), *verdict.reasons, rows_table(("drifted input", "distance", ""), rows)]
        ),
    )
    raise typer.Exit(0 if verdict.status in ("stable", "watch") else 1)


def parity(
    rows: Annotated[
        int | None, typer.Option(min=1, help="Payments to compare. [default: a million, or all of --data]")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="A home that holds payments. [default: a simulated world]")
    ] = None,
    mutate: Annotated[
        Literal["ulp", "drop_event", "drop_label"] | None,
        typer.Option(help="Harm the online side on purpose: this must be found."),
    ] = None,
    through: Annotated[
        Literal["rest", "stream"] | None,
        typer.Option(
            help="rest: send them to a scoring service of its own, on a scratch home, and judge what it logged. stream: judge what"
            " scorers have written to the topics."
        ),
    ] = None,
    kills: Annotated[int, typer.Option(min=0, help="With --through: times that the service is killed on the way.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="As always here: the result is one JSON object.")] = False,  # noqa: ARG001
) -> None:
    """Prove that batch and online features agree, bit for bit; prints JSON, and exits with 1 where any value differs.

    The online side is saved and restored in the middle.
    """
    from fraud_pipeline.adapters.parity_source import check_parity
    from fraud_pipeline.settings import load_settings

    if through == "stream":
        _parity_through_stream(mutate)
    if through == "rest":
        _parity_through_rest(rows or REST_ROWS, kills, mutate)

    with progress("Comparing batch and online features") as report:
        source, result = check_parity(
            rows=rows, data=data, mutate=mutate, time_zone=load_settings().time_zone, progress=report
        )
    typer.echo(to_json({**result.to_json(), "source": source}))
    remark(
        f"{result.differing_values:,} of {result.compared_values:,} values differ; states {'agree' if result.states_equal else 'differ'}."
    )
    raise typer.Exit(0 if result.equal else 1)


def _parity_through_rest(rows: int, kills: int, mutate: Literal["ulp", "drop_event", "drop_label"] | None) -> None:
    from fraud_pipeline.served_trial import run_rest_trial
    from fraud_pipeline.settings import load_settings

    with progress("Sending payments") as report:
        result = run_rest_trial(load_settings(), rows=rows, kills=kills, mutate=mutate, progress=report)
    typer.echo(to_json(result.to_json()))
    remark(
        f"{result.answered:,} of {result.payments:,} payments answered through {result.kills} kills; {result.lost} lost, "
        f"{result.changed} changed; {result.parity['differing_values']:,} of {result.parity['compared_values']:,} values differ; "
        f"state and replay {'agree' if result.states_equal else 'differ'}."
    )
    raise typer.Exit(0 if result.passed else 1)


def _parity_through_stream(mutate: Literal["ulp", "drop_event", "drop_label"] | None) -> None:
    from fraud_pipeline.commands.opening import open_ledger
    from fraud_pipeline.commands.stream_checks import check_written
    from fraud_pipeline.settings import load_settings

    settings = load_settings()
    with open_ledger(settings) as ledger, progress("Comparing what scorers wrote with their logs"):
        result = check_written(settings, ledger, mutate=mutate)
    typer.echo(to_json(result.to_json()))
    remark(
        f"{result.payments:,} payments: {result.lost} lost, {result.doubled} doubled; {result.differing_customer_values:,} own and "
        f"{result.differing_shared_values:,} shared of {result.compared_values:,} values differ; {result.degraded_decisions:,} decisions "
        "say that they lacked something."
    )
    raise typer.Exit(0 if result.equal else 1)


def explain(
    transaction_id: Annotated[str, typer.Argument(help="The payment's id.")],
    version: Annotated[str, typer.Option("--version", help="The model: a version's number, or champion.")] = "champion",
    limit: Annotated[int, typer.Option(min=1, help="Reasons to show; --json has all.")] = 12,
    exact: Annotated[
        bool, typer.Option("--exact", help="Contributions by exact tree SHAP, with what each input means.")
    ] = False,
    png: Annotated[
        Path | None, typer.Option("--png", metavar="FILE", help="Draw them as a waterfall to this file; means --exact.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Why a payment is decided as it is: every input's value and what it added to the score, the strongest first.

    A payment that was served is explained by the decision that was given and the model that made it.
    """
    from fraud_pipeline.commands.explaining import explain_payment, write_waterfall
    from fraud_pipeline.settings import load_settings

    payment = explain_payment(load_settings(), transaction_id, version=version, exact=exact or png is not None)
    decision, explanation, exactly = payment.decision, payment.explanation, payment.exact
    if png is not None and exactly is not None:
        write_waterfall(exactly, png)
    shown = {
        "payment": f"{transaction_id}, {decision.event_time:%Y-%m-%d %H:%M:%S} UTC",
        "decision": decision.decision + (" (control)" if decision.control else ""),
        "made by": f"version {decision.model_version}, {'as served' if payment.served else 'now, from stored features'}",
        "fraud probability": decision.fraud_probability,
        "anomaly score": decision.anomaly_score,
        "risk factors": explanation.risk_factors or None,
        "raw score": f"{explanation.raw:.4f} = {explanation.bias:.4f} (bias) + the contributions",
    }
    table = rows_table(
        ("input", "value", "contribution"), [(r.feature, r.value, r.contribution) for r in explanation.reasons[:limit]]
    )
    result = {"decision": decision.as_dict(), "served": payment.served, "explanation": explanation.as_dict()}
    if exactly is not None:
        result["exact"] = exactly.as_dict()
        shown["raw score"] = f"{exactly.raw_score:.4f} = {exactly.base_value:.4f} (base value) + the contributions"
        rows = [(c.feature, c.text, c.contribution, c.meaning) for c in exactly.contributions[:limit]]
        table = rows_table(("input", "value", "contribution", "meaning"), rows)
    if png is not None:
        shown["picture"] = result["picture"] = str(png)
    emit(result, as_json=as_json, tables=lambda: iter([field_table(shown), table]))
