from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import pytest

from fraud_pipeline.adapters.dataset_schemas import LABEL_SCHEMA, transaction_schema
from fraud_pipeline.adapters.day_source import DaySource
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import LedgerEntry
from fraud_pipeline.adapters.source_store import SourceStore
from fraud_pipeline.domain.transaction import Label, Transaction
from fraud_pipeline.errors import NotFound
from fraud_pipeline_tests.worlds import WORLD_END, land_small_world


def never() -> Ledger:
    raise AssertionError("the ledger is not asked for days of the landed world")


def test_days_of_the_world_come_from_the_world(tmp_path: Path) -> None:
    world = land_small_world(tmp_path, days=5)
    source = DaySource(SourceStore(tmp_path), never)
    assert source.transactions(world.start).equals(SourceStore(tmp_path).read_day("transactions", world.start))
    assert source.labels(world.end - timedelta(days=1)).num_rows > 0


def test_days_after_it_come_from_the_ledger_in_the_order_of_their_sequence(tmp_path: Path) -> None:
    land_small_world(tmp_path, days=5)
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    received = datetime.combine(WORLD_END, time(8), UTC)
    late = Transaction("late", received - timedelta(days=2), "c", "m", 300)
    first = Transaction("first", received, "c", "m", 100, attributes={"ip_risk": 0.5})
    tomorrow = Transaction("tomorrow", received, "c", "m", 200)
    with Ledger.open(url) as ledger:
        ledger.append([LedgerEntry(first, received), LedgerEntry(late, received + timedelta(minutes=1))])
        ledger.append([LedgerEntry(tomorrow, received + timedelta(days=1))])
        ledger.record_labels([Label("first", True, "analyst", "ann", received + timedelta(hours=2))])
    source = DaySource(SourceStore(tmp_path), lambda: Ledger.open(url))
    day = source.transactions(WORLD_END)
    assert day["transaction_id"].to_pylist() == ["first", "late"]
    assert day["sequence"].to_pylist() == [1, 2]
    assert day["writer"].to_pylist() == ["local", "local"]
    assert day.schema.equals(transaction_schema())
    known = source.labels(WORLD_END)
    assert "first" in known["transaction_id"].to_pylist()
    assert known.schema.equals(LABEL_SCHEMA)
    assert known["known_at"].to_pylist() == sorted(known["known_at"].to_pylist())


def test_a_day_without_live_payments_is_empty(tmp_path: Path) -> None:
    land_small_world(tmp_path, days=5)
    source = DaySource(SourceStore(tmp_path), lambda: Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}"))
    assert source.transactions(WORLD_END + timedelta(days=3)).num_rows == 0


def test_an_empty_home_says_how_to_make_a_world(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="fraud simulate"):
        DaySource(SourceStore(tmp_path), never).transactions(WORLD_END)
