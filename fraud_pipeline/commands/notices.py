"""`fraud notices`: what people were told, whether it reached them, and trying the channels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fraud_pipeline.commands.output import Json, emit, rows_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fraud_pipeline.adapters.notices.channel import Channel
    from fraud_pipeline.adapters.notices.notice_book import NoticeBook
    from fraud_pipeline.domain.notice import Delivery, RecordedNotice
    from fraud_pipeline.settings import Settings

PANEL = "Watch"
ROUND_S = 60.0
"""`deliver` begins no attempt later: somebody waits for it at a terminal."""

notices = typer.Typer(
    help="What people are told: the notices, whether they reached anybody, and a test of each channel.",
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    """Add this area's commands."""
    app.add_typer(notices, name="notices", rich_help_panel=PANEL)


@notices.command("list")
def list_(
    open_only: Annotated[bool, typer.Option("--open", help="Only trouble that has not ended.")] = False,
    undelivered: Annotated[bool, typer.Option("--undelivered", help="Only what a channel has not got yet.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 30,
    as_json: Json = False,
) -> None:
    """List the notices, the newest first, and what became of each on each channel."""
    from fraud_pipeline.commands.opening import is_missing_file
    from fraud_pipeline.settings import load_settings

    settings = load_settings()
    found: list[RecordedNotice] = []
    deliveries: dict[int, list[Delivery]] = {}
    if not is_missing_file(settings.ledger_url):
        with _book(settings) as book:
            found = list(reversed(book.open()))[:limit] if open_only else book.newest(limit=limit)
            deliveries = book.deliveries([told.notice_id for told in found])
    if undelivered:
        found = [told for told in found if any(d.delivered_at is None for d in deliveries[told.notice_id])]
    emit(
        {"notices": [_row(told, deliveries[told.notice_id]) for told in found]},
        as_json=as_json,
        tables=lambda: _list_tables(found, deliveries),
    )


@notices.command()
def deliver(as_json: Json = False) -> None:
    """Deliver what is due now, as the daemon's sensor `deliver_notices` does; exit code 1 where something was not taken."""
    from fraud_pipeline.adapters.notices.deliverer import Deliverer
    from fraud_pipeline.settings import load_settings

    settings = load_settings()
    with _book(settings) as book:
        done = Deliverer(book, _channels(settings)).deliver(budget_s=ROUND_S)
    rows = [(name, each.delivered, each.retried, each.given_up) for name, each in done.items()]
    result = {
        name: {"delivered": each.delivered, "retried": each.retried, "given_up": each.given_up}
        for name, each in done.items()
    }
    columns = ("channel", "delivered", "to be tried again", "given up")
    emit({"channels": result}, as_json=as_json, tables=lambda: iter([rows_table(columns, rows)]))
    raise typer.Exit(1 if any(each.retried or each.given_up for each in done.values()) else 0)


@notices.command("test")
def try_(
    channel: Annotated[
        list[str] | None, typer.Option("--channel", help="Only this one. Repeatable. [default: all]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Send a test message through each channel and say whether it was taken; exit code 1 where one was not."""
    from fraud_pipeline.settings import load_settings

    settings = load_settings()
    results = {each.name: _try(each) for each in _chosen(_channels(settings), channel)}
    rows = [(name, "FAILED" if problem else "taken", problem) for name, problem in results.items()]
    emit(
        {"channels": {name: {"taken": problem is None, "problem": problem} for name, problem in results.items()}},
        as_json=as_json,
        tables=lambda: iter([rows_table(("channel", "test message", "problem"), rows)]),
    )
    raise typer.Exit(1 if any(results.values()) else 0)


@notices.command()
def resend(
    notice_id: Annotated[int, typer.Argument(metavar="ID", help="The notice, as `fraud notices list` shows it.")],
    channel: Annotated[
        list[str] | None, typer.Option("--channel", help="Only on this one. Repeatable. [default: all]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a notice due again on each channel, delivered before or not, and deliver it."""
    from datetime import UTC, datetime

    from fraud_pipeline.adapters.notices.deliverer import Deliverer
    from fraud_pipeline.settings import load_settings

    settings = load_settings()
    chosen = _chosen(_channels(settings), channel)
    with _book(settings) as book:
        book.send_again(notice_id, [each.name for each in chosen], now=datetime.now(UTC))
        Deliverer(book, chosen).deliver(budget_s=ROUND_S)
        told, deliveries = book.find(notice_id), book.deliveries([notice_id])[notice_id]
    mine = [each for each in deliveries if each.channel in {one.name for one in chosen}]
    rows = [(each.channel, each.state, each.last_error) for each in mine]
    emit(
        _row(told, deliveries),
        as_json=as_json,
        tables=lambda: iter([rows_table(("channel", "state", "error"), rows)]),
    )
    raise typer.Exit(0 if all(each.delivered_at for each in mine) else 1)


@contextmanager
def _book(settings: Settings) -> Iterator[NoticeBook]:
    from fraud_pipeline.adapters.notices.notice_book import NoticeBook
    from fraud_pipeline.commands.opening import open_ledger

    with open_ledger(settings) as ledger:
        yield NoticeBook(ledger.database)


def _channels(settings: Settings) -> tuple[Channel, ...]:
    """The configured ones; the log's lines go to stderr."""
    import logging

    from fraud_pipeline.adapters.notices.channels import channels_of

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    return channels_of(settings)


def _chosen(channels: Sequence[Channel], names: list[str] | None) -> tuple[Channel, ...]:
    from fraud_pipeline.errors import InputError

    known = {each.name: each for each in channels}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise InputError(
            f"There is no channel {unknown[0]!r} here.",
            remedy=f"There are {', '.join(known)}; FRAUD_NOTIFY_* settings make more (docs/notifications.md).",
        )
    return tuple(known[name] for name in dict.fromkeys(names)) if names else tuple(channels)


def _try(channel: Channel) -> str | None:
    """Send a test's beginning and end; the problem, where it was not taken."""
    from datetime import UTC, datetime

    from fraud_pipeline.adapters.notices.channel import Attempt, NotDelivered
    from fraud_pipeline.domain.notice import Notice, RecordedNotice, without_secrets

    now = datetime.now(UTC)
    begin = Notice(
        "watch", channel.severities[0], f"test-{now:%Y%m%dT%H%M%S}", "A test of this channel",
        "Sent by `fraud notices test`. Nothing is wrong.", {"test": True}, None, now,
    )  # fmt: skip
    try:
        for notice in (begin, begin.over("The test is over.", at=now)):
            channel.send(RecordedNotice(0, notice, now), Attempt(at_s=int(now.timestamp()), number=1))
    except NotDelivered as err:
        return without_secrets(err.reason, channel.secrets)
    return None


def _row(told: RecordedNotice, deliveries: list[Delivery]) -> dict[str, Any]:
    notice = told.notice
    return {
        "id": told.notice_id, "kind": notice.kind, "severity": notice.severity, "episode": notice.episode,
        "resolves": notice.resolves, "title": notice.title, "text": notice.text, "facts": dict(notice.facts),
        "link": notice.link, "at": notice.at, "told_at": told.told_at,
        "deliveries": [
            {"channel": d.channel, "state": d.state, "attempts": d.attempts, "next_attempt_at": d.next_attempt_at,
             "delivered_at": d.delivered_at, "failed_at": d.failed_at, "error": d.last_error}
            for d in deliveries
        ],
    }  # fmt: skip


def _list_tables(found: list[RecordedNotice], deliveries: dict[int, list[Delivery]]) -> Iterator[Any]:
    if not found:
        yield "No such notice."
        return
    rows = [
        (
            str(told.notice_id),
            f"{told.told_at:%Y-%m-%d %H:%M}",
            told.notice.severity,
            told.notice.kind,
            told.notice.title,
            ", ".join(f"{d.channel} {d.state}" for d in deliveries[told.notice_id]) or "-",
        )
        for told in found
    ]
    yield rows_table(("id", "told (UTC)", "severity", "kind", "what", "channels"), rows)
    failed = [
        (str(told.notice_id), d.channel, d.state, d.last_error)
        for told in found
        for d in deliveries[told.notice_id]
        if d.last_error
    ]
    if failed:
        yield rows_table(("id", "channel", "state", "error"), failed)
