"""`fraud sink`: what stands in the stream's topics, into the ledger."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fraud_pipeline.commands.output import remark

if TYPE_CHECKING:
    from fraud_pipeline.adapters.kafka.sink_service import Sink
    from fraud_pipeline.settings import Settings

PANEL = "Stream"
STOP_S = 4.5
"""Longest stop, under the 5 s that a supervisor is told. Who does not answer until then rolls back or fences what is open."""


def register(app: typer.Typer) -> None:
    """Add this area's commands."""
    app.command(rich_help_panel=PANEL)(sink)


def sink(
    skip_lost: Annotated[
        bool, typer.Option("--skip-lost", help="Go on where Kafka's retention deleted what was not read yet.")
    ] = False,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Prometheus; 0: none. [default: FRAUD_SINK_METRICS_PORT]")
    ] = None,
) -> None:
    """Keep the ledger filled from the log: payments, decisions, alerts, labels, closed minutes.

    Any number of them share the partitions. It goes on by itself when Kafka or the database is back; Ctrl-C or SIGTERM ends
    it within 5 s, and the next one goes on where it was. Ends with exit code 2 for a gap in what is to be read.
    """
    from fraud_pipeline.adapters.kafka.connection import consumer_config, producer_config
    from fraud_pipeline.adapters.kafka.sink_metrics import SinkMetrics
    from fraud_pipeline.adapters.kafka.sink_opening import GROUP, open_sink
    from fraud_pipeline.adapters.kafka.topics import Topics
    from fraud_pipeline.adapters.ledger import Ledger
    from fraud_pipeline.settings import load_settings

    settings = load_settings()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    topics, metrics = Topics(settings.topic_prefix), SinkMetrics()
    port = settings.sink_metrics_port if metrics_port is None else metrics_port
    with Ledger.open(settings.ledger_url) as ledger:
        opened = open_sink(
            ledger,
            topics,
            consumer=consumer_config(settings, group=f"{settings.topic_prefix}{GROUP}"),
            producer=producer_config(settings),
            currency=settings.currency,
            retention_days=settings.ledger_retention_days,
            skip_lost=skip_lost,
            metrics=metrics,
            now=lambda: datetime.now(UTC),
        )
        serving: Any = _port(metrics, settings, port) if port else nullcontext()
        with serving, _stopped_by_signals(opened):
            remark(f"Sink from {topics.transactions} and its fellows into {ledger.address}; stop with Ctrl-C")
            opened.run()


@contextmanager
def _port(metrics: Any, settings: Settings, port: int) -> Iterator[None]:
    from fraud_pipeline.adapters.kafka.sink_metrics import MetricsPort
    from fraud_pipeline.errors import SettingsError

    try:
        served = MetricsPort(metrics, port=port, host=settings.metrics_host)
    except OSError as err:
        raise SettingsError(
            f"The metrics cannot listen on {settings.metrics_host}:{port}: {err.strerror}.",
            remedy="Give each process a port of its own (--metrics-port, FRAUD_SINK_METRICS_PORT), or 0 for none.",
        ) from err
    try:
        yield
    finally:
        served.close()


@contextmanager
def _stopped_by_signals(opened: Sink) -> Iterator[None]:
    """SIGTERM and SIGINT end it after the batch at hand, and after STOP_S in any case."""

    def stop(*_: object) -> None:
        opened.stop()
        late = threading.Timer(STOP_S, _end_at_once)
        late.daemon = True
        late.start()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_at_once() -> None:
    """The database rolls back what it has not committed, and the next relay settles what was under way."""
    sys.stderr.write("fraud: the sink ends without waiting any longer; nothing is half done\n")
    os._exit(0)
