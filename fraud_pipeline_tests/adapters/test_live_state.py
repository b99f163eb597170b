from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from fraud_pipeline.adapters import ledger_log
from fraud_pipeline.adapters.checkpoint_store import CheckpointStore
from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import LOCAL_WRITER, LedgerEntry
from fraud_pipeline.adapters.live_state import NO_HISTORY, LiveStateStore, advance
from fraud_pipeline.domain.feature_state import FeatureState
from fraud_pipeline.domain.transaction import Label, Transaction
from fraud_pipeline.errors import StateError
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.serving.home import HISTORY_END, empty_home, live_payments, serving_home


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return serving_home(tmp_path / "home")


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    with Ledger.open(settings.ledger_url) as opened:
        yield opened


@pytest.fixture
def states(settings: Settings, ledger: Ledger) -> LiveStateStore:
    return states_of(settings, ledger)


def states_of(settings: Settings, ledger: Ledger) -> LiveStateStore:
    return LiveStateStore(settings.home, CheckpointStore(settings.checkpoint_url), ledger)


def append(ledger: Ledger, payments: list[Transaction]) -> None:
    ledger.append([LedgerEntry(payment, payment.event_time) for payment in payments])


def fill(ledger: Ledger, count: int = 300, first: int = 0) -> None:
    """Payments and labels in turn; every other label comes before its payment."""
    payments = live_payments(count, first=first)
    for start in range(0, count, 25):
        chunk = payments[start : start + 25]
        known_at = chunk[-1].event_time + timedelta(minutes=3)
        ledger.record_labels([Label(t.transaction_id, True, "analyst", "ann", known_at) for t in chunk[::7]])
        append(ledger, chunk)
        ledger.record_labels(
            [Label(t.transaction_id, t is chunk[1], "chargeback", "bank", known_at) for t in chunk[1::5]]
        )


def one_by_one(states: LiveStateStore, ledger: Ledger) -> tuple[FeatureState, list[bytes]]:
    """The slow, obvious way: the base, then each place of the log through the online entry points."""
    state, vectors = states.base().state, []
    for event in ledger.read_log():
        if event.transaction is not None:
            vectors.append(state.read_update(event.transaction).tobytes())
        elif event.label_change is not None:
            state.apply_label(event.label_change)
    return state, vectors


def test_recovering_from_the_base_is_the_log_applied_one_by_one(states: LiveStateStore, ledger: Ledger):
    fill(ledger)
    live = states.recover()
    assert live.sequence == ledger.last_sequence() > 300
    assert live.state.snapshot() == one_by_one(states, ledger)[0].snapshot()
    assert live.history == states.history() != NO_HISTORY


@pytest.mark.parametrize("page", [1, 7, 50_000])
def test_features_of_the_replayed_payments_are_those_read_one_by_one(
    states: LiveStateStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, page: int
):
    monkeypatch.setattr(ledger_log, "PAGE", page)
    fill(ledger, 100)
    live, read = states.base(), list[bytes]()
    for each in ledger.log_pages(LOCAL_WRITER, until=ledger.last_sequence()):
        read += [row.tobytes() for row in advance(live, each, "UTC")]
    state, expected = one_by_one(states, ledger)
    assert read == expected
    assert live.state.snapshot() == state.snapshot()


def test_a_checkpoint_and_the_log_after_it_are_the_same_state(
    states: LiveStateStore, ledger: Ledger, settings: Settings
):
    fill(ledger, 100)
    live = states.recover()
    name = states.keep(live)
    assert CheckpointStore(settings.checkpoint_url).has(name)
    fill(ledger, 100, first=100)
    seen: list[tuple[int, int]] = []
    recovered = states.recover(lambda done, places: seen.append((done, places)))
    places = recovered.sequence - live.sequence
    assert seen == [(places, places)]
    assert recovered.state.snapshot() == one_by_one(states, ledger)[0].snapshot()


def test_a_checkpoint_at_the_logs_end_is_the_state_and_replays_nothing(states: LiveStateStore, ledger: Ledger):
    fill(ledger, 50)
    live = states.recover()
    states.keep(live)
    again = states.recover(lambda done, places: pytest.fail("there is nothing to replay"))
    assert (again.sequence, again.state.snapshot()) == (live.sequence, live.state.snapshot())


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b"", lambda b: b[:40] + b"\x00\xff" + b[42:]])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    states: LiveStateStore, ledger: Ledger, settings: Settings, damage
):
    fill(ledger, 50)
    first = states.recover()
    states.keep(first)
    fill(ledger, 50, first=50)
    newest = states.keep(states.recover())
    path = settings.home / "checkpoints" / newest
    path.write_bytes(damage(path.read_bytes()))
    replayed: list[int] = []
    recovered = states.recover(lambda done, places: replayed.append(places))
    assert replayed == [recovered.sequence - first.sequence]
    assert recovered.state.snapshot() == one_by_one(states, ledger)[0].snapshot()
    path.with_name(f"{first.sequence:016d}.state").write_bytes(b"damaged too")
    assert states.recover().state.snapshot() == recovered.state.snapshot()


def test_only_the_newest_two_are_kept_and_strangers_are_left_alone(
    states: LiveStateStore, ledger: Ledger, settings: Settings
):
    names = []
    for turn in range(4):
        append(ledger, live_payments(10, first=10 * turn))
        names.append(Path(states.keep(states.recover())).name)
        (settings.home / "checkpoints" / states.keep(states.recover())).with_name("notes.state").write_text("mine")
    folder = Path(settings.home / "checkpoints" / states.keep(states.recover())).parent
    assert sorted(path.name for path in folder.iterdir()) == [*names[-2:], "notes.state"]
    assert names[-1] == f"{40:016d}.state"


def test_a_checkpoint_beyond_the_logs_end_is_of_another_ledger_and_never_used(settings: Settings):
    with Ledger.open(settings.ledger_url) as ledger:
        append(ledger, live_payments(40))
        states = states_of(settings, ledger)
        kept = settings.home / "checkpoints" / states.keep(states.recover())
    for path in settings.home.glob("ledger.db*"):
        path.unlink()
    with Ledger.open(settings.ledger_url) as ledger:
        states = states_of(settings, ledger)
        append(ledger, live_payments(20, first=500))
        assert states.recover().state.snapshot() == one_by_one(states, ledger)[0].snapshot()
        append(ledger, live_payments(40, first=600))  # the log is as long as the old one now
        assert states.recover().state.snapshot() == one_by_one(states, ledger)[0].snapshot()
    assert not kept.exists()


def test_the_histories_state_continues(states: LiveStateStore, ledger: Ledger, settings: Settings):
    base = states.recover()
    store = DatasetStore(settings.home)
    rows = sum(store.manifest("transactions", day).rows for day in store.days("transactions"))
    assert base.state.counts().events == rows > 1_000
    past = store.read_day("transactions", store.days("transactions")[-1]).to_pylist()[-1]
    append(ledger, [Transaction("next", HISTORY_END, past["customer_id"], past["merchant_id"], 100)])
    read = advance(base, next(ledger.log_pages(until=1)), "UTC")
    fresh = FeatureState.empty().read(Transaction("next", HISTORY_END, past["customer_id"], past["merchant_id"], 100))
    assert not np.array_equal(read[0], fresh, equal_nan=True)
    assert base.state.counts().events == rows + 1


def test_a_home_without_a_history_starts_from_nothing(tmp_path: Path):
    settings = empty_home(tmp_path / "empty")
    with Ledger.open(settings.ledger_url) as ledger:
        states = states_of(settings, ledger)
        assert states.history() == NO_HISTORY
        assert states.recover().state.snapshot() == FeatureState.empty().snapshot()
        fill(ledger, 50)
        states.keep(states.recover())
        assert states.recover().state.snapshot() == one_by_one(states, ledger)[0].snapshot()


def test_another_history_has_other_checkpoints(states: LiveStateStore, ledger: Ledger, settings: Settings):
    fill(ledger, 50)
    before = states.keep(states.recover())
    store = DatasetStore(settings.home)
    store.set_verdict("transactions", store.days("transactions")[3], "failed", ["amounts_are_in_range"])
    changed = states.recover()
    assert changed.state.snapshot() == one_by_one(states, ledger)[0].snapshot()
    assert states.keep(changed) != before
    store.set_verdict("transactions", store.days("transactions")[3], "passed", [])
    assert states.keep(states.recover()) == before


def test_live_days_that_were_materialized_are_not_taken_in_twice(
    states: LiveStateStore, ledger: Ledger, settings: Settings
):
    before = states.history()
    store = DatasetStore(settings.home)
    last = store.days("transactions")[-1]
    for dataset in ("transactions", "labels"):
        store.write_day(dataset, HISTORY_END.date(), store.read_day(dataset, last), verdict="passed")
    assert states.history() == before


def test_a_gap_in_the_log_stops_the_recovery(states: LiveStateStore, ledger: Ledger):
    fill(ledger, 50)
    with ledger.database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM transactions WHERE writer = 'local' AND sequence = 20")
    with pytest.raises(StateError, match="A gap is never skipped"):
        states.recover()
