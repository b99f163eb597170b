"""Registered versions as commands name and show them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fraud_pipeline.commands.output import field_table, gate_tables, rows_table

if TYPE_CHECKING:
    from fraud_pipeline.adapters.model_registry import ModelRegistry
    from fraud_pipeline.adapters.registered_version import RegisteredVersion

ALIASES = ("champion", "challenger", "candidate")
"""The one that serves, the one in shadow, and the one that was judged last."""

Version = Annotated[
    str, typer.Argument(metavar="VERSION", help="A version's number, or champion, challenger or candidate.")
]


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


def summary(version: RegisteredVersion) -> dict[str, Any]:
    """What a list says of a version."""
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


def detail(version: RegisteredVersion) -> dict[str, Any]:
    """`summary`, its gates and its tags."""
    gates = [] if version.gates is None else list(version.gates.results)
    shown = {"gates", "metrics", "reason", "verdict", "fingerprint"}
    return {**summary(version), "gates": gates, "tags": {k: v for k, v in version.tags.items() if k not in shown}}


def version_tables(version: RegisteredVersion) -> Iterator[Any]:
    """`detail` for people."""
    skipped = {"metrics", "aliases", "version"}
    yield field_table(
        {
            "version": version.version,
            "alias": version.aliases or None,
            **{k: v for k, v in summary(version).items() if k not in skipped},
        }
    )
    if version.gates is not None:
        yield from gate_tables(version.gates.results)
    yield rows_table(
        ("metric", "value [95 % interval]"), [(name, interval(value)) for name, value in version.metrics.items()]
    )


def interval(metric: Any) -> str | None:
    """A metric with its interval, where it has one."""
    if isinstance(metric, Mapping):
        return f"{_number(metric.get('value'))} [{_number(metric.get('low'))}, {_number(metric.get('high'))}]"
    return None if metric is None else _number(metric)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4f}" if abs(value) < 1000 else f"{value:,.0f}"
