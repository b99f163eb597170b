"""Each kind of fraud is there, of the size it claims, and leaves the traces it is known by."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from fraud_pipeline.domain import simulation_chance as chance
from fraud_pipeline.domain.simulation import KIND_NAMES, World, WorldConfig
from fraud_pipeline.domain.simulation_campaigns import COMPROMISED, KINDS, LONGEST_DAYS, NEW_FRAUD
from fraud_pipeline.domain.simulation_payments import DAY_S
from fraud_pipeline_tests.domain.simulated_frames import whole

CONFIG = WorldConfig(end=date(2026, 4, 1), customers=800, merchants=400, days=60, fraud_rate=0.02)
OLD_KINDS = tuple(name for i, name in enumerate(KIND_NAMES) if i != NEW_FRAUD)


@pytest.fixture(scope="module")
def world() -> World:
    return World(CONFIG)


@pytest.fixture(scope="module")
def payments(world) -> pd.DataFrame:
    return whole(world.days())[0]


def of(payments: pd.DataFrame, kind: str) -> pd.DataFrame:
    return payments[payments["kind"] == kind]


def test_every_kind_has_about_its_share(payments):
    frauds = payments[payments["kind"] != "honest"]
    shares = frauds["kind"].value_counts(normalize=True)
    assert set(shares.index) == set(OLD_KINDS)
    for kind in KINDS[:NEW_FRAUD]:
        assert shares[kind.name] == pytest.approx(kind.share, rel=0.4), kind.name


def test_fraud_is_there_from_the_first_day_at_an_even_pace(payments):
    day = payments["event_time"].dt.date
    rate = (payments["kind"] != "honest").groupby(day).mean()
    assert rate.iloc[:10].mean() == pytest.approx(rate.iloc[-10:].mean(), rel=0.5)


@pytest.mark.parametrize("code", [i for i in range(len(KINDS)) if i != COMPROMISED], ids=lambda i: KINDS[i].name)
def test_a_campaign_has_the_mean_size_it_claims_and_ends_in_time(world, code):
    scene, rng = world._underworld.scene(0), np.random.default_rng(3)
    campaigns = [KINDS[code].make(scene, rng) for _ in range(400)]
    assert np.mean([len(c.at_s) for c in campaigns]) == pytest.approx(KINDS[code].mean_size, rel=0.06)
    for campaign in campaigns:
        assert campaign.at_s.min() >= 0
        assert campaign.at_s.max() < LONGEST_DAYS * DAY_S
        assert (campaign.amount >= 0).all()


def test_campaigns_of_a_day_keep_their_ids_over_their_days(payments):
    frauds = payments[payments["kind"] != "honest"]
    assert (frauds["campaign_id"].str.rsplit("-", n=4).str[0] == frauds["kind"]).all()
    ring = of(payments, "fraud_ring")
    lasts = ring.groupby("campaign_id")["event_time"].agg(lambda t: t.max() - t.min())
    assert (lasts > pd.Timedelta(days=3)).any()


def test_card_testing_is_many_cards_and_tiny_amounts_at_one_shop(payments):
    fraud = of(payments, "card_testing")
    assert (fraud["channel"] == "online").all()
    assert (fraud["amount"] < 10).mean() > 0.6
    per = (
        fraud[fraud["amount"] < 10]
        .groupby("campaign_id")
        .agg(cards=("customer_id", "nunique"), shops=("merchant_id", "nunique"))
    )
    assert per["cards"].median() >= 5
    assert per["shops"].median() == 1


def test_account_takeover_comes_from_devices_new_to_the_customer(payments):
    fraud = of(payments, "account_takeover").dropna(subset=["device_id"])
    own = set(zip(*payments.loc[payments["kind"] == "honest", ["customer_id", "device_id"]].T.to_numpy(), strict=True))
    pairs = zip(fraud["customer_id"], fraud["device_id"], strict=True)
    assert np.mean([pair not in own for pair in pairs]) > 0.75
    assert set(fraud["channel"]) == {"online", "transfer"}
    assert fraud["amount"].median() > 3 * payments["amount"].median()
    assert (fraud.groupby("campaign_id")["customer_id"].nunique() == 1).all()


def test_a_compromised_merchant_stays_one_for_weeks_and_its_frauds_look_honest(payments):
    fraud = of(payments, "compromised_merchant")
    per = fraud.groupby("campaign_id").agg(merchants=("merchant_id", "nunique"), customers=("customer_id", "nunique"))
    assert (per["merchants"] == 1).all()
    assert per["customers"].max() > 15
    campaign = fraud["campaign_id"].value_counts().index[0]
    mine = fraud[fraud["campaign_id"] == campaign]
    there = payments[
        (payments["merchant_id"] == mine["merchant_id"].iloc[0])
        & payments["event_time"].between(mine["event_time"].min(), mine["event_time"].max())
    ]
    assert 0.4 < (there["kind"] != "honest").mean() <= 1
    honest = payments[(payments["kind"] == "honest") & payments["merchant_category"].isin(mine["merchant_category"])]
    assert mine["amount"].median() < honest["amount"].quantile(0.97)


def test_a_stolen_card_is_used_far_from_home(payments):
    fraud = of(payments, "stolen_card")
    assert set(fraud["channel"]) == {"pos", "atm"}
    assert fraud["device_id"].isna().all()
    home = payments[payments["kind"] == "honest"].groupby("customer_id")[["latitude", "longitude"]].median()
    far = (fraud[["latitude", "longitude"]].to_numpy() - home.reindex(fraud["customer_id"]).to_numpy())[
        fraud["latitude"].notna()
    ]
    assert np.nanmean(np.abs(far).sum(axis=1) > 2) > 0.95


def test_a_ring_shares_its_devices(payments):
    fraud = of(payments, "fraud_ring")
    owners = fraud.groupby("device_id")["customer_id"].nunique()
    assert owners.median() >= 5


def test_slow_low_value_hides(payments):
    fraud = of(payments, "slow_low_value")
    assert fraud["amount"].quantile(0.95) < 40
    gaps = fraud.sort_values("event_time").groupby("campaign_id")["event_time"].diff().dropna()
    assert (gaps > pd.Timedelta(hours=12)).mean() > 0.5
    honest = payments[(payments["kind"] == "honest") & (payments["channel"] == "online")]
    assert honest["amount"].quantile(0.05) < fraud["amount"].median() < honest["amount"].quantile(0.6)


def test_fraud_amounts_overlap_with_honest_ones(payments):
    honest = payments.loc[payments["kind"] == "honest", "amount"]
    fraud = payments.loc[payments["kind"] != "honest", "amount"]
    assert (fraud < honest.quantile(0.95)).mean() > 0.6
    assert (honest > fraud.median()).mean() > 0.1


def test_hashes_are_uniform_and_depend_on_every_part():
    u = chance.uniform(7, 1, np.arange(20_000))
    assert u.mean() == pytest.approx(0.5, abs=0.01)
    assert np.histogram(u, 10, (0, 1))[0].min() > 1_800
    assert not np.array_equal(u, chance.uniform(8, 1, np.arange(20_000)))
    assert not np.array_equal(u, chance.uniform(7, 2, np.arange(20_000)))
