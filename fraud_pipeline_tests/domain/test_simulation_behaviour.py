"""Honest people have habits that a model can learn, and break them often enough to make it hard."""

from datetime import date

import pandas as pd
import pytest

from fraud_pipeline.domain.simulation import WorldConfig, simulate
from fraud_pipeline_tests.domain.simulated_frames import whole

CONFIG = WorldConfig(end=date(2026, 1, 15), customers=500, merchants=300, days=60, rate=2.0, fraud_rate=0)


@pytest.fixture(scope="module")
def payments() -> pd.DataFrame:
    return whole(simulate(CONFIG))[0]


def test_people_pay_mostly_in_their_home_country(payments):
    known = payments[payments["country"].notna()]
    home = known.groupby("customer_id")["country"].agg(lambda countries: countries.mode()[0])
    share = (known["country"] == known["customer_id"].map(home)).mean()
    assert 0.94 < share < 0.995


def test_most_payments_go_to_usual_merchants_but_first_visits_are_ordinary(payments):
    later = payments[payments["event_time"] >= "2025-12-20"]
    before = payments[payments["event_time"] < "2025-12-20"]
    seen = set(zip(before["customer_id"], before["merchant_id"], strict=True))
    known = [pair in seen for pair in zip(later["customer_id"], later["merchant_id"], strict=True)]
    assert 0.6 < sum(known) / len(known) < 0.95


def test_nights_are_quiet_and_each_channel_has_its_share(payments):
    hour = payments["event_time"].dt.hour
    assert 0.02 < hour.between(1, 5).mean() < 0.12
    shares = payments["channel"].value_counts(normalize=True)
    assert shares["pos"] > shares["online"] > 0.2
    assert {"atm", "transfer"} <= set(shares.index)
    assert "unknown" not in shares.index


def test_amounts_belong_to_their_category(payments):
    medians = payments.groupby(["channel", "merchant_category"])["amount"].median()
    assert 25 < medians["pos", "grocery"] < 50
    assert medians["online", "travel"] > 5 * medians["online", "gaming"]
    assert (payments.loc[payments["channel"] == "atm", "amount"] % 20 == 0).all()
    assert (payments["amount"] == 0).any()


def test_customers_differ_in_how_much_they_spend_and_how_often_they_pay(payments):
    groceries = payments[payments["merchant_category"] == "grocery"].groupby("customer_id")["amount"].median()
    assert groceries.quantile(0.9) > 2 * groceries.quantile(0.1)
    counts = payments["customer_id"].value_counts()
    assert counts.quantile(0.9) > 3 * counts.quantile(0.1)


def test_weekends_seasons_and_holidays_show(payments):
    daily = payments.groupby(payments["event_time"].dt.date).size()
    weekday = pd.to_datetime(daily.index).dayofweek
    assert daily[weekday == 5].mean() > 1.1 * daily[weekday == 6].mean()
    assert daily[date(2025, 12, 25)] < 0.6 * daily.mean()
    assert (
        daily[[day.month == 12 for day in daily.index]].mean()
        > 1.1 * daily[[day.month == 1 for day in daily.index]].mean()
    )


def test_shops_have_places_and_transfers_have_none(payments):
    placed = payments["latitude"].notna()
    assert (placed == payments["longitude"].notna()).all()
    share = placed.groupby(payments["channel"]).mean()
    assert share["transfer"] == 0
    assert share["pos"] > 0.9
    assert 0.3 < share["online"] < 0.7


def test_devices_are_mostly_the_customers_own(payments):
    online = payments[(payments["channel"] == "online")]
    assert 0.05 < online["device_id"].isna().mean() < 0.2
    per_customer = online.dropna(subset=["device_id"]).groupby("customer_id")["device_id"]
    main = per_customer.agg(lambda devices: devices.isin(devices.value_counts().index[:2]).mean())
    assert main.mean() > 0.9
    owners = online.groupby("device_id")["customer_id"].nunique()
    assert (owners > 2).any(), "public computers are shared by honest people"


def test_some_travel(payments):
    shops = payments[(payments["channel"] == "pos") & payments["latitude"].notna()]
    home = shops.groupby("customer_id")[["latitude", "longitude"]].transform("median")
    away = ((shops["latitude"] - home["latitude"]).abs() + (shops["longitude"] - home["longitude"]).abs()) > 3
    assert 0.01 < away.mean() < 0.12
