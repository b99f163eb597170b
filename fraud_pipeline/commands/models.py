"""The model registry: what there is, who is champion, and changing that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fraud_pipeline.commands.output import Json, emit, field_table, gate_tables, progress, remark, rows_table

if TYPE_CHECKING:
    from fraud_pipeline.adapters.model_registry import ModelRegistry
    from fraud_pipeline.adapters.registered_version import RegisteredVersion
    from fraud_pipeline.domain.promotion import Promotion

models = typer.Typer(help="Registered models: list, show, promote, roll back.", no_args_is_help=True)
SHOWN = ("pr_auc", "roc_auc", "recall", "net_value")
"""Metrics worth a column in the list."""

ALIASES = ("champion", "challenger", "candidate")
"""The one that serves, the one in shadow, and the one that was judged last."""

Version = Annotated[
    str, typer.Argument(metavar="VERSION", help="A version's number, or champion, challenger or candidate.")
]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept with the promotion for ever.")]


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
    rows = [
        (
            v.version,
            v.verdict,
            v.aliases,
            v.tags.get("kind"),
            v.training_window,
            *(v.metric(m) for m in SHOWN),
            f"{v.created_at:%Y-%m-%d %H:%M}",
        )
        for v in versions
    ]
    columns = ("version", "verdict", "alias", "kind", "trained on", *SHOWN, "registered")
    emit(
        {"versions": [_summary(v) for v in versions]},
        as_json=as_json,
        tables=lambda: iter([rows_table(columns, rows)] if rows else []),
    )


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
    emit(_detail(found), as_json=as_json, tables=lambda: _version_tables(found))


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
    from fraud_pipeline.settings import load_settings

    settings = load_settings()
    registry = open_registry(settings)
    with open_ledger(settings) as ledger:
        promotion = roll_back(ledger, registry, who=_who(), reason=reason, to_version=to)
    _emit_promotion(promotion, as_json=as_json)


@models.command()
def compare(
    version: Version,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="What to compare it with.")] = "champion",
    as_json: Json = False,
) -> None:
    """Two versions' metrics side by side, each on its own test period."""
    from fraud_pipeline.commands.opening import open_registry
    from fraud_pipeline.settings import load_settings

    registry = open_registry(load_settings())
    left, right = find_version(registry, version), find_version(registry, other)
    rows = [
        (name, _interval(left.metrics.get(name)), _interval(right.metrics.get(name)), _difference(left, right, name))
        for name in sorted({*left.metrics, *right.metrics})
    ]
    periods = {
        f"version {v.version}": f"trained on {v.training_window}, as of {v.tags.get('as_of')}" for v in (left, right)
    }
    columns = ("metric", f"version {left.version}", f"version {right.version}", "difference")
    emit(
        {
            "versions": [_summary(left), _summary(right)],
            "differences": {name: _difference(left, right, name) for name, *_ in rows},
        },
        as_json=as_json,
        tables=lambda: iter([field_table(periods), rows_table(columns, rows)]),
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
    emit(_detail(made), as_json=as_json, tables=lambda: _version_tables(made))
    raise typer.Exit(0 if made.verdict == "passed" else 1)


def find_version(registry: ModelRegistry, name: str) -> RegisteredVersion:
    """A version by its number or alias. Raises NotFound, or InputError for what is neither."""
    from fraud_pipeline.errors import InputError, NotFound

    if name in ALIASES:
        found = next((version for version in registry.versions() if name in version.aliases), None)
        if found is None:
            raise NotFound(
                f"There is no {name}.", remedy="`fraud models list` shows what there is; `fraud run` trains one."
            )
        return found
    if not name.isdecimal():
        raise InputError(f"{name!r} is no version.", remedy=f"Give a number, or {', '.join(ALIASES)}.")
    return registry.version(int(name))


def _who() -> str:
    import getpass

    return f"{getpass.getuser()} (fraud models)"


def _emit_promotion(promotion: Promotion, *, as_json: bool) -> None:
    emit({"promotion": promotion}, as_json=as_json, tables=lambda: iter([_sentence(promotion)]))


def _sentence(promotion: Promotion) -> str:
    before = (
        "there was none before" if promotion.previous_version is None else f"instead of {promotion.previous_version}"
    )
    return f"Version {promotion.version} is champion ({promotion.kind}, {before})."


def _summary(version: RegisteredVersion) -> dict[str, Any]:
    return {
        "version": version.version,
        "verdict": version.verdict,
        "reason": version.reason,
        "aliases": version.aliases,
        "kind": version.tags.get("kind"),
        "fingerprint": version.fingerprint,
        "training_window": version.training_window,
        "metrics": version.metrics,
        "registered": version.created_at,
        "run_id": version.run_id,
    }


def _detail(version: RegisteredVersion) -> dict[str, Any]:
    gates = [] if version.gates is None else list(version.gates.results)
    shown = {"gates", "metrics", "reason", "verdict", "fingerprint"}
    return {**_summary(version), "gates": gates, "tags": {k: v for k, v in version.tags.items() if k not in shown}}


def _version_tables(version: RegisteredVersion) -> Iterator[Any]:
    skipped = {"metrics", "aliases", "version"}
    yield field_table(
        {
            "version": version.version,
            "alias": version.aliases or None,
            **{k: v for k, v in _summary(version).items() if k not in skipped},
        }
    )
    if version.gates is not None:
        yield from gate_tables(version.gates.results)
    yield rows_table(
        ("metric", "value [95 % interval]"), [(name, _interval(value)) for name, value in version.metrics.items()]
    )


def _interval(metric: Any) -> str | None:
    if isinstance(metric, Mapping):
        return f"{_number(metric.get('value'))} [{_number(metric.get('low'))}, {_number(metric.get('high'))}]"
    return None if metric is None else _number(metric)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4f}" if abs(value) < 1000 else f"{value:,.0f}"


def _difference(left: RegisteredVersion, right: RegisteredVersion, name: str) -> float | None:
    ours, theirs = left.metric(name), right.metric(name)
    return None if ours is None or theirs is None else ours - theirs
