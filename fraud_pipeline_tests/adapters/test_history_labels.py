from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from fraud_pipeline.adapters.history_labels import HistoryLabels
from fraud_pipeline.adapters.source_store import SourceStore
from fraud_pipeline.domain.transaction import Label
from fraud_pipeline_tests.serving.home import HISTORY_END
from fraud_pipeline_tests.worlds import land_small_world

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> SourceStore:
    home = tmp_path_factory.mktemp("world")
    land_small_world(home)
    return SourceStore(home)


@pytest.fixture
def history(source: SourceStore) -> HistoryLabels:
    return HistoryLabels(source)


def after_the_end(source: SourceStore) -> list[Label]:
    rows = [row for day in source.days("labels") for row in source.read_day("labels", day).to_pylist()]
    late = [row for row in rows if row["known_at"] >= HISTORY_END]
    labels = [Label(r["transaction_id"], r["is_fraud"], r["source"], r["author"], r["known_at"]) for r in late]
    return sorted(labels, key=lambda each: (each.known_at, each.transaction_id))


def test_labels_are_due_when_they_become_known_each_once_and_oldest_first(history: HistoryLabels, source: SourceStore):
    expected = after_the_end(source)
    assert len(expected) > 5
    assert history.due(after=None, until=HISTORY_END - DAY / 2) == []
    assert history.due(after=None, until=HISTORY_END + 9 * DAY) == expected
    pieces, before = list[Label](), None
    for hours in range(0, 9 * 24, 5):
        until = HISTORY_END + timedelta(hours=hours)
        pieces += history.due(after=before, until=until)
        before = until
    assert pieces == expected


def test_a_label_is_due_at_the_very_moment_it_becomes_known_and_not_after_it(
    history: HistoryLabels, source: SourceStore
):
    first = after_the_end(source)[0]
    tick = timedelta(microseconds=1)
    assert history.due(after=None, until=first.known_at - tick) == []
    assert history.due(after=first.known_at - tick, until=first.known_at) == [first]
    assert first not in history.due(after=first.known_at, until=HISTORY_END + 9 * DAY)


def test_payments_of_the_history_are_found_by_their_ids(history: HistoryLabels, source: SourceStore):
    days = source.days("transactions")
    rows = [source.read_day("transactions", day).to_pylist()[0] for day in (days[0], days[5], days[-1])]
    wanted = {row["transaction_id"] for row in rows}
    found = {t.transaction_id: t for t in history.payments([*wanted, "unknown"])}
    assert set(found) == wanted
    for row in rows:
        payment = found[row["transaction_id"]]
        for name in ("event_time", "customer_id", "merchant_id", "amount_minor", "country", "device_id", "latitude"):
            assert getattr(payment, name) == row[name]
    assert history.payments([]) == []
    assert history.payments(["unknown"]) == []


def test_every_late_labels_payment_is_in_the_history(history: HistoryLabels, source: SourceStore):
    ids = {label.transaction_id for label in after_the_end(source)}
    assert {payment.transaction_id for payment in history.payments(ids)} == ids


def test_a_home_without_a_world_has_nothing_to_tell(tmp_path: Path):
    history = HistoryLabels(SourceStore(tmp_path))
    assert history.due(after=None, until=HISTORY_END + 9 * DAY) == []
    assert history.payments(["t1"]) == []
