"""A scorer's side of the state view: changes arrive, outages are made up for, and what was lost is written anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fraud_pipeline.adapters import view_feed
from fraud_pipeline.adapters.view_feed import ViewFeed
from fraud_pipeline.domain.customer_record import CustomerRecords
from fraud_pipeline.domain.feature_state import FeatureState
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline_tests.fake_state_view import FakeStateView, FakeViewServer

WRITER = "transactions[0]"
START = datetime(2026, 1, 1, tzinfo=UTC)


class Scorer:
    """A state that takes payments in, and its feed, whose clock jumps so that nothing waits."""

    def __init__(self, server: FakeViewServer) -> None:
        self.server = server
        self.state = FeatureState.empty()
        self.offset = -1
        self.feed = self.make_feed()

    def make_feed(self) -> ViewFeed:
        self.now = 0.0
        return ViewFeed(
            FakeStateView(self.server),  # type: ignore[arg-type]  # the fake's contract is tested with the real one's
            WRITER,
            customers=lambda: self.state.customers,
            records=CustomerRecords(self.state),
            clock=self.clock,
        )

    def clock(self) -> float:
        self.now += 10.0
        return self.now

    def pay(self, *customers: str) -> None:
        for customer in customers:
            self.offset += 1
            self.state.update(
                Transaction(
                    f"t-{self.offset}", START + timedelta(minutes=self.offset), customer, "shop", 100 + self.offset
                )
            )
        self.feed.committed(self.offset, customers)

    def until(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline
            self.feed.tick()

    @property
    def whole(self) -> bool:
        """Whether the view is what the state is, and says so."""
        records = dict(zip(self.state.customers, CustomerRecords(self.state).of(self.state.customers), strict=True))
        there = {name: content for name, (_, _, content) in self.server.customers.items()}
        return there == records and self.server.reach == {WRITER: self.offset} and self.feed.reach == self.offset


@pytest.fixture
def scorer() -> Iterator[Scorer]:
    made = Scorer(FakeViewServer())
    yield made
    made.feed.close()


def test_the_first_time_everything_is_written_and_then_what_changed(scorer: Scorer):
    scorer.pay("ann", "bob")
    scorer.until(lambda: scorer.whole)
    assert scorer.feed.rebuilds == 1
    scorer.pay("bob", "eve")
    scorer.until(lambda: scorer.whole)
    assert scorer.feed.rebuilds == 1


def test_many_customers_are_written_in_slices_while_others_pay(scorer: Scorer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(view_feed, "SLICE", 10)
    scorer.pay(*(f"c{number}" for number in range(55)))
    for number in range(20):
        scorer.pay(f"c{number}", f"new-{number}")
    scorer.until(lambda: scorer.whole)


def test_what_a_view_that_was_away_missed_is_written_when_it_is_back(scorer: Scorer):
    scorer.pay("ann")
    scorer.until(lambda: scorer.whole)
    scorer.server.away = True
    scorer.pay("ann", "bob")
    scorer.until(lambda: scorer.feed.errors >= 2)
    scorer.pay("eve")
    scorer.server.away = False
    scorer.until(lambda: scorer.whole)
    assert scorer.feed.rebuilds == 1


@pytest.mark.parametrize("nobody_pays", [True, False])
def test_a_view_that_lost_its_memory_is_written_anew(scorer: Scorer, nobody_pays: bool):
    scorer.pay("ann", "bob")
    scorer.until(lambda: scorer.whole)
    scorer.server.lose_everything()
    if not nobody_pays:
        scorer.pay("ann")
    scorer.until(lambda: scorer.whole)


def test_memory_lost_while_everything_is_written_begins_it_anew(scorer: Scorer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(view_feed, "SLICE", 2)
    scorer.pay(*(f"c{number}" for number in range(20)))
    scorer.until(lambda: len(scorer.server.customers) > 6)
    scorer.server.lose_everything()
    scorer.until(lambda: scorer.whole)
    assert scorer.feed.rebuilds == 2


def test_a_new_owner_at_the_same_place_writes_nothing_and_at_another_one_everything(scorer: Scorer):
    scorer.pay("ann", "bob")
    scorer.until(lambda: scorer.whole)
    scorer.feed.close()
    scorer.feed = scorer.make_feed()
    scorer.feed.committed(scorer.offset, ())
    scorer.until(lambda: scorer.feed.reach == scorer.offset)
    assert scorer.feed.rebuilds == 0
    scorer.feed.close()
    scorer.offset += 1
    scorer.state.update(Transaction("t-x", START + timedelta(days=1), "bob", "shop", 5))
    scorer.feed = scorer.make_feed()
    scorer.feed.committed(scorer.offset, ())
    scorer.until(lambda: scorer.whole)
    assert scorer.feed.rebuilds == 1
