"""`fraud loadtest`: load on a running scoring service, watched as it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fraud_pipeline.commands.output import Json, emit, rows_table, text

if TYPE_CHECKING:
    from fraud_pipeline.adapters.load_generator import LoadPlan, Tally
    from fraud_pipeline.adapters.simulated_traffic import SimulatedTraffic

PANEL = "Serving"
REDRAWN_PER_S = 4


def register(app: typer.Typer) -> None:
    """Add this area's commands."""
    app.command(rich_help_panel=PANEL)(loadtest)


def loadtest(
    url: Annotated[str, typer.Argument(help="Address of the service.", show_default=False)],
    rate: Annotated[
        float, typer.Option(min=0, help="Requests per second, on a fixed schedule; 0: as fast as answers come.")
    ] = 100.0,
    duration: Annotated[float, typer.Option(min=0.1, help="Seconds.")] = 30.0,
    connections: Annotated[int, typer.Option(min=1, max=512, help="Requests under way at once, at most.")] = 16,
    key: Annotated[str, typer.Option(envvar="FRAUD_API_KEY", help="API key with the scope `score`.")] = "",
    batch: Annotated[
        int, typer.Option(min=0, max=5_000, help="Payments per request by POST /score_batch; 0: POST /score.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulated payments.")] = 42,
    customers: Annotated[int, typer.Option(min=1, help="Customers who pay.")] = 1_500,
    as_json: Json = False,
) -> None:
    """Send simulated payments of now to a running service; latency counts from when each request was due.

    Each payment is new and is decided and recorded like any other: use a service whose home may hold them. Ends with exit
    code 1 if a request failed; Ctrl-C ends it early, with the result so far.
    """
    from fraud_pipeline.adapters.load_generator import LoadPlan, Tally
    from fraud_pipeline.adapters.simulated_traffic import SimulatedTraffic, utc_now
    from fraud_pipeline.domain.simulation_config import WorldConfig
    from fraud_pipeline.errors import InputError

    if not url.startswith(("http://", "https://")):
        raise InputError(f"{url!r} is not an address.", remedy="Write it as http://127.0.0.1:3001.")
    traffic = SimulatedTraffic(WorldConfig(end=utc_now().date(), days=1, customers=customers, seed=seed))
    route = "/score_batch" if batch else "/score"
    plan = LoadPlan(url=url.rstrip("/") + route, duration_s=duration, rate=rate, connections=connections, key=key)
    tally = Tally()
    interrupted = _watched(plan, traffic, tally, batch=batch)
    result = {"url": plan.url, "rate": rate, "connections": connections, "batch": batch, "interrupted": interrupted}
    emit({**result, **tally.as_dict()}, as_json=as_json, tables=lambda: _tables(tally))
    raise typer.Exit(1 if tally.failed or not tally.answered else 0)


def _watched(plan: LoadPlan, traffic: SimulatedTraffic, tally: Tally, *, batch: int) -> bool:
    """Run the load with its numbers on stderr; whether it was interrupted."""
    import sys

    from rich.console import Console
    from rich.live import Live

    from fraud_pipeline.adapters.load_generator import run_load

    bodies = (lambda: traffic.batch(batch)) if batch else traffic.body
    view = _View(tally, plan)
    try:
        if sys.stderr.isatty():
            with Live(get_renderable=view, console=Console(stderr=True), refresh_per_second=REDRAWN_PER_S):
                run_load(plan, bodies, tally)
        else:
            run_load(plan, bodies, tally)
    except KeyboardInterrupt:
        return True
    return False


class _View:
    """What is seen while it runs: the rate of the last second beside the whole."""

    def __init__(self, tally: Tally, plan: LoadPlan) -> None:
        self._tally, self._plan = tally, plan
        self._seen: list[tuple[float, int]] = []

    def __call__(self) -> Any:
        from rich.console import Group

        now = time.perf_counter()
        self._seen = [seen for seen in self._seen if seen[0] > now - 1.5] + [(now, self._tally.answered)]
        (then, before), (_, answered) = self._seen[0], self._seen[-1]
        recent = (answered - before) / (now - then) if now > then else 0.0
        wanted = f" of {self._plan.rate:,.0f}" if self._plan.rate else ""
        head = (
            f"[bold]{text(self._plan.url)}[/bold]  {min(self._tally.elapsed_s, self._plan.duration_s):.0f} of "
            f"{self._plan.duration_s:.0f} s, {recent:,.0f}{wanted} requests/s"
        )
        return Group(head, *_tables(self._tally))


def _tables(tally: Tally) -> Iterator[Any]:
    """Rates and latencies; answers by status; decisions by kind; what went wrong."""
    result = tally.as_dict()
    latency = result["latency_ms"]
    columns = ("requests", "per s", "decisions per s", *(f"{name} ms" for name in latency))
    yield rows_table(
        columns, [(tally.answered, result["requests_per_s"], result["decisions_per_s"], *latency.values())]
    )
    counts = [("answers", name, count) for name, count in sorted(tally.statuses.items())]
    counts += [("decisions", name, count) for name, count in sorted(tally.decisions.items())]
    counts += [("by model", name, count) for name, count in sorted(tally.versions.items())]
    if counts:
        yield rows_table(("", "", "count"), counts)
    if tally.failed:
        yield f"[red]{tally.failed:,} requests failed[/red], among them:"
        yield from (text(problem) for problem in tally.problems)
