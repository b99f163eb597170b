"""Real servers on this machine, for development: Kafka, PostgreSQL and Valkey without Docker and without root."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fraud_pipeline.commands.output import Json, emit, remark, rows_table, text

if TYPE_CHECKING:
    from fraud_pipeline.adapters.local_services.server import LocalServer

LOG_LINES = 50
"""What `logs` shows: a screen."""

services = typer.Typer(
    help="Real servers on this machine, for development: Kafka, PostgreSQL, Valkey (as redis); no Docker, no root.",
    no_args_is_help=True,
)
Names = Annotated[list[str] | None, typer.Argument(metavar="[kafka] [postgres] [redis]", help="Which; all if none.")]


def register(app: typer.Typer) -> None:
    """Add this area's commands."""
    app.add_typer(services, name="services", rich_help_panel="Serve")


@services.command()
def up(
    names: Names = None,
    port: Annotated[
        int,
        typer.Option(min=0, max=65_535, help="Port to listen on, for one service; else its last one, or a free one."),
    ] = 0,
    as_json: Json = False,
) -> None:
    """Start servers and print the settings that use them: `eval "$(fraud services up)"`. They go on until `down`."""
    from fraud_pipeline.errors import InputError

    if port and len(set(names or ())) != 1:
        raise InputError(
            "--port is for one service.", remedy="Name the one, such as: fraud services up kafka --port 9092."
        )
    found = _servers(names, port=port)
    for server in found:
        ran_before = server.is_running
        if not ran_before:
            remark(f"{server.title}: starting ...")
        server.start()
        remark(
            f"{server.title}: {'runs already' if ran_before else 'ready'} at {server.address} (process {server.pid})"
        )
    settings = {name: value for server in found for name, value in server.exports.items()}
    emit(
        {"services": [_summary(server) for server in found], "settings": settings},
        as_json=as_json,
        tables=lambda: (f"export {name}={value}" for name, value in settings.items()),
    )


@services.command()
def down(names: Names = None, as_json: Json = False) -> None:
    """Stop servers; what they hold and their ports stay for the next `up`."""
    stopped = []
    for server in _servers(names):
        if server.is_running:
            server.stop()
            stopped.append(server.name)
        remark(f"{server.title}: {'stopped' if server.name in stopped else 'not running'}")
    emit({"stopped": stopped}, as_json=as_json, tables=lambda: iter(()))


@services.command()
def status(names: Names = None, as_json: Json = False) -> None:
    """Which servers run, where, and whether they answer."""
    found = [_summary(server) for server in _servers(names)]
    columns = ("service", "state", "address", "pid", "log")
    emit(
        {"services": found},
        as_json=as_json,
        tables=lambda: iter([rows_table(columns, [tuple(_shown(one[column]) for column in columns) for one in found])]),
    )


@services.command()
def logs(
    name: Annotated[str, typer.Argument(metavar="kafka|postgres|redis", help="Which.")],
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="How many, from the end.")] = LOG_LINES,
    as_json: Json = False,
) -> None:
    """The end of a server's log."""
    from fraud_pipeline.errors import NotFound

    (server,) = _servers([name])
    if not server.log.exists():
        raise NotFound(f"{server.title} has no log: it was never started.", remedy=f"`fraud services up {name}`")
    said = server.said(lines)
    emit({"log": str(server.log), "lines": said.splitlines()}, as_json=as_json, tables=lambda: iter([text(said)]))


def _servers(names: list[str] | None, *, port: int = 0) -> list[LocalServer]:
    from fraud_pipeline.adapters.local_services.catalogue import servers_of
    from fraud_pipeline.settings import load_settings

    return servers_of(load_settings().home, names or (), port=port)


def _summary(server: LocalServer) -> dict[str, Any]:
    """A server as JSON has it."""
    state = "stopped" if not server.is_running else "running" if server.answers else "does not answer"
    return {
        "service": server.name,
        "title": server.title,
        "state": state,
        "address": server.address if server.port else None,
        "port": server.port or None,
        "pid": server.pid,
        "log": str(server.log) if server.log.exists() else None,
        "settings": server.exports if state == "running" else {},
    }


def _shown(value: Any) -> Any:
    """A process number is a name, not a quantity: no thousands separator."""
    return str(value) if isinstance(value, int) else value
