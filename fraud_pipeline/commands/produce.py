"""`fraud produce`: payments and their labels into the log, watched as they go."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fraud_pipeline.commands.output import Json, emit, remark, rows_table, text

if TYPE_CHECKING:
    from fraud_pipeline.adapters.kafka.producing import ProducePlan, Producer, Tally
    from fraud_pipeline.adapters.kafka.topics import Topics
    from fraud_pipeline.adapters.payment_feed import Chunk
    from fraud_pipeline.domain.simulation_config import WorldConfig
    from fraud_pipeline.settings import Settings

PANEL = "Stream"
LIVE_RATE = 100.0
SIMULATE = "simulate"
REDRAWN_PER_S = 4


def register(app: typer.Typer) -> None:
    """Add this area's commands."""
    app.command(rich_help_panel=PANEL)(produce)


def produce(
    source: Annotated[
        str,
        typer.Option("--from", metavar="FILE|simulate", help="A CSV or Parquet file, a home, or a simulated world."),
    ] = SIMULATE,
    rate: Annotated[
        float | None,
        typer.Option(min=0, help="Payments per second; 0: as fast as it goes. [default: 100, with --speed 0]"),
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option(
            min=0, help="Replay a history with its own times, N times as fast as it was; 0: as fast as it goes."
        ),
    ] = None,
    duration: Annotated[float, typer.Option(min=0, help="Seconds; 0: no limit.")] = 0.0,
    count: Annotated[int, typer.Option(min=0, help="Payments; 0: no limit.")] = 0,
    fraud_rate: Annotated[float | None, typer.Option(help="Simulation: share of fraud. [default: the world's]")] = None,
    seed: Annotated[int | None, typer.Option(help="Simulation: another world than the home's.")] = None,
    drift: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND[@DATE]", help="Simulation: a change, from the first payment on or a day. Repeatable."
        ),
    ] = None,
    customers: Annotated[int | None, typer.Option(help="Simulation: customers. [default: the world's]")] = None,
    mapping: Annotated[
        str | None, typer.Option("--mapping", "-m", help="File: its mapping. [default: by its columns]")
    ] = None,
    labels: Annotated[bool, typer.Option(help="Send labels, too, when their time has come.")] = True,
    label_delay: Annotated[
        tuple[float, float] | None, typer.Option(metavar="MIN MAX", help="Simulation: days until a fraud is known.")
    ] = None,
    start_at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Move the history so that it begins then (RFC 3339); with --speed."),
    ] = None,
    id_prefix: Annotated[
        str, typer.Option(help="Put before each transaction id: a second replay is no repeat then.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Produce payments to the log: a world that goes on now, or a history at its own or any other speed.

    The log is Kafka where FRAUD_KAFKA_BOOTSTRAP_SERVERS names it, else a file in the home, which `fraud score-stream` reads too.
    Ctrl-C or SIGTERM ends it cleanly: what was handed over is flushed and counted; a second one gives that up. Ends with
    exit code 1 if the broker did not confirm a message.
    """
    import tempfile

    from fraud_pipeline.adapters.kafka.producing import ProducePlan, Production, Tally
    from fraud_pipeline.adapters.kafka.topics import Topics
    from fraud_pipeline.settings import load_settings

    settings = load_settings()
    topics = Topics(settings.topic_prefix)
    plan = ProducePlan(
        topic=topics.transactions,
        labels=topics.labels if labels else None,
        rate=rate if rate is not None else (LIVE_RATE if speed is None else 0.0),
        speed=speed or 0.0,
        duration_s=duration,
        payments=count,
    )
    times: Any = {
        "timed": speed is not None, "start_at": None if start_at is None else _moment(start_at), "prefix": id_prefix,
    }  # fmt: skip
    changes = {"fraud_rate": fraud_rate, "seed": seed, "customers": customers, "label_delay_days": label_delay}
    given = {name: value for name, value in changes.items() if value is not None}
    with tempfile.TemporaryDirectory(prefix="fraud-produce-") as scratch, _stopping() as (stop, hurry):
        if source == SIMULATE:
            feed = _simulated(settings, given, drift or [], **times)
        else:
            feed = _from_file(Path(source), settings, Path(scratch), mapping, **times)
        tally = Tally()
        with _producer(settings, topics, plan) as producer:
            run = Production(producer, plan, tally=tally, stop=stop, hurry=hurry)
            with _watched(tally, plan):
                run.run(feed)
    result = {"topic": plan.topic, "rate": plan.rate, "speed": speed, **tally.as_dict()}
    emit(result, as_json=as_json, tables=lambda: _tables(tally, plan))
    raise typer.Exit(1 if tally.failed else 0)


def _world(settings: Settings) -> WorldConfig:
    """The home's simulated world, or one that the settings describe."""
    from fraud_pipeline.adapters.home_world import world_of_home
    from fraud_pipeline.domain.simulation_config import WorldConfig

    otherwise = WorldConfig(
        end=datetime.now(UTC).date(),
        customers=settings.customers,
        merchants=settings.merchants,
        days=settings.days,
        rate=settings.rate,
        fraud_rate=settings.fraud_rate,
        seed=settings.seed,
        currency=settings.currency,
    )
    return world_of_home(settings.home, otherwise)


def _simulated(
    settings: Settings,
    changes: dict[str, Any],
    drifts: list[str],
    *,
    timed: bool,
    start_at: datetime | None,
    prefix: str,
) -> Iterator[Chunk]:
    """The world's history with its times, or its days to come without."""
    import uuid

    from fraud_pipeline.adapters.home_world import changed_world
    from fraud_pipeline.adapters.payment_feed import LIVE_DAYS, live_feed, world_feed

    world = _world(settings)
    if timed:
        config = changed_world(world, changes, drifts)
        return world_feed(config, shift=_shift(config.start, start_at), prefix=prefix)
    config = changed_world(world, changes, drifts, further_days=LIVE_DAYS)
    return live_feed(config, since=world.end, run=prefix or f"live-{uuid.uuid4().hex[:12]}")


def _from_file(
    path: Path, settings: Settings, scratch: Path, mapping: str | None, *,
    timed: bool, start_at: datetime | None, prefix: str,
) -> Iterator[Chunk]:  # fmt: skip
    """The payments of a file or a home, with their times or without."""
    from fraud_pipeline.adapters.payment_feed import landed_feed
    from fraud_pipeline.adapters.payment_files import landed_payments

    store = landed_payments(path, mapping=mapping, scratch=scratch, currency=settings.currency)
    shift = _shift(store.manifest().start, start_at) if timed else timedelta(0)
    return landed_feed(store, timed=timed, shift=shift, prefix=prefix)


def _shift(first: date, start_at: datetime | None) -> timedelta:
    """How far a history that begins on that day is moved; a remark where it is older then than a scorer takes."""
    from fraud_pipeline.domain.transaction import MAX_AGE

    begins = datetime(first.year, first.month, first.day, tzinfo=UTC)
    shift = timedelta(0) if start_at is None else start_at - begins
    if begins + shift < datetime.now(UTC) - MAX_AGE:
        remark(
            f"The history begins on {begins + shift:%Y-%m-%d}: payments that are more than {MAX_AGE.days} days old when the "
            "broker takes them become dead letters. --start-at moves it."
        )
    return shift


def _moment(given: str) -> datetime:
    from fraud_pipeline.errors import InputError

    try:
        moment = datetime.fromisoformat(given)
    except ValueError as err:
        raise InputError(f"--start-at {given!r} is no time.", remedy="Write it as 2026-03-01T00:00:00Z.") from err
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@contextmanager
def _producer(settings: Settings, topics: Topics, plan: ProducePlan) -> Iterator[Producer]:
    """Into Kafka where it is named; else into the home's file, whose topics are made where they are not there."""
    if settings.kafka_bootstrap_servers:
        from confluent_kafka import Producer as KafkaProducer

        from fraud_pipeline.adapters.kafka.connection import producer_config
        from fraud_pipeline.adapters.kafka.producing import PRODUCER

        producer = KafkaProducer(producer_config(settings, **PRODUCER))
        _check_topics(settings, producer, plan)
        yield producer
        return
    from fraud_pipeline.adapters.embedded.appending import EmbeddedProducer
    from fraud_pipeline.adapters.embedded.stream_file import StreamFile
    from fraud_pipeline.adapters.embedded.topics import embedded_topics

    with StreamFile(settings.stream_file) as file:
        file.create(embedded_topics(topics))
        yield EmbeddedProducer(file)


def _check_topics(settings: Settings, producer: Any, plan: ProducePlan) -> None:
    """Say before the first payment that there is no broker or no topic: the client would queue and wait."""
    from confluent_kafka import KafkaException

    from fraud_pipeline.adapters.kafka.connection import dependency_error
    from fraud_pipeline.adapters.kafka.producing import FLUSH_S
    from fraud_pipeline.errors import NotFound

    try:
        there = producer.list_topics(timeout=FLUSH_S).topics
    except KafkaException as err:
        raise dependency_error(settings, err, "produce payments") from err
    missing = [topic for topic in (plan.topic, plan.labels) if topic is not None and topic not in there]
    if missing:
        raise NotFound(
            f"The broker has no topic {' and no '.join(missing)}.", remedy="`fraud topics create` makes them."
        )


@contextmanager
def _stopping() -> Iterator[tuple[threading.Event, threading.Event]]:
    """Events that the first and the second Ctrl-C or SIGTERM set."""
    stop, hurry = threading.Event(), threading.Event()

    def asked(_number: int, _frame: Any) -> None:
        (hurry if stop.is_set() else stop).set()

    before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop, hurry
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _watched(tally: Tally, plan: ProducePlan) -> Iterator[None]:
    """The numbers on stderr, where someone watches."""
    import sys

    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.live import Live

    with Live(get_renderable=_View(tally, plan), console=Console(stderr=True), refresh_per_second=REDRAWN_PER_S):
        yield


class _View:
    """What is seen while it runs: the rate of the last second beside the whole."""

    def __init__(self, tally: Tally, plan: ProducePlan) -> None:
        self._tally, self._plan = tally, plan
        self._seen: list[tuple[float, int]] = []

    def __call__(self) -> Any:
        from rich.console import Group

        now, delivered = time.perf_counter(), self._tally.payments.delivered
        self._seen = [seen for seen in self._seen if seen[0] > now - 1.5] + [(now, delivered)]
        (then, before), (_, latest) = self._seen[0], self._seen[-1]
        recent = (latest - before) / (now - then) if now > then else 0.0
        wanted = f" of {self._plan.rate:,.0f}" if self._plan.rate else ""
        at = datetime.fromtimestamp(self._tally.moment_us / 1e6, UTC)
        head = (
            f"[bold]{text(self._plan.topic)}[/bold]  {self._tally.elapsed_s:.0f} s, {recent:,.0f}{wanted} payments/s, "
            f"event time {at:%Y-%m-%d %H:%M:%S}"
        )
        return Group(head, *_tables(self._tally, self._plan))


def _tables(tally: Tally, plan: ProducePlan) -> Iterator[Any]:
    """Counts by kind; by partition; what went wrong."""
    seconds = tally.elapsed_s or 1.0
    columns = ("", "sent", "acknowledged", "in flight", "failed", "per s")
    rows = [
        (name, counts.sent, counts.delivered, counts.in_flight, counts.failed, counts.delivered / seconds)
        for name, counts in (("payments", tally.payments), ("labels", tally.labels))
        if name == "payments" or plan.labels is not None
    ]
    yield rows_table(columns, rows)
    shares = " ".join(f"{partition}: {n:,}" for partition, n in sorted(tally.payments.partitions.copy().items()))
    yield f"{tally.frauds:,} frauds among them. By partition: {shares or '-'}"
    if tally.labels_left:
        yield f"{tally.labels_left:,} labels whose time has not come were left."
    if tally.failed:
        reason = tally.payments.first_failure or tally.labels.first_failure
        yield f"[red]{tally.failed:,} messages were not confirmed[/red], the first: {text(reason)}"
