"""The outbox in the ledger: what people are to be told, and how far each channel is with it.

Functions over an open connection. Of two that tell, claim or settle the same at once, the database lets one win. Knows
nothing of what a channel is but its name.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, RowMapping

from fraud_pipeline.adapters.ledger_schema import notice_deliveries as deliveries
from fraud_pipeline.adapters.ledger_schema import notices
from fraud_pipeline.domain.notice import ENDING_KINDS, Delivery, Notice, RecordedNotice, Severity

_FIELDS: Final = ("kind", "severity", "episode", "title", "text", "facts", "link", "at", "resolves")
_END: Final = notices.alias("ending")


def insert(connection: Connection, notice: Notice, *, now: datetime) -> bool:
    """Put it into the outbox; False where it is there, or where it ends an episode that never began."""
    if notice.resolves and not _began(connection, notice):
        return False
    row = {name: getattr(notice, name) for name in _FIELDS} | {"facts": _json(notice.facts), "told_at": now}
    return _insert_new(connection, notices, [row]) == 1


def select_newest(connection: Connection, *, limit: int) -> list[RecordedNotice]:
    """The newest first."""
    query = sa.select(notices).order_by(notices.c.notice_id.desc()).limit(limit)
    return [_recorded(row) for row in connection.execute(query).mappings()]


def select_since(connection: Connection, since: datetime) -> list[RecordedNotice]:
    """What was told from then on, in the order in which it was told."""
    query = sa.select(notices).where(notices.c.told_at >= since).order_by(notices.c.notice_id)
    return [_recorded(row) for row in connection.execute(query).mappings()]


def find(connection: Connection, notice_id: int) -> RecordedNotice | None:
    """One of them; None where there is none of that number."""
    row = connection.execute(sa.select(notices).where(notices.c.notice_id == notice_id)).mappings().first()
    return None if row is None else _recorded(row)


def select_open(connection: Connection, kinds: Collection[str]) -> list[RecordedNotice]:
    """Beginnings of these kinds without their end, in the order in which they were told."""
    query = sa.select(notices).where(notices.c.kind.in_(kinds), ~notices.c.resolves, ~_has_ended())
    return [_recorded(row) for row in connection.execute(query.order_by(notices.c.notice_id)).mappings()]


def episodes_of(connection: Connection, kind: str, subject: str) -> list[str]:
    """Every episode told of this kind whose name is `subject#...`."""
    alike = notices.c.episode.startswith(
        f"{subject}#", autoescape=True
    )  # and those of a subject whose name goes on with #
    query = sa.select(notices.c.episode).where(notices.c.kind == kind, alike, ~notices.c.resolves)
    return [name for name in connection.execute(query).scalars() if name.rpartition("#")[0] == subject]


def undelivered(connection: Connection, channel: str, *, severities: Sequence[Severity], since: datetime) -> list[int]:
    """Notices told from then on, of these severities, that the channel has no delivery of."""
    there = sa.exists().where(deliveries.c.notice_id == notices.c.notice_id, deliveries.c.channel == channel)
    query = sa.select(notices.c.notice_id).where(
        notices.c.told_at >= since, notices.c.severity.in_(severities), ~there
    )  # fmt: skip
    return [int(number) for number in connection.execute(query.order_by(notices.c.notice_id)).scalars()]


def ask_for(connection: Connection, wanted: Iterable[tuple[int, str]], *, now: datetime) -> int:
    """Make a delivery for each (notice, channel) that has none; returns how many were new."""
    rows = [
        {"notice_id": number, "channel": channel, "asked_at": now, "attempts": 0, "next_attempt_at": now}
        for number, channel in wanted
    ]
    return _insert_new(connection, deliveries, rows) if rows else 0


def ask_again(connection: Connection, notice_id: int, channels: Collection[str], *, now: datetime) -> None:
    """Make these deliveries due anew, whatever became of them."""
    ask_for(connection, ((notice_id, channel) for channel in channels), now=now)
    mine = (deliveries.c.notice_id == notice_id, deliveries.c.channel.in_(channels))
    anew = {"asked_at": now, "attempts": 0, "next_attempt_at": now, "delivered_at": None, "failed_at": None}
    connection.execute(sa.update(deliveries).where(*mine).values(**anew))


def select_due(connection: Connection, channel: str, *, now: datetime, limit: int) -> list[Delivery]:
    """What the channel is to send now, in the order in which it was told.

    The end of an episode waits until its beginning is settled: else a beginning that came late would open it again.
    """
    beginning, earlier = notices.alias("beginning"), deliveries.alias("earlier")
    unsettled = sa.exists().where(
        notices.c.resolves,
        beginning.c.kind == notices.c.kind,
        beginning.c.episode == notices.c.episode,
        ~beginning.c.resolves,
        earlier.c.notice_id == beginning.c.notice_id,
        earlier.c.channel == channel,
        earlier.c.next_attempt_at.is_not(None),
    )
    query = (
        sa.select(deliveries)
        .join(notices, notices.c.notice_id == deliveries.c.notice_id)
        .where(deliveries.c.channel == channel, deliveries.c.next_attempt_at <= now, ~unsettled)
        .order_by(deliveries.c.notice_id)
        .limit(limit)
    )
    return [_delivery(row) for row in connection.execute(query).mappings()]


def claim(connection: Connection, due: Delivery, *, now: datetime, lease: timedelta) -> bool:
    """Take it for one attempt; False where somebody else has. Who dies with it gives it back when the lease is over."""
    taken = (
        sa.update(deliveries)
        .where(*_is(due), deliveries.c.attempts == due.attempts, deliveries.c.next_attempt_at == due.next_attempt_at)
        .values(attempts=due.attempts + 1, next_attempt_at=now + lease)
    )
    return connection.execute(taken).rowcount == 1


def note_delivered(connection: Connection, due: Delivery, *, now: datetime) -> None:
    """It is out: true even where the lease ran out meanwhile."""
    done = {"delivered_at": now, "failed_at": None, "next_attempt_at": None, "last_error": None}
    connection.execute(sa.update(deliveries).where(*_is(due)).values(**done))


def note_failed(connection: Connection, due: Delivery, *, error: str, again_at: datetime | None, now: datetime) -> None:
    """The attempt that was claimed failed; None gives up. Nothing changes where another attempt has begun since."""
    failed = {"next_attempt_at": again_at, "last_error": error, "failed_at": now if again_at is None else None}
    mine = (*_is(due), deliveries.c.attempts == due.attempts + 1, deliveries.c.delivered_at.is_(None))
    connection.execute(sa.update(deliveries).where(*mine).values(**failed))


def deliveries_of(connection: Connection, notice_ids: Collection[int]) -> list[Delivery]:
    """By notice and channel."""
    query = sa.select(deliveries).where(deliveries.c.notice_id.in_(notice_ids))
    ordered = query.order_by(deliveries.c.notice_id, deliveries.c.channel)
    return [_delivery(row) for row in connection.execute(ordered).mappings()]


def select_old(connection: Connection, before: datetime, *, limit: int) -> list[int]:
    """Notices told before then; not the beginning of an episode that is open, nor one that is to be delivered."""
    waits = sa.exists().where(
        deliveries.c.notice_id == notices.c.notice_id, deliveries.c.next_attempt_at.is_not(None)
    )  # fmt: skip
    may_be_open = notices.c.kind.in_(ENDING_KINDS)
    ended = sa.or_(notices.c.resolves, ~may_be_open, _has_ended())
    query = sa.select(notices.c.notice_id).where(notices.c.told_at < before, ended, ~waits)
    return [int(number) for number in connection.execute(query.limit(limit)).scalars()]


def delete(connection: Connection, notice_ids: Collection[int]) -> None:
    """Notices with their deliveries."""
    connection.execute(sa.delete(deliveries).where(deliveries.c.notice_id.in_(notice_ids)))
    connection.execute(sa.delete(notices).where(notices.c.notice_id.in_(notice_ids)))


def _has_ended() -> sa.ColumnElement[bool]:
    return sa.exists().where(_END.c.kind == notices.c.kind, _END.c.episode == notices.c.episode, _END.c.resolves)


def _began(connection: Connection, notice: Notice) -> bool:
    same = (notices.c.kind == notice.kind, notices.c.episode == notice.episode, ~notices.c.resolves)
    return connection.execute(sa.select(notices.c.notice_id).where(*same)).first() is not None


def _is(due: Delivery) -> tuple[sa.ColumnElement[bool], ...]:
    return deliveries.c.notice_id == due.notice_id, deliveries.c.channel == due.channel


def _insert_new(connection: Connection, table: sa.Table, rows: list[dict[str, Any]]) -> int:
    """Insert what breaks no unique constraint; returns how many did not."""
    dialect: Any = sqlite if connection.dialect.name == "sqlite" else postgresql
    key = table.primary_key.columns  # what was inserted is counted by what comes back: psycopg counts no single rows
    inserts = (dialect.insert(table).values(**row).on_conflict_do_nothing().returning(*key) for row in rows)
    return sum(len(connection.execute(insert).all()) for insert in inserts)


def _json(value: Any) -> Any:
    """As JSON has it: what is no number is null, what is no value of JSON is text."""
    if isinstance(value, Mapping):
        return {str(name): _json(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_json(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def _recorded(row: RowMapping) -> RecordedNotice:
    return RecordedNotice(row["notice_id"], Notice(**{name: row[name] for name in _FIELDS}), row["told_at"])


def _delivery(row: RowMapping) -> Delivery:
    return Delivery(**{name: row[name] for name in Delivery.__dataclass_fields__})
