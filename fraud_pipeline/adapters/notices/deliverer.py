"""From the outbox to the channels: each on a thread of its own, so that one that hangs holds up nobody.

A delivery is claimed before it is tried, so that of two deliverers one sends it; who dies with a claim gives it back when its
lease is over. So a receiver gets a notice at least once, and twice only where a process dies, or its ledger goes away, between
sending and noting it.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Final

from fraud_pipeline.adapters.notices.channel import Attempt, Channel, NotDelivered, Refused
from fraud_pipeline.adapters.notices.notice_book import LEASE, NoticeBook
from fraud_pipeline.domain.notice import Delivery, next_attempt, without_secrets

LONGEST_ERROR: Final = 300
"""As much of an error as is kept."""
_log = logging.getLogger("fraud_pipeline.notices")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one round did, of one channel or of all."""

    delivered: int = 0
    retried: int = 0
    given_up: int = 0

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            self.delivered + other.delivered, self.retried + other.retried, self.given_up + other.given_up
        )  # fmt: skip

    @property
    def tried(self) -> int:
        return self.delivered + self.retried + self.given_up


class Deliverer:
    """Delivers what is due. Give `now` and `chance` for tests."""

    def __init__(
        self,
        book: NoticeBook,
        channels: Sequence[Channel],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        chance: Callable[[], float] = random.random,
        lease: timedelta = LEASE,
    ) -> None:
        self._book, self._channels = book, channels
        self._now, self._chance, self._lease = now, chance, lease

    def deliver(self, *, budget_s: float) -> Mapping[str, Outcome]:
        """One round, by channel. No attempt begins after `budget_s`, and one takes SEND_TIMEOUT_S at most."""
        ends_at = monotonic() + budget_s
        self._book.ask_for_new({each.name: each.severities for each in self._channels}, now=self._now())
        with ThreadPoolExecutor(max_workers=max(1, len(self._channels)), thread_name_prefix="notices") as pool:
            rounds = [pool.submit(self._serve, channel, ends_at) for channel in self._channels]
        return {channel.name: each.result() for channel, each in zip(self._channels, rounds, strict=True)}

    def _serve(self, channel: Channel, ends_at: float) -> Outcome:
        """Everything due on one channel, in order, until one attempt fails: a channel in trouble is left alone then."""
        total = Outcome()
        while monotonic() < ends_at:
            due = self._claim_next(channel)
            if due is None:
                break
            outcome = self._try(channel, due)
            total += outcome
            if outcome.retried:
                break
        return total

    def _claim_next(self, channel: Channel) -> Delivery | None:
        while due := self._book.due(channel.name, now=self._now()):
            if self._book.claim(due[0], now=self._now(), lease=self._lease):
                return due[0]
        return None

    def _try(self, channel: Channel, due: Delivery) -> Outcome:
        told, now = self._book.find(due.notice_id), self._now()
        number = due.attempts + 1
        try:
            channel.send(told, Attempt(at_s=int(now.timestamp()), number=number))
        except NotDelivered as err:
            return self._note_failure(channel, due, err)
        except Exception as err:  # noqa: BLE001 - it is told and kept; a bug must not stop the others, nor be tried for ever
            return self._note_failure(channel, due, Refused(f"cannot be sent: {type(err).__name__}: {err}"))
        self._book.delivered(due, now=self._now())
        return Outcome(delivered=1)

    def _note_failure(self, channel: Channel, due: Delivery, err: NotDelivered) -> Outcome:
        now, error = self._now(), without_secrets(err.reason, channel.secrets)[:LONGEST_ERROR]
        again_at = None
        if not isinstance(err, Refused):
            again_at = next_attempt(
                attempts=due.attempts + 1, asked_at=due.asked_at, now=now, chance=self._chance(), retry_after=err.retry_after
            )  # fmt: skip
        self._book.failed(due, error=error, again_at=again_at, now=now)
        if again_at is not None:
            _log.warning("notice %d: %s: %s; again at %s", due.notice_id, channel.name, error, again_at.isoformat())
            return Outcome(retried=1)
        _log.error(
            "notice %d was not delivered to %s: %s; `fraud notices resend %d` tries again",
            due.notice_id, channel.name, error, due.notice_id,
        )  # fmt: skip
        return Outcome(given_up=1)
