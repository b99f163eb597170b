"""API keys of the scoring service: make, list, revoke."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fraud_pipeline.commands.output import Json, emit, field_table, remark, rows_table

if TYPE_CHECKING:
    from fraud_pipeline.adapters.api_keys import ApiKey, KeyStore
    from fraud_pipeline.settings import Settings

keys = typer.Typer(help="API keys of the scoring service: create, list, revoke.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add this area's commands."""
    app.add_typer(keys, name="keys", rich_help_panel="Serve")


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Who uses it, such as payment-gateway.")],
    scope: Annotated[
        list[str],
        typer.Option(
            "--scope",
            metavar="SCOPE",
            help="What it may do: score, label, read, or admin, which includes the others. Repeatable.",
        ),
    ],
    as_json: Json = False,
) -> None:
    """Make a key and print it, this once: only its hash is kept."""
    from datetime import UTC, datetime

    from fraud_pipeline.settings import load_settings

    with _open(load_settings()) as store:
        made, plain = store.create(name, scope, now=datetime.now(UTC))
    shown = {"key": plain, "id": made.key_id, "name": made.name, "scopes": made.granted}
    emit({**_summary(made), "key": plain}, as_json=as_json, tables=lambda: iter([field_table(shown)]))
    remark("Keep the key now: it cannot be shown again. It works within two seconds.")


@keys.command("list")
def list_(as_json: Json = False) -> None:
    """Every key that was ever made, the oldest first; never the keys themselves."""
    from fraud_pipeline.commands.opening import is_missing_file
    from fraud_pipeline.settings import load_settings

    settings = load_settings()
    found: tuple[ApiKey, ...] = ()
    if not is_missing_file(settings.ledger_url):
        with _open(settings) as store:
            found = store.list()
    if not found:
        remark("There is no key yet: `fraud keys create NAME --scope score` makes one.")
    rows = [(k.key_id, k.name, k.granted, _moment(k.created_at), k.revoked_at and _moment(k.revoked_at)) for k in found]
    emit(
        {"keys": [_summary(key) for key in found]},
        as_json=as_json,
        tables=lambda: iter([rows_table(("id", "name", "scopes", "created", "revoked"), rows)] if rows else []),
    )


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `fraud keys list` shows it.")],
    as_json: Json = False,
) -> None:
    """Make a key invalid for ever; a running service refuses it within two seconds."""
    from datetime import UTC, datetime

    from fraud_pipeline.settings import load_settings

    with _open(load_settings()) as store:
        revoked = store.revoke(key_id, now=datetime.now(UTC))
    emit(
        _summary(revoked),
        as_json=as_json,
        tables=lambda: iter([field_table({"revoked": revoked.key_id, "name": revoked.name})]),
    )


@contextmanager
def _open(settings: Settings) -> Iterator[KeyStore]:
    from fraud_pipeline.adapters.api_keys import KeyStore
    from fraud_pipeline.commands.opening import open_ledger

    with open_ledger(settings) as ledger:
        yield KeyStore(ledger.database)


def _summary(key: ApiKey) -> dict[str, Any]:
    """A key as JSON has it: without its hash."""
    return {
        "key_id": key.key_id,
        "name": key.name,
        "scopes": key.granted,
        "active": key.active,
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
    }


def _moment(moment: Any) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"
