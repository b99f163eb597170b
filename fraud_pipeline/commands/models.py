"""The model registry: what there is, who is champion, and changing that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fraud_pipeline.commands import comparing, model_history
from fraud_pipeline.commands.output import Json, emit, progress, remark, rows_table
from fraud_pipeline.commands.versions import Version, detail, find_version, summary, version_tables

if TYPE_CHECKING:
    from fraud_pipeline.domain.promotion import Challenger, Promotion
    from fraud_pipeline.settings import Settings

models = typer.Typer(
    help="Registered models: list, show, history, promote, roll back, challenge.", no_args_is_help=True
)
SHOWN = ("pr_auc", "roc_auc", "recall", "net_value")
"""Metrics worth a column in the list."""

Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the ledger for ever.")]


def register(app: typer.Typer) -> None:
    """Add this area's commands."""
    app.add_typer(models, name="models", rich_help_panel="Models")


@models.command("list")
def list_(as_json: Json = False) -> None:
    """Every registered version, the newest first, with its verdict and main metrics."""
    from fraud_pipeline.commands.opening import is_missing_file, open_registry
    from fraud_pipeline.settings import load_settings

    settings = load_settings()
    versions = [] if is_missing_file(settings.mlflow_tracking_uri) else open_registry(settings).versions()
    if not versions:
        remark("No version is registered yet: `fraud run` trains and registers one.")
    stands = _standing(settings)
    rows = [
        (
            v.version,
            v.verdict,
            v.aliases,
            stands.get(v.version, ""),
            v.tags.get("kind"),
            v.training_window,
            *(v.metric(m) for m in SHOWN),
            f"{v.created_at:%Y-%m-%d %H:%M}",
        )
        for v in versions
    ]
    columns = ("version", "verdict", "alias", "story", "kind", "trained on", *SHOWN, "registered")
    emit(
        {"versions": [{**summary(v), "story": stands.get(v.version)} for v in versions]},
        as_json=as_json,
        tables=lambda: iter([rows_table(columns, rows)] if rows else []),
    )


models.command()(model_history.history)


@models.command()
def show(
    version: Version,
    card: Annotated[bool, typer.Option("--card", help="Print the model card (Markdown) instead.")] = False,
    as_json: Json = False,
) -> None:
    """One version: its gates with the reason for each, its metrics with intervals, where it comes from."""
    from fraud_pipeline.commands.opening import open_registry
    from fraud_pipeline.settings import load_settings

    registry = open_registry(load_settings())
    found = find_version(registry, version)
    if card:
        from fraud_pipeline.domain.bundle import ModelBundle

        emit({"model_card": ModelBundle.load(registry.fetch(found.version)).model_card()}, as_json=as_json)
        return
    emit(detail(found), as_json=as_json, tables=lambda: version_tables(found))


@models.command()
def promote(
    version: Version,
    force: Annotated[
        bool, typer.Option("--force", help="Pass over its gates; wants --reason, and is recorded as forced.")
    ] = False,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Make a version champion, if its gates passed against the present one."""
    from fraud_pipeline.adapters.promotions import promote as promote_version
    from fraud_pipeline.commands.opening import open_ledger, open_registry
    from fraud_pipeline.domain.gates import REQUIRED_GATES
    from fraud_pipeline.settings import load_settings

    settings = load_settings()
    registry = open_registry(settings)
    with open_ledger(settings) as ledger:
        number = find_version(registry, version).version
        promotion = promote_version(
            ledger, registry, number, who=_who(), required_gates=REQUIRED_GATES, reason=reason, force=force
        )
    _emit_promotion(promotion, as_json=as_json)


@models.command()
def rollback(
    to: Annotated[int | None, typer.Option("--to", help="An earlier champion. [default: the one before]")] = None,
    reason: Reason = "rolled back by hand",
    as_json: Json = False,
) -> None:
    """Make an earlier champion champion again."""
    from fraud_pipeline.adapters.promotions import rollback as roll_back
    from fraud_pipeline.commands.opening import open_ledger, open_registry
    from fraud_pipeline.errors import DependencyError
    from fraud_pipeline.settings import load_settings

    settings = load_settings()
    registry = None
    try:
        registry = open_registry(settings)
    except DependencyError as err:  # to go back must work while MLflow is away
        remark(f"{err.message} The rollback is written to the ledger; the alias is set later.")
    with open_ledger(settings) as ledger:
        promotion = roll_back(ledger, registry, who=_who(), reason=reason, to_version=to)
    _emit_promotion(promotion, as_json=as_json)


models.command()(comparing.compare)


@models.command()
def challenge(
    version: Annotated[
        str | None,
        typer.Argument(metavar="VERSION", help="A version's number, or candidate. Its gates must have passed."),
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="Have no challenger from now on.")] = False,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Let a version score every payment beside the champion, in shadow; a running service has it within 2 s."""
    from fraud_pipeline.adapters.promotions import appoint_challenger, current_challenger, dismiss_challenger
    from fraud_pipeline.commands.opening import open_ledger, open_registry
    from fraud_pipeline.domain.gates import REQUIRED_GATES
    from fraud_pipeline.errors import InputError
    from fraud_pipeline.settings import load_settings

    if (version is None) == (not none):
        raise InputError("Who is to challenge?", remedy="Give one VERSION, or --none for no challenger.")
    settings = load_settings()
    registry = open_registry(settings)
    with open_ledger(settings) as ledger:
        if version is None:
            before = dismiss_challenger(ledger, registry, who=_who(), reason=reason)
        else:
            number = find_version(registry, version).version
            before = current_challenger(ledger)
            registry.fetch(number)  # into this home, where a service without MLflow finds it
            appoint_challenger(ledger, registry, number, who=_who(), reason=reason, required_gates=REQUIRED_GATES)
        now = current_challenger(ledger)
    emit(
        {"challenger": now, "before": before}, as_json=as_json, tables=lambda: iter([_challenger_sentence(now, before)])
    )


@models.command()
def rethreshold(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="A version's number, or champion.")] = "champion",
    alert_budget: Annotated[float | None, typer.Option(help="Share of payments. [default: FRAUD_ALERT_BUDGET]")] = None,
    review_cost: Annotated[float | None, typer.Option(help="[default: FRAUD_REVIEW_COST]")] = None,
    false_block_cost: Annotated[float | None, typer.Option(help="[default: FRAUD_FALSE_BLOCK_COST]")] = None,
    as_json: Json = False,
) -> None:
    """Choose thresholds anew for a model, without training: a new version through the same gates."""
    from fraud_pipeline.commands.judging import rethreshold as choose_anew
    from fraud_pipeline.commands.opening import open_registry
    from fraud_pipeline.settings import load_settings

    changes = {"alert_budget": alert_budget, "review_cost": review_cost, "false_block_cost": false_block_cost}
    settings = load_settings().model_copy(update={name: value for name, value in changes.items() if value is not None})
    registry = open_registry(settings)
    with progress("Choosing thresholds"):
        made = choose_anew(settings, find_version(registry, version))
    emit(detail(made), as_json=as_json, tables=lambda: version_tables(made))
    raise typer.Exit(0 if made.verdict == "passed" else 1)


def _standing(settings: Settings) -> dict[int, str]:
    """What became of each version that was ever champion, by the ledger."""
    from fraud_pipeline.commands.opening import is_missing_file, open_ledger
    from fraud_pipeline.domain.model_story import standing

    if is_missing_file(settings.ledger_url):
        return {}
    with open_ledger(settings) as ledger:
        return standing(ledger.promotions())


def _who() -> str:
    import getpass

    return f"{getpass.getuser()} (fraud models)"


def _challenger_sentence(now: Challenger | None, before: Challenger | None) -> str:
    if now is None:
        return "There was no challenger." if before is None else f"Version {before.version} challenges no more."
    replaced = before is not None and before.version != now.version
    return f"Version {now.version} challenges{f' instead of {before.version}' if replaced and before else ''}."


def _emit_promotion(promotion: Promotion, *, as_json: bool) -> None:
    emit({"promotion": promotion}, as_json=as_json, tables=lambda: iter([_sentence(promotion)]))


def _sentence(promotion: Promotion) -> str:
    before = (
        "there was none before" if promotion.previous_version is None else f"instead of {promotion.previous_version}"
    )
    return f"Version {promotion.version} is champion ({promotion.kind}, {before})."
