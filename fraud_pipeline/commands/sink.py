"""`fraud sink`: what stands in the stream's topics, into the ledger."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from fraud_pipeline.commands.output import remark
from fraud_pipeline.commands.running import metrics_served, stopped_by_signals

PANEL = "Stream"


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
    from fraud_pipeline.adapters.embedded.one_log import refuse_beside_file
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
    if settings.kafka_bootstrap_servers:  # without it, the scorer keeps the ledger
        refuse_beside_file(settings.stream_file, topics.transactions)
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
        serving = metrics_served(lambda: metrics.registry, port=port, host=settings.metrics_host)
        with serving, stopped_by_signals(opened.stop, who="sink"):
            remark(f"Sink from {topics.transactions} and its fellows into {ledger.address}; stop with Ctrl-C")
            opened.run()
