"""From the outbox to receivers that really listen, with everything that goes wrong on the way."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import pytest

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.notices.channel import Attempt, Channel
from fraud_pipeline.adapters.notices.deliverer import Deliverer, Outcome
from fraud_pipeline.adapters.notices.http_exchange import post
from fraud_pipeline.adapters.notices.notice_book import LEASE, NoticeBook
from fraud_pipeline.adapters.notices.pagerduty import PagerDuty
from fraud_pipeline.adapters.notices.webhook import Webhook
from fraud_pipeline.domain.notice import FIRST_RETRY, GIVE_UP_AFTER, SEVERITIES, Notice, RecordedNotice
from fraud_pipeline_tests.notice_receivers import Answer, Receiver, receiving

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DRIFT = Notice("drift", "warning", "world#1", "Drift", "It has.", {}, None, NOW)
SECRET = "s3cret-of-the-receiver"


@dataclass
class Clock:
    """A clock that a test moves."""

    at: datetime = NOW

    def __call__(self) -> datetime:
        return self.at

    def move(self, **by: float) -> None:
        self.at += timedelta(**by)


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with Ledger.open(ledger_url) as opened:
        yield opened


@pytest.fixture
def book(ledger: Ledger) -> NoticeBook:
    return NoticeBook(ledger.database)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def webhook(receiver: Receiver, *, timeout_s: float = 30.0) -> Webhook:

    def send(address: str, body: bytes, headers: Any) -> None:
        post(address, body, headers, timeout_s=timeout_s)

    return Webhook(f"{receiver.url}/hooks/{SECRET}", SECRET, source="prod", severities=SEVERITIES, send=send)


def deliverer(book: NoticeBook, clock: Clock, *channels: Channel) -> Deliverer:
    return Deliverer(book, channels, now=clock, chance=lambda: 0.0)


def one_round(book: NoticeBook, clock: Clock, *channels: Channel) -> dict[str, Outcome]:
    return dict(deliverer(book, clock, *channels).deliver(budget_s=60))


def state(book: NoticeBook, notice_id: int = 1) -> tuple[str, int, str | None]:
    (delivery,) = book.deliveries([notice_id])[notice_id]
    return delivery.state, delivery.attempts, delivery.last_error


def test_what_was_told_is_delivered_once(ledger: Ledger, book: NoticeBook, clock: Clock) -> None:
    ledger.tell(DRIFT, now=NOW)
    ledger.tell(DRIFT, now=NOW)
    with receiving() as receiver:
        assert one_round(book, clock, webhook(receiver)) == {"webhook": Outcome(delivered=1)}
        assert one_round(book, clock, webhook(receiver)) == {"webhook": Outcome()}
    assert [json.loads(posted.body)["title"] for posted in receiver.posted] == ["Drift"]
    assert state(book) == ("delivered", 1, None)


def test_a_receiver_in_trouble_is_tried_again_later_and_later(ledger: Ledger, book: NoticeBook, clock: Clock) -> None:
    ledger.tell(DRIFT, now=NOW)
    with receiving(Answer(500), Answer(503), Answer(200)) as receiver:
        assert one_round(book, clock, webhook(receiver)) == {"webhook": Outcome(retried=1)}
        assert one_round(book, clock, webhook(receiver)) == {"webhook": Outcome()}, "not before its time"
        clock.at += FIRST_RETRY
        assert one_round(book, clock, webhook(receiver)) == {"webhook": Outcome(retried=1)}
        clock.at += FIRST_RETRY
        assert one_round(book, clock, webhook(receiver)) == {"webhook": Outcome()}, "the wait has doubled"
        clock.at += FIRST_RETRY
        assert one_round(book, clock, webhook(receiver)) == {"webhook": Outcome(delivered=1)}
    assert [posted.headers["X-Fraud-Attempt"] for posted in receiver.posted] == ["1", "2", "3"]
    assert {posted.headers["X-Fraud-Notice"] for posted in receiver.posted} == {"prod/1"}
    assert state(book) == ("delivered", 3, None)


def test_a_receiver_may_ask_for_more_time(ledger: Ledger, book: NoticeBook, clock: Clock) -> None:
    ledger.tell(DRIFT, now=NOW)
    with receiving(Answer(429, {"Retry-After": "600"}), Answer(200)) as receiver:
        one_round(book, clock, webhook(receiver))
        clock.move(seconds=599)
        assert one_round(book, clock, webhook(receiver)) == {"webhook": Outcome()}
        clock.move(seconds=1)
        assert one_round(book, clock, webhook(receiver)) == {"webhook": Outcome(delivered=1)}


def test_a_refusal_is_for_good_and_is_said_without_secrets(
    ledger: Ledger, book: NoticeBook, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    ledger.tell(DRIFT, now=NOW)
    with receiving(Answer(400, body=f"no such hook /hooks/{SECRET}".encode())) as receiver:
        assert one_round(book, clock, webhook(receiver)) == {"webhook": Outcome(given_up=1)}
        clock.move(days=1)
        assert one_round(book, clock, webhook(receiver)) == {"webhook": Outcome()}
    assert state(book) == ("failed", 1, "HTTP 400: no such hook ***")
    assert "notice 1 was not delivered to webhook: HTTP 400: no such hook ***" in caplog.text
    assert "fraud notices resend 1" in caplog.text
    assert SECRET not in caplog.text


def test_days_in_vain_end_and_resending_begins_anew(ledger: Ledger, book: NoticeBook, clock: Clock) -> None:
    ledger.tell(DRIFT, now=NOW)
    with receiving(Answer(500)) as receiver:
        one_round(book, clock, webhook(receiver))
        clock.at += GIVE_UP_AFTER
        assert one_round(book, clock, webhook(receiver)) == {"webhook": Outcome(given_up=1)}
        receiver.answer_from_now_on(Answer(500), Answer(204))
        book.send_again(1, ["webhook"], now=clock())
        assert one_round(book, clock, webhook(receiver)) == {"webhook": Outcome(retried=1)}
        clock.at += FIRST_RETRY
        assert one_round(book, clock, webhook(receiver)) == {"webhook": Outcome(delivered=1)}


def test_a_channel_in_trouble_is_left_alone_for_the_round(ledger: Ledger, book: NoticeBook, clock: Clock) -> None:
    for number in range(20):
        ledger.tell(replace(DRIFT, episode=f"world#{number}"), now=NOW)
    with receiving(Answer(None)) as receiver:
        assert one_round(book, clock, webhook(receiver, timeout_s=0.2)) == {"webhook": Outcome(retried=1)}
        assert len(receiver.posted) == 1
        receiver.answer_from_now_on(Answer(200))
        assert one_round(book, clock, webhook(receiver)) == {"webhook": Outcome(delivered=19)}


def test_a_hanging_channel_holds_up_no_other(ledger: Ledger, book: NoticeBook, clock: Clock) -> None:
    ledger.tell(DRIFT, now=NOW)
    with receiving(Answer(None)) as hanging, receiving(Answer(202)) as pager:
        page = PagerDuty(pager.url, "k", source="prod", severities=SEVERITIES)
        hangs = webhook(hanging, timeout_s=20)
        rounds = threading.Thread(target=one_round, args=(book, clock, hangs, page))
        rounds.start()
        deadline = monotonic() + 15
        while not any(d.channel == "pagerduty" and d.state == "delivered" for d in book.deliveries([1])[1]):
            assert monotonic() < deadline
        assert rounds.is_alive(), "the other one still hangs"
        hanging.closing.set()
        rounds.join(30)
        assert not rounds.is_alive()
    assert {d.channel: d.state for d in book.deliveries([1])[1]} == {"pagerduty": "delivered", "webhook": "retrying"}


def test_no_attempt_begins_after_the_budget(ledger: Ledger, book: NoticeBook, clock: Clock) -> None:
    ledger.tell(DRIFT, now=NOW)
    with receiving() as receiver:
        assert deliverer(book, clock, webhook(receiver)).deliver(budget_s=0) == {"webhook": Outcome()}
        assert receiver.posted == []


class Killed(BaseException):
    """As the process being killed: nobody catches it."""


class Dying:
    """A channel whose process is killed in the middle of sending."""

    name, severities, secrets = "webhook", SEVERITIES, ()

    def send(self, _told: RecordedNotice, _attempt: Attempt) -> None:
        raise Killed


def test_what_a_dead_process_had_claimed_comes_back(ledger: Ledger, book: NoticeBook, clock: Clock) -> None:
    ledger.tell(DRIFT, now=NOW)
    with pytest.raises(Killed):
        one_round(book, clock, Dying())
    with receiving() as receiver:
        assert one_round(book, clock, webhook(receiver)) == {"webhook": Outcome()}, "it may be on its way"
        clock.at += LEASE
        assert one_round(book, clock, webhook(receiver)) == {"webhook": Outcome(delivered=1)}
    assert [posted.headers["X-Fraud-Attempt"] for posted in receiver.posted] == ["2"]


class Buggy:
    """A channel with a bug."""

    name, severities, secrets = "buggy", SEVERITIES, ("hidden",)

    def send(self, _told: RecordedNotice, _attempt: Attempt) -> None:
        raise KeyError("hidden")


def test_a_bug_in_a_channel_stops_no_other_and_is_not_tried_for_ever(
    ledger: Ledger, book: NoticeBook, clock: Clock
) -> None:
    ledger.tell(DRIFT, now=NOW)
    with receiving() as receiver:
        done = one_round(book, clock, Buggy(), webhook(receiver))
    assert done == {"buggy": Outcome(given_up=1), "webhook": Outcome(delivered=1)}
    errors = {d.channel: d.last_error for d in book.deliveries([1])[1]}
    assert errors == {"buggy": "cannot be sent: KeyError: '***'", "webhook": None}


def test_two_deliverers_at_once_deliver_each_once(ledger: Ledger, ledger_url: str, clock: Clock) -> None:
    for number in range(12):
        ledger.tell(replace(DRIFT, episode=f"world#{number}"), now=NOW)
    start = threading.Barrier(2)
    with receiving() as receiver, Ledger.open(ledger_url) as second:

        def work(own: Ledger) -> None:
            start.wait()
            one_round(NoticeBook(own.database), clock, webhook(receiver))

        threads = [threading.Thread(target=work, args=(own,)) for own in (ledger, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        book = NoticeBook(ledger.database)
        for _ in range(2):  # one of them may have stopped while the other held the last claim
            one_round(book, clock, webhook(receiver))
        ids = [json.loads(posted.body)["id"] for posted in receiver.posted]
    assert sorted(ids) == list(range(1, 13))
    assert {state(book, number)[:2] for number in range(1, 13)} == {("delivered", 1)}


def test_an_incident_is_resolved_after_it_was_raised(ledger: Ledger, book: NoticeBook, clock: Clock) -> None:
    ledger.tell(DRIFT, now=NOW)
    ledger.tell(DRIFT.over("It is over.", at=NOW), now=NOW)
    with receiving(Answer(500), Answer(202)) as receiver:
        page = PagerDuty(receiver.url, "k", source="prod", severities=SEVERITIES)
        assert one_round(book, clock, page) == {"pagerduty": Outcome(retried=1)}
        clock.at += FIRST_RETRY
        assert one_round(book, clock, page) == {"pagerduty": Outcome(delivered=2)}
    actions = [json.loads(posted.body)["event_action"] for posted in receiver.posted]
    assert actions == ["trigger", "trigger", "resolve"]
