"""Feeds: the payments of the source, whole, in order, valid by the contract, with the labels that they will get."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import islice
from pathlib import Path

import orjson
import pytest

from fraud_pipeline.adapters.home_world import changed_world, world_of_home
from fraud_pipeline.adapters.payment_feed import Chunk, LabelToCome, landed_feed, live_feed, stamped, world_feed
from fraud_pipeline.adapters.payment_files import landed_payments
from fraud_pipeline.adapters.source_store import SourceStore
from fraud_pipeline.adapters.world_source import land_world
from fraud_pipeline.domain.simulation import World, WorldConfig
from fraud_pipeline.domain.transaction import parse_transaction
from fraud_pipeline.errors import InputError

END = date(2026, 3, 1)
SMALL = WorldConfig(end=END, customers=80, merchants=20, days=12, fraud_rate=0.05)
CSV = """transaction_id,event_time,customer_id,merchant_id,amount,channel,is_fraud,known_at
b,2026-02-02T00:00:00Z,c2,m1,2.50,pos,true,2026-02-03T00:00:00Z
a,2026-02-01T00:00:00.5Z,c1,m1,1,online,false,
"""


def rows(chunks: list[Chunk]) -> list[dict[str, object]]:
    return [orjson.loads(value) for chunk in chunks for value in chunk.values]


def labels(chunks: list[Chunk]) -> list[LabelToCome]:
    return [label for chunk in chunks for _, known in sorted(chunk.labels.items()) for label in known]


def test_a_simulated_history_comes_whole_with_its_own_times() -> None:
    chunks = list(world_feed(SMALL))
    days = list(World(SMALL).days())
    payments = [parse_transaction(row) for row in rows(chunks)]
    expected = [identity.decode() for day in days for identity in day.transactions["transaction_id"].tolist()]
    assert [payment.transaction_id for payment in payments] == expected
    assert [payment.event_time for payment in payments] == sorted(payment.event_time for payment in payments)
    assert [moment for chunk in chunks for moment in chunk.moments] == [
        (payment.event_time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) for payment in payments
    ]
    assert [payment.customer_id.encode() for payment in payments] == [key for chunk in chunks for key in chunk.keys]
    assert [payment.amount_minor for payment in payments] == [
        minor for day in days for minor in day.transactions["amount_minor"].tolist()
    ]
    assert sum(len(chunk.frauds) for chunk in chunks) == sum(len(day.truth["is_fraud"]) for day in days) > 0
    assert len(labels(chunks)) == sum(len(day.labels["is_fraud"]) for day in days) > 0


def test_labels_know_their_payment_and_their_delay() -> None:
    by_id = {row["transaction_id"]: row["event_time"] for row in rows(list(world_feed(SMALL)))}
    known = {
        identity.decode(): moment
        for day in World(SMALL).days()
        for identity, moment in zip(
            day.labels["transaction_id"].tolist(), day.labels["known_at"].astype("datetime64[us]").tolist(), strict=True
        )
    }
    made = {label.transaction_id: label for label in labels(list(world_feed(SMALL)))}
    assert made.keys() == known.keys()
    for identity, label in made.items():
        paid = datetime.fromisoformat(str(by_id[identity]))
        assert paid + timedelta(microseconds=label.after_us) == known[identity].replace(tzinfo=UTC)
    known_label = LabelToCome("t1", 5, True, "simulation", "simulator").at(1_500_000)
    assert known_label.known_at == datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)


def test_a_moved_history_keeps_its_distances() -> None:
    shift = timedelta(days=100, microseconds=3)
    plain, moved = list(world_feed(SMALL)), list(world_feed(SMALL, shift=shift))
    first, last = (datetime.fromisoformat(str(rows(plain)[place]["event_time"])) for place in (0, -1))
    assert datetime.fromisoformat(str(rows(moved)[0]["event_time"])) == first + shift
    assert datetime.fromisoformat(str(rows(moved)[-1]["event_time"])) == last + shift


def test_a_landed_world_tells_what_the_simulation_told(tmp_path: Path) -> None:
    land_world(SMALL, home=tmp_path)
    landed, simulated = list(landed_feed(SourceStore(tmp_path), timed=True)), list(world_feed(SMALL))
    assert rows(landed) == rows(simulated)
    assert sorted(labels(landed), key=str) == sorted(labels(simulated), key=str)
    assert sum(len(chunk.frauds) for chunk in landed) == sum(len(chunk.frauds) for chunk in simulated)


def test_a_live_feed_goes_on_for_ever_with_new_ids_and_no_times() -> None:
    config = changed_world(SMALL, {}, [], further_days=30)
    per_turn = sum(len(World(config).day(END + timedelta(days=day))) for day in range(30))
    chunks: list[Chunk] = []
    for chunk in live_feed(config, since=END, run="live-1"):
        chunks.append(chunk)
        if sum(map(len, chunks)) > per_turn + 10:
            break
    told = rows(chunks)
    ids = [str(row["transaction_id"]) for row in told]
    assert len(set(ids)) == len(ids)
    assert all(identity.startswith("live-1-") for identity in ids)
    assert "event_time" not in told[0]
    first = parse_transaction(orjson.loads(stamped(chunks[0].values[0], "2026-03-01T12:00:00Z")))
    assert first.event_time == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert labels(chunks)[0].transaction_id in ids


def test_a_drift_begins_where_the_world_goes_on() -> None:
    plain = changed_world(SMALL, {}, [], further_days=30)
    bent = changed_world(SMALL, {}, ["inflation"], further_days=30)
    assert str(bent.drifts[0]) == f"inflation@{END}"
    assert rows(list(islice(live_feed(plain, since=END, run="a"), 1))) != rows(
        list(islice(live_feed(bent, since=END, run="a"), 1))
    )
    assert changed_world(SMALL, {"seed": 7, "fraud_rate": 0.1}, ["covid@2026-02-20"]).seed == 7


def test_the_world_of_a_home_goes_on_as_it_was_landed(tmp_path: Path) -> None:
    config = WorldConfig(
        **{**{name: getattr(SMALL, name) for name in ("end", "customers", "merchants", "days")}, "seed": 9}
    )
    land_world(config, home=tmp_path)
    assert world_of_home(tmp_path, SMALL) == config
    assert world_of_home(tmp_path / "empty", SMALL) == SMALL


def test_a_file_with_the_contracts_names_needs_no_mapping(tmp_path: Path) -> None:
    file = tmp_path / "payments.csv"
    file.write_text(CSV)
    store = landed_payments(file, mapping=None, scratch=tmp_path / "scratch", currency="USD")
    chunks = list(landed_feed(store, timed=True, prefix="x-"))
    assert [row["transaction_id"] for row in rows(chunks)] == ["x-a", "x-b"]
    assert rows(chunks)[1] == {
        "event_time": "2026-02-02T00:00:00.000000Z", "transaction_id": "x-b", "customer_id": "c2", "merchant_id": "m1",
        "currency": "USD", "merchant_category": "unknown", "channel": "pos", "amount": 2.5,
    }  # fmt: skip
    fraud = next(label for label in labels(chunks) if label.is_fraud)
    assert (fraud.transaction_id, fraud.after_us) == ("x-b", 86_400_000_000)


def test_public_files_are_known_by_their_columns(shared_data: Path, tmp_path: Path) -> None:
    store = landed_payments(shared_data / "handbook_dev20.parquet", mapping=None, scratch=tmp_path, currency="USD")
    chunk = next(landed_feed(store, timed=True))
    assert parse_transaction(orjson.loads(chunk.values[0])).channel == "pos"


def test_a_file_of_an_unknown_shape_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="--mapping"):
        landed_payments(tmp_path / "other.csv", mapping=None, scratch=tmp_path, currency="USD")


def test_a_prefix_that_makes_an_id_too_long_is_refused() -> None:
    with pytest.raises(InputError, match="longer than 64"):
        next(world_feed(SMALL, prefix="p" * 60))
