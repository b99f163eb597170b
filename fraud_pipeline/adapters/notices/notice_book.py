"""The outbox as deliverers, sensors and commands use it. Each method is one database transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from fraud_pipeline.adapters import ledger_notices
from fraud_pipeline.adapters.ledger_database import LedgerDatabase
from fraud_pipeline.domain.notice import (
    ENDING_KINDS,
    KEPT_FOR,
    NEWS_FOR,
    Delivery,
    Notice,
    RecordedNotice,
    Severity,
)
from fraud_pipeline.domain.notice_conditions import Condition, number_of
from fraud_pipeline.errors import NotFound

LEASE: Final = timedelta(minutes=1)
"""Longer than any attempt may take: what a process that died had claimed comes back after it."""
PRUNED_AT_ONCE: Final = 500
"""Rows of one transaction, so that nobody waits for a deletion."""


class NoticeBook:
    """The outbox in an open ledger's database (`Ledger.database`). Threads may share one."""

    def __init__(self, database: LedgerDatabase) -> None:
        self._database = database

    # What is told

    def begin(self, condition: Condition, *, now: datetime) -> bool:
        """Tell that an episode of the condition's subject has begun; False where one is open, or another was quicker."""
        with self._database.writing() as connection:
            opened = ledger_notices.select_open(connection, (condition.kind,))
            episodes = ledger_notices.episodes_of(connection, condition.kind, condition.name)
            if {each.notice.episode for each in opened} & set(episodes):
                return False
            notice = condition.beginning(1 + max(map(number_of, episodes), default=0))
            return ledger_notices.insert(connection, notice, now=now)

    def tell(self, notice: Notice, *, now: datetime) -> bool:
        """As `Ledger.tell`."""
        with self._database.writing() as connection:
            return ledger_notices.insert(connection, notice, now=now)

    def open(self, kinds: Collection[str] = ENDING_KINDS) -> list[RecordedNotice]:
        """Beginnings of episodes that have not ended."""
        with self._database.reading() as connection:
            return ledger_notices.select_open(connection, kinds)

    def since(self, moment: datetime) -> list[RecordedNotice]:
        """What was told from then on."""
        with self._database.reading() as connection:
            return ledger_notices.select_since(connection, moment)

    def newest(self, *, limit: int) -> list[RecordedNotice]:
        """The newest first."""
        with self._database.reading() as connection:
            return ledger_notices.select_newest(connection, limit=limit)

    def find(self, notice_id: int) -> RecordedNotice:
        """NotFound where there is none of that number."""
        with self._database.reading() as connection:
            found = ledger_notices.find(connection, notice_id)
        if found is None:
            raise NotFound(f"There is no notice {notice_id}.", remedy="`fraud notices list` shows them.")
        return found

    # Deliveries

    def ask_for_new(self, channels: Mapping[str, Sequence[Severity]], *, now: datetime) -> int:
        """Make deliveries of what each channel has not been asked for; returns how many. Reads only where there is none."""
        with self._database.reading() as connection:
            wanted = [
                (number, channel)
                for channel, severities in channels.items()
                for number in ledger_notices.undelivered(
                    connection, channel, severities=severities, since=now - NEWS_FOR
                )
            ]
        if not wanted:
            return 0
        with self._database.writing() as connection:
            return ledger_notices.ask_for(connection, wanted, now=now)

    def due(self, channel: str, *, now: datetime, limit: int = 1) -> list[Delivery]:
        """What the channel is to send now, in the order in which it was told."""
        with self._database.reading() as connection:
            return ledger_notices.select_due(connection, channel, now=now, limit=limit)

    def claim(self, due: Delivery, *, now: datetime, lease: timedelta = LEASE) -> bool:
        """Take it for one attempt; False where another deliverer has."""
        with self._database.writing() as connection:
            return ledger_notices.claim(connection, due, now=now, lease=lease)

    def delivered(self, due: Delivery, *, now: datetime) -> None:
        """It is out."""
        with self._database.writing() as connection:
            ledger_notices.note_delivered(connection, due, now=now)

    def failed(self, due: Delivery, *, error: str, again_at: datetime | None, now: datetime) -> None:
        """The claimed attempt failed; None gives up."""
        with self._database.writing() as connection:
            ledger_notices.note_failed(connection, due, error=error, again_at=again_at, now=now)

    def deliveries(self, notice_ids: Collection[int]) -> dict[int, list[Delivery]]:
        """By notice."""
        with self._database.reading() as connection:
            found = ledger_notices.deliveries_of(connection, notice_ids)
        return {number: [each for each in found if each.notice_id == number] for number in notice_ids}

    def send_again(self, notice_id: int, channels: Collection[str], *, now: datetime) -> None:
        """Make a notice due anew on these channels. NotFound where there is none of that number."""
        self.find(notice_id)
        with self._database.writing() as connection:
            ledger_notices.ask_again(connection, notice_id, channels, now=now)

    def prune(self, *, now: datetime) -> int:
        """Delete what is older than KEPT_FOR and settled, a few at a time; returns how many."""
        with self._database.reading() as connection:
            old = ledger_notices.select_old(connection, now - KEPT_FOR, limit=PRUNED_AT_ONCE)
        if not old:
            return 0
        with self._database.writing() as connection:
            ledger_notices.delete(connection, old)
        return len(old)
