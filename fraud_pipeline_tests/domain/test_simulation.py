"""The world as a whole: the same for the same seed, in any order of days, valid, and of the size that was asked for."""

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal

import numpy as np
import pytest

from fraud_pipeline.domain.simulation import World, WorldConfig, simulate
from fraud_pipeline.domain.transaction import TRANSACTION_COLUMNS, parse_transaction
from fraud_pipeline_tests.domain.simulated_frames import same, whole

END = date(2026, 4, 1)
SMALL = WorldConfig(end=END, customers=120, merchants=60, days=12, fraud_rate=0.03)


def test_the_same_config_gives_the_same_bits():
    for left, right in zip(simulate(SMALL), simulate(SMALL), strict=True):
        assert same(left, right)


def test_another_seed_gives_another_world():
    left, right = next(simulate(SMALL)), next(simulate(replace(SMALL, seed=43)))
    assert not same(left, right)


def test_a_day_does_not_depend_on_the_days_made_before_it():
    in_order = list(simulate(SMALL))
    backwards = World(SMALL)
    for day in reversed(in_order):
        assert same(day, backwards.day(day.day))


def test_a_world_can_go_on_past_its_end():
    longer = replace(SMALL, end=END + timedelta(days=2), days=14)
    assert longer.start == SMALL.start
    world, goes_on = World(SMALL), World(longer)
    for day in (END - timedelta(days=1), END, END + timedelta(days=1)):
        assert same(world.day(day), goes_on.day(day))


def test_days_are_complete_and_in_event_order():
    days = list(simulate(SMALL))
    assert [day.day for day in days] == [SMALL.start + timedelta(days=i) for i in range(12)]
    for day in days:
        moments = day.transactions["event_time"]
        assert moments.astype("datetime64[D]").tolist() == [day.day] * len(day)
        ids = day.transactions["transaction_id"]
        assert list(zip(moments, ids, strict=True)) == sorted(zip(moments, ids, strict=True))
        assert len(np.unique(ids)) == len(ids)


def test_every_payment_keeps_the_contract():
    payments, _, _ = whole(simulate(SMALL))
    assert set(TRANSACTION_COLUMNS) - set(payments.columns) == {"writer", "sequence"}
    assert payments["transaction_id"].is_unique
    assert len(payments) > 1_500
    for row in payments.astype(object).where(payments.notna(), None).to_dict("records"):
        event = {name: row[name] for name in TRANSACTION_COLUMNS if name in row and row[name] is not None}
        event["event_time"] = row["event_time"].tz_localize("UTC").isoformat()
        event["amount"] = Decimal(event.pop("amount_minor")) / 100
        assert parse_transaction(event).transaction_id == row["transaction_id"]


def test_the_default_world_has_the_rates_of_its_config():
    config = WorldConfig(end=END)
    days = list(simulate(config))
    rows = sum(len(day) for day in days)
    frauds = sum(len(day.truth["kind"]) for day in days)
    labels = sum(len(day.labels["change"]) for day in days)
    assert rows == pytest.approx(config.customers * config.rate * config.days, rel=0.10)
    assert frauds / rows == pytest.approx(config.fraud_rate, rel=0.15)
    assert labels / frauds == pytest.approx(1 - config.unlabelled_share, abs=0.02)


@pytest.mark.parametrize(
    ("changes", "least"),
    [
        ({"customers": 1, "merchants": 10, "days": 3, "rate": 5.0, "fraud_rate": 0.3}, 1),
        ({"customers": 3, "merchants": 10, "days": 1, "rate": 0.001, "fraud_rate": 0}, 0),
        ({"customers": 30, "merchants": 5_000, "days": 2, "fraud_rate": 0.5}, 50),
        ({"customers": 300, "merchants": 10, "days": 2, "rate": 20}, 10_000),
    ],
)
def test_odd_worlds_work_too(changes, least):
    payments, labels, truth = whole(simulate(WorldConfig(end=END, **changes)))
    assert len(payments) >= least
    assert set(labels["transaction_id"]) <= set(truth["transaction_id"]) <= set(payments["transaction_id"])


def test_without_fraud_there_is_none():
    _, labels, truth = whole(simulate(replace(SMALL, fraud_rate=0)))
    assert len(labels) == len(truth) == 0


def test_labels_come_late_and_some_never():
    config = replace(SMALL, customers=400, days=30, fraud_rate=0.05, unlabelled_share=0.1)
    _, labels, truth = whole(simulate(config))
    delay = (labels["known_at"] - labels["event_time"]).dt.total_seconds() / 86_400
    assert delay.between(1, 30).all()
    assert (delay <= 7).mean() == pytest.approx(0.78, abs=0.05)
    assert delay.between(3, 10).mean() > 0.6
    assert (delay > 10).any()
    assert 1 - len(labels) / len(truth) == pytest.approx(0.1, abs=0.03)
    assert set(labels["source"]) == {"simulation"}
    assert set(labels["author"]) == {"simulator"}
    assert labels["is_fraud"].all()
    assert (labels["change"] == 1).all()


def test_a_label_repeats_the_fields_of_its_transaction():
    payments, labels, _ = whole(simulate(SMALL))
    theirs = payments.set_index("transaction_id").loc[labels["transaction_id"]].reset_index()
    copied = ["event_time", "customer_id", "merchant_id", "merchant_category", "channel", "country", "device_id"]
    assert len(labels) > 20
    assert theirs[copied].equals(labels[copied])


def test_a_fixed_label_delay_is_kept_to_the_microsecond():
    _, labels, _ = whole(simulate(replace(SMALL, label_delay_days=(7, 7), unlabelled_share=0)))
    assert (labels["known_at"] - labels["event_time"] == np.timedelta64(7, "D")).all()
