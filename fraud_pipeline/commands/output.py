"""What commands say: one result on stdout (a table, or one JSON object with --json), progress and remarks on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from typing import Annotated, Any

import typer

FILE_WIDTH = 160
"""Where nobody has a terminal, tables may be as wide as they need."""

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")]
Report = Callable[[int, int], None]
"""progress(done, total): what a long domain or adapter call reports through."""


def emit(result: Mapping[str, Any], *, as_json: bool, tables: Callable[[], Iterator[Any]] | None = None) -> None:
    """Print a result: JSON, or what `tables` yields (Rich renderables or text), or else its fields one a line."""
    if as_json:
        sys.stdout.write(to_json(result) + "\n")
        return
    from rich.console import Console

    console = (
        Console(highlight=False) if sys.stdout.isatty() else Console(soft_wrap=True, highlight=False, width=FILE_WIDTH)
    )
    for renderable in tables() if tables is not None else (field_table(result),):
        console.print(renderable)


def to_json(result: Any) -> str:
    """One line of JSON; dataclasses, dates and numpy values as they are, NaN as null, paths and the rest as text."""
    import orjson

    return orjson.dumps(result, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS).decode()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return value.item() if hasattr(value, "item") else str(value)


def field_table(fields: Mapping[str, Any]) -> Any:
    """A two-column grid of names and values."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    for name, value in fields.items():
        grid.add_row(f"[bold]{name}[/bold]", text(value))
    return grid


def rows_table(
    columns: tuple[str, ...], rows: Iterator[tuple[Any, ...]] | list[tuple[Any, ...]], *, title: str = ""
) -> Any:
    """A table with a header; numbers to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", header_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    held = [tuple(row) for row in rows]
    for index, column in enumerate(columns):
        numeric = any(isinstance(row[index], int | float) and not isinstance(row[index], bool) for row in held)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in held:
        table.add_row(*(text(value) for value in row))
    return table


def day_option(text: str | None, option: str) -> date | None:
    """The day that an option names; None where it was not given."""
    return None if text is None else day_of(text, option)


def day_of(text: str, option: str) -> date:
    """The day that an option names. Raises InputError for what is no date."""
    from fraud_pipeline.errors import InputError

    try:
        return date.fromisoformat(text)
    except ValueError as err:
        raise InputError(f"{option} {text!r} is not a date.", remedy="Write it as 2026-03-01.") from err


def gate_tables(gates: Iterable[Any]) -> Iterator[Any]:
    """Gate results: a table, and in words why one failed or warned."""
    held = list(gates)
    outcomes = {True: "passed", False: "FAILED"}
    rows = [
        (g.name, "warned" if not g.passed and g.severity.startswith("warn") else outcomes[g.passed], g.value, g.limit)
        for g in held
    ]
    yield rows_table(("gate", "result", "value", "limit"), rows)
    yield from (f"[bold]{text(g.name)}[/bold]: {text(g.explanation)}" for g in held if not g.passed)


def text(value: Any) -> str:
    """A value as a person reads it; Rich markup in it is escaped."""
    from rich.markup import escape

    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.2f}"
    if isinstance(value, list | tuple):
        return escape(", ".join(map(str, value)))
    return escape(str(value))


@contextmanager
def progress(description: str) -> Iterator[Report]:
    """A bar on stderr, drawn only where someone watches; elsewhere a line at the start and one at the end."""
    with stages() as report:
        report(description, 0, 0)
        yield lambda done, total: report(description, done, total)


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """Like `progress`, for work in stages: report(stage, done, total); a total of 0 is one not known."""
    if not sys.stderr.isatty():
        yield _StageLines().report
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                for earlier in tasks.values():
                    bar.update(earlier, total=1, completed=1)
                tasks[stage] = bar.add_task(stage, total=None)
            bar.update(tasks[stage], completed=done, total=total or None)

        yield report


class _StageLines:
    """A line for each stage, where nobody watches a bar."""

    def __init__(self) -> None:
        self._stage = ""

    def report(self, stage: str, _done: int, _total: int) -> None:
        if stage != self._stage:
            self._stage = stage
            remark(f"{stage} ...")


def remark(message: str) -> None:
    """A line for people, on stderr."""
    sys.stderr.write(message + "\n")
