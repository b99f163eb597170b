"""Before its date a drift changes no bit; after it, what its name says."""

from dataclasses import replace
from datetime import date, timedelta

import pandas as pd
import pytest

from fraud_pipeline.domain.simulation import DRIFT_KINDS, Drift, World, WorldConfig
from fraud_pipeline.domain.simulation_drift import Levels, levels
from fraud_pipeline_tests.domain.simulated_frames import same, whole

ON = date(2026, 3, 2)
CALM = WorldConfig(end=date(2026, 4, 1), customers=400, merchants=200, days=50, fraud_rate=0.02)


def after(config: WorldConfig, days: int = 14) -> pd.DataFrame:
    """The payments of the last days of a world."""
    world = World(config)
    return whole(world.day(config.end - timedelta(days=i)) for i in range(days, 0, -1))[0]


def drifting(kind: str) -> WorldConfig:
    return replace(CALM, drifts=(Drift(kind, ON),))


@pytest.fixture(scope="module")
def calm() -> pd.DataFrame:
    return after(CALM)


@pytest.mark.parametrize("kind", DRIFT_KINDS)
def test_before_its_date_a_drift_changes_nothing_and_on_it_something(kind):
    with_it, without = World(drifting(kind)), World(CALM)
    for day in (CALM.start, ON - timedelta(days=1)):
        assert same(with_it.day(day), without.day(day))
    changed = ON if kind != "new_fraud" else ON + timedelta(days=5)
    assert not same(with_it.day(changed), without.day(changed))


def test_levels_rise_and_stay():
    drifts = tuple(Drift(kind, ON) for kind in DRIFT_KINDS if kind != "new_fraud")
    assert levels(drifts, ON - timedelta(days=1)) == Levels()
    first, later = levels(drifts, ON), levels(drifts, ON + timedelta(days=3_000))
    assert first.price_index == 1.1
    assert later == Levels(price_index=2.0, wallet=0.30, fault=0.5, covid=1.0)


def test_inflation_raises_amounts(calm):
    dearer = after(drifting("inflation"))
    assert dearer["amount"].median() == pytest.approx(1.19 * calm["amount"].median(), rel=0.05)


def test_a_new_channel_rises_from_nothing(calm):
    changed = after(drifting("new_channel"), 7)
    assert (calm["channel"] != "unknown").all()
    wallet = changed[changed["channel"] == "unknown"]
    assert 0.15 < len(wallet) / len(changed) < 0.35
    assert wallet["device_id"].notna().all()
    assert wallet["latitude"].isna().all()
    assert (wallet["kind"] != "honest").any()


def test_new_fraud_brings_scams_over_transfers_from_the_victims_own_devices(calm):
    changed = after(drifting("new_fraud"))
    assert "push_payment_scam" not in set(calm["kind"])
    scams = changed[changed["kind"] == "push_payment_scam"]
    assert len(scams) > 0.2 * (changed["kind"] != "honest").sum()
    assert (scams["channel"] == "transfer").all()
    assert scams["amount"].median() > 300
    honest = changed[changed["kind"] == "honest"]
    assert not set(scams["merchant_id"]) & set(honest["merchant_id"]), "mules' accounts are fresh"
    assert scams.groupby("merchant_id")["customer_id"].nunique().max() >= 4
    known = scams["device_id"].dropna().isin(set(honest["device_id"].dropna()))
    assert known.mean() > 0.5


def test_a_sensor_fault_breaks_places_but_not_the_contract(calm):
    changed = after(drifting("sensor_fault"))
    at_zero = (changed["latitude"] == 0) & (changed["longitude"] == 0)
    assert not ((calm["latitude"] == 0) & (calm["longitude"] == 0)).any()
    assert 0.3 < at_zero.mean() < 0.5
    assert changed.loc[at_zero, "country"].isna().all()
    assert (changed["latitude"].isna() == changed["longitude"].isna()).all()


def test_covid_changes_habits(calm):
    changed = after(drifting("covid"))
    before, now = (f["channel"].value_counts(normalize=True) for f in (calm, changed))
    assert now["online"] > 1.3 * before["online"]
    assert now["atm"] < 0.6 * before["atm"]
    hotels = [(f["merchant_category"] == "hotel").mean() for f in (calm, changed)]
    assert hotels[1] < 0.4 * hotels[0]
    honest = [f[(f["kind"] == "honest") & (f["channel"] == "pos") & f["country"].notna()] for f in (calm, changed)]
    abroad = [
        (f["country"] != f.groupby("customer_id")["country"].transform(lambda c: c.mode()[0])).mean() for f in honest
    ]
    assert abroad[1] < 0.25 * abroad[0]
