"""The outbox, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.notices.notice_book import LEASE, NoticeBook
from fraud_pipeline.domain.notice import KEPT_FOR, NEWS_FOR, SEVERITIES, Notice
from fraud_pipeline.domain.notice_conditions import Condition
from fraud_pipeline.errors import NotFound

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DRIFT = Notice(
    "drift", "warning", "world#1", "Drift", "It has.", {"share": 0.2, "fields": ["a", "b"]}, "http://ui", NOW
)
LAGS = Condition("lag", "scorer", True, at=NOW, text="It is late.", title="The scorer falls behind")


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with Ledger.open(ledger_url) as opened:
        yield opened


@pytest.fixture
def book(ledger: Ledger) -> NoticeBook:
    return NoticeBook(ledger.database)


def test_an_episode_is_told_once(ledger: Ledger, book: NoticeBook) -> None:
    assert ledger.tell(DRIFT, now=NOW)
    assert not ledger.tell(replace(DRIFT, title="Again"), now=NOW + timedelta(hours=1))
    (told,) = book.newest(limit=10)
    assert (told.notice, told.told_at) == (DRIFT, NOW)
    assert book.find(told.notice_id) == told
    assert ledger.tell(replace(DRIFT, episode="world#2"))
    assert ledger.tell(replace(DRIFT, kind="parity"))


def test_the_end_is_told_once_and_only_of_what_was_told(ledger: Ledger, book: NoticeBook) -> None:
    over = DRIFT.over("It is over.", at=NOW)
    assert not ledger.tell(over), "nobody heard that it began"
    ledger.tell(DRIFT)
    assert [told.notice for told in book.open()] == [DRIFT]
    assert ledger.tell(over)
    assert not ledger.tell(over)
    assert book.open() == []


def test_facts_that_json_has_not_are_kept_as_it_has_them(ledger: Ledger, book: NoticeBook) -> None:
    odd = replace(DRIFT, facts={"nan": float("nan"), "day": NOW.date(), "nested": {"inf": [float("inf"), 1]}})
    assert ledger.tell(odd)
    assert book.newest(limit=1)[0].notice.facts == {"nan": None, "day": "2026-03-01", "nested": {"inf": [None, 1]}}


def test_a_subject_has_one_open_episode_and_they_are_numbered(book: NoticeBook) -> None:
    assert book.begin(LAGS, now=NOW)
    assert not book.begin(LAGS, now=NOW), "it is open"
    assert book.begin(replace(LAGS, subject="scorer#1"), now=NOW), "another subject, whatever its name"
    (first,) = [told.notice for told in book.open() if told.notice.episode == "scorer#1"]
    book.tell(first.over("", at=NOW), now=NOW)
    assert book.begin(LAGS, now=NOW)
    assert {told.notice.episode for told in book.open()} == {"scorer#2", "scorer#1#1"}


def test_percent_and_underscore_are_no_patterns_in_a_subject(book: NoticeBook) -> None:
    assert book.begin(replace(LAGS, subject="axb"), now=NOW)
    assert book.begin(replace(LAGS, subject="a_b"), now=NOW)
    assert book.begin(replace(LAGS, subject="a%"), now=NOW)
    assert {told.notice.episode for told in book.open()} == {"axb#1", "a_b#1", "a%#1"}


def test_of_many_who_tell_the_same_at_once_one_does(ledger_url: str) -> None:
    ledgers = [Ledger.open(ledger_url) for _ in range(4)]
    start, told = threading.Barrier(len(ledgers)), []

    def begin(ledger: Ledger) -> None:
        start.wait()
        told.append(NoticeBook(ledger.database).begin(LAGS, now=NOW))

    threads = [threading.Thread(target=begin, args=(ledger,)) for ledger in ledgers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(told) == [False, False, False, True]
    for ledger in ledgers:
        ledger.close()


def test_a_channel_gets_what_is_new_and_grave_enough(ledger: Ledger, book: NoticeBook) -> None:
    ledger.tell(DRIFT, now=NOW)
    ledger.tell(replace(DRIFT, episode="world#2", severity="info"), now=NOW)
    ledger.tell(replace(DRIFT, episode="world#3"), now=NOW - NEWS_FOR - timedelta(seconds=1))
    assert book.ask_for_new({"slack": ("warning", "critical"), "log": SEVERITIES}, now=NOW) == 3
    assert book.ask_for_new({"slack": ("warning", "critical"), "log": SEVERITIES}, now=NOW) == 0
    drift = next(told.notice_id for told in book.newest(limit=9) if told.notice == DRIFT)
    assert [due.notice_id for due in book.due("slack", now=NOW, limit=9)] == [drift]
    assert len(book.due("log", now=NOW, limit=9)) == 2


def test_a_claim_is_one_deliverers_until_its_lease_is_over(ledger: Ledger, book: NoticeBook) -> None:
    ledger.tell(DRIFT, now=NOW)
    book.ask_for_new({"slack": SEVERITIES}, now=NOW)
    (due,) = book.due("slack", now=NOW)
    assert book.claim(due, now=NOW)
    assert not book.claim(due, now=NOW), "as another one would who read it before"
    assert book.due("slack", now=NOW) == []
    (back,) = book.due("slack", now=NOW + LEASE)
    assert (back.attempts, back.state) == (1, "retrying")
    assert book.claim(back, now=NOW + LEASE)
    book.failed(due, error="late answer of the first", again_at=NOW, now=NOW)
    assert book.due("slack", now=NOW + LEASE) == [], "what the first one says no longer counts"
    book.delivered(due, now=NOW + LEASE)
    assert book.deliveries([due.notice_id])[due.notice_id][0].state == "delivered", "but out is out"
    book.failed(back, error="refused", again_at=None, now=NOW + LEASE)
    assert book.deliveries([due.notice_id])[due.notice_id][0].state == "delivered"


def test_a_failure_waits_or_gives_up(ledger: Ledger, book: NoticeBook) -> None:
    ledger.tell(DRIFT, now=NOW)
    book.ask_for_new({"slack": SEVERITIES}, now=NOW)
    (due,) = book.due("slack", now=NOW)
    book.claim(due, now=NOW)
    again = NOW + timedelta(seconds=30)
    book.failed(due, error="HTTP 500", again_at=again, now=NOW)
    assert book.due("slack", now=NOW + timedelta(seconds=29)) == []
    (due,) = book.due("slack", now=again)
    assert (due.attempts, due.last_error) == (1, "HTTP 500")
    book.claim(due, now=again)
    book.failed(due, error="HTTP 400", again_at=None, now=again)
    (settled,) = book.deliveries([due.notice_id])[due.notice_id]
    assert (settled.state, settled.failed_at, settled.next_attempt_at) == ("failed", again, None)
    book.send_again(due.notice_id, ["slack", "mail"], now=again)
    anew = book.deliveries([due.notice_id])[due.notice_id]
    assert [(d.channel, d.state, d.asked_at) for d in anew] == [("mail", "waiting", again), ("slack", "waiting", again)]
    with pytest.raises(NotFound, match="no notice 99"):
        book.send_again(99, ["slack"], now=again)


def test_the_end_waits_for_the_beginning_on_its_channel(ledger: Ledger, book: NoticeBook) -> None:
    ledger.tell(DRIFT, now=NOW)
    ledger.tell(DRIFT.over("It is over.", at=NOW), now=NOW)
    book.ask_for_new({"slack": SEVERITIES, "mail": SEVERITIES}, now=NOW)
    (begin,) = book.due("slack", now=NOW, limit=9)
    book.claim(begin, now=NOW)
    assert book.due("slack", now=NOW, limit=9) == []
    book.failed(begin, error="HTTP 500", again_at=NOW + timedelta(hours=1), now=NOW)
    assert book.due("slack", now=NOW, limit=9) == []
    begin = book.due("slack", now=NOW + timedelta(hours=1))[0]
    book.delivered(begin, now=NOW)
    (end,) = book.due("slack", now=NOW, limit=9)
    assert end.notice_id == begin.notice_id + 1
    (mail,) = book.due("mail", now=NOW, limit=9)
    assert mail.notice_id == begin.notice_id, "the other channel is on its own"


def test_old_notices_go_but_not_what_is_open_or_on_its_way(ledger: Ledger, book: NoticeBook) -> None:
    old = NOW - KEPT_FOR - timedelta(days=1)
    over, still, waits, event = (replace(DRIFT, episode=f"world#{n}") for n in range(4))
    event = replace(event, kind="promotion")
    for notice in (over, still, waits, event, over.over("", at=NOW)):
        ledger.tell(notice, now=old)
    ledger.tell(replace(DRIFT, episode="young#1"), now=NOW)
    ledger.tell(waits.over("", at=NOW), now=old)
    number = next(told.notice_id for told in book.newest(limit=9) if told.notice == waits)
    book.send_again(number, ["slack"], now=NOW)
    assert book.prune(now=NOW) == 4
    kept = {(told.notice.episode, told.notice.resolves) for told in book.newest(limit=99)}
    assert kept == {("world#1", False), ("world#2", False), ("young#1", False)}
    assert book.prune(now=NOW) == 0


def test_looking_writes_nothing(tmp_path: Path) -> None:
    """A tick that has nothing to do must not take SQLite's one write lock."""
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        book, database = NoticeBook(ledger.database), ledger.database
        with database.writing():
            assert book.ask_for_new({"log": SEVERITIES}, now=NOW) == 0
            assert book.prune(now=NOW) == 0
            assert book.open() == []
            assert book.due("log", now=NOW) == []
