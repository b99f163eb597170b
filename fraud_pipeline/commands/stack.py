"""The production topology on this machine without Docker: what docker-compose.yml says, as processes on loopback."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fraud_pipeline.commands.output import Json, emit, remark, rows_table, text

if TYPE_CHECKING:
    from fraud_pipeline.adapters.stack.stack import Stack

LOG_LINES = 50
"""What `logs` shows: a screen."""

stack = typer.Typer(
    help="The production topology without Docker: what docker-compose.yml says, as processes on loopback.",
    no_args_is_help=True,
)
File = Annotated[Path, typer.Option("--file", "-f", help="The compose file.")]
COMPOSE = Path("docker-compose.yml")
Only = Annotated[
    str, typer.Option(metavar="NAME,NAME", help="These services alone; `up` starts what they depend on, too.")
]


def register(app: typer.Typer) -> None:
    """Add this area's commands."""
    app.add_typer(stack, name="stack", rich_help_panel="Stack")


@stack.command()
def up(
    only: Only = "",
    profile: Annotated[list[str] | None, typer.Option(help="Services of a profile too, such as demo.")] = None,
    port: Annotated[
        list[str] | None, typer.Option(metavar="NAME=PORT", help="Port of a service; else its last one. Repeatable.")
    ] = None,
    file: File = COMPOSE,
    as_json: Json = False,
) -> None:
    """Start everything that does not run, in order, and print the settings that use it: `eval "$(fraud stack up)"`.

    It goes on until `down`. Nobody restarts what ends by itself, as Docker would: `up` again does. A fresh stack has no champion:
    `fraud run` with the printed settings makes one, and service and scorers take it up by themselves.
    """
    found = _opened(file, _ports(port or ()))
    found.up(_names(only), profiles=profile or (), progress=lambda name, state: remark(f"{name}: {state}"))
    _show(found, as_json=as_json, settings=True)


@stack.command()
def down(only: Only = "", file: File = COMPOSE, as_json: Json = False) -> None:
    """Stop everything, the last one first; what it holds and its ports stay for the next `up`."""
    ended = _opened(file).down(_names(only), progress=lambda name, state: remark(f"{name}: {state}"))
    emit({"stopped": ended}, as_json=as_json, tables=lambda: iter(()))


@stack.command()
def status(file: File = COMPOSE, as_json: Json = False) -> None:
    """Which services run, where, and whether their health checks pass; exit code 1 where one that runs is not healthy."""
    found = _opened(file)
    states = _show(found, as_json=as_json, settings=False)
    raise typer.Exit(1 if any(one.state == "starting or ill" for one in states) else 0)


@stack.command()
def logs(
    name: Annotated[str, typer.Argument(metavar="SERVICE", help="Which.")],
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="How many, from the end.")] = LOG_LINES,
    file: File = COMPOSE,
    as_json: Json = False,
) -> None:
    """The end of a service's log."""
    from fraud_pipeline.errors import NotFound

    log = _opened(file).log_of(name)
    if not log.exists():
        raise NotFound(f"{name} has no log: it was never started.", remedy="`fraud stack up` starts it.")
    said = log.read_text(errors="replace").splitlines()[-lines:]
    emit({"log": log, "lines": said}, as_json=as_json, tables=lambda: iter([text("\n".join(said))]))


def _opened(file: Path, ports: dict[str, int] | None = None) -> Stack:
    import os

    from fraud_pipeline.adapters.stack.compose_file import read_compose
    from fraud_pipeline.adapters.stack.stack import Stack, variables_of
    from fraud_pipeline.settings import load_settings

    variables = variables_of(file.absolute().parent, os.environ)
    # Passwords that compose demands protect nothing on servers that listen on loopback and ask for none.
    return Stack(read_compose(file, variables, lenient=True), load_settings().home, ports=ports)


def _show(found: Stack, *, as_json: bool, settings: bool) -> list[Any]:
    states = found.status()
    rows = [(one.service, one.state, one.address, None if one.pid is None else str(one.pid), one.log) for one in states]
    lines = [f"export {name}='{value}'" for name, value in found.settings.items()]
    emit(
        {"services": states, "settings": found.settings},
        as_json=as_json,
        tables=lambda: (
            iter(lines) if settings else iter([rows_table(("service", "state", "address", "pid", "log"), rows)])
        ),
    )
    return states


def _names(only: str) -> list[str]:
    return [name.strip() for name in only.split(",") if name.strip()]


def _ports(entries: list[str] | tuple[()]) -> dict[str, int]:
    from fraud_pipeline.errors import InputError

    found = {}
    for entry in entries:
        name, _, number = entry.partition("=")
        if not number.isdecimal() or not 0 < int(number) < 65_536:
            raise InputError(f"--port {entry!r} is not NAME=PORT.", remedy="Such as: --port dagster-webserver=3100.")
        found[name] = int(number)
    return found
