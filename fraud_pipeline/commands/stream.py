"""`fraud score-stream`: the scorer of a stream, watched as it goes."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fraud_pipeline.commands.output import remark, rows_table
from fraud_pipeline.commands.running import metrics_served, stopped_by_signals

if TYPE_CHECKING:
    from fraud_pipeline.stream_runtime import StreamRuntime

PANEL = "Stream"
REDRAWN_PER_S = 4


def register(app: typer.Typer) -> None:
    """Add this area's commands."""
    app.command("score-stream", rich_help_panel=PANEL)(score_stream)


def score_stream(
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Prometheus; 0: none. [default: FRAUD_SCORER_METRICS_PORT]")
    ] = None,
    live: Annotated[
        bool | None, typer.Option("--live/--log", help="A live view, or log lines. [default: a view on a terminal]")
    ] = None,
) -> None:
    """Decide every payment of the log exactly once: features, model, reasons, alerts, in one transaction a batch.

    The log is Kafka where FRAUD_KAFKA_BOOTSTRAP_SERVERS names it, and any number of scorers share its partitions; else a file
    in the home, which has one scorer, and the ledger is kept from here too. Ctrl-C or SIGTERM ends it within 5 s with nothing
    open, and whoever takes over goes on where it was. Ends with exit code 2 for a gap in the log, 3 where Kafka does not answer.
    """
    from fraud_pipeline.adapters.stream.stream_exposition import stream_registry
    from fraud_pipeline.settings import load_settings
    from fraud_pipeline.stream_runtime import stream_runtime

    settings = load_settings()
    watched = sys.stderr.isatty() if live is None else live
    level = logging.WARNING if watched else logging.INFO
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    runtime = stream_runtime(settings)
    port = settings.scorer_metrics_port if metrics_port is None else metrics_port
    serving = metrics_served(
        lambda: stream_registry(runtime.metrics, lambda: runtime.models), port=port, host=settings.metrics_host
    )
    view: Any = _watched(runtime) if watched else nullcontext()
    with serving, stopped_by_signals(runtime.stop, who="scorer"), view:
        remark(
            f"Scorer of {runtime.topics.transactions} at {settings.kafka_bootstrap_servers or settings.stream_file}; stop with Ctrl-C"
        )
        runtime.run()


@contextmanager
def _watched(runtime: StreamRuntime) -> Iterator[None]:
    from rich.console import Console
    from rich.live import Live

    with Live(get_renderable=_View(runtime), console=Console(stderr=True), refresh_per_second=REDRAWN_PER_S):
        yield


class _View:
    """What is seen while it runs: the rate of the last second beside the whole."""

    def __init__(self, runtime: StreamRuntime) -> None:
        self._runtime = runtime
        self._seen: list[tuple[float, int]] = []

    def __call__(self) -> Any:
        metrics, now = self._runtime.metrics, time.monotonic()
        self._seen = [(at, count) for at, count in self._seen if now - at <= 1.5] + [(now, metrics.records)]
        (first, before), (last, after) = self._seen[0], self._seen[-1]
        rate = (after - before) / (last - first) if last > first else 0.0
        commits = metrics.stages["commit"]
        decided: dict[str, int] = {}
        for (verdict, _), count in list(metrics.decisions.items()):
            decided[verdict] = decided.get(verdict, 0) + count
        champion = None if self._runtime.models is None else self._runtime.models.champion
        rows: list[tuple[Any, ...]] = [
            ("model", "waiting for a champion" if champion is None else f"version {champion.bundle.version}"),
            ("partitions", ", ".join(map(str, sorted(metrics.lag))) or "none yet"),
            ("records", f"{metrics.records:,} ({rate:,.0f}/s)"),
            ("behind", f"{sum(metrics.lag.values()):,}"),
            *((verdict.lower(), f"{decided.get(verdict, 0):,}") for verdict in ("APPROVE", "REVIEW", "BLOCK")),
            ("labels", f"{metrics.labels:,}"),
            ("dead letters", f"{sum(metrics.dead_letters.values()):,}"),
            ("degraded", f"{sum(metrics.degraded.values()):,}"),
            ("commit", f"{1_000 * commits.sum / max(1, sum(commits.counts)):.1f} ms"),
        ]
        return rows_table(("scorer", ""), rows)
