from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from fraud_pipeline.adapters import ledger_log
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_log import LogPage
from fraud_pipeline.adapters.ledger_records import LedgerEntry
from fraud_pipeline.adapters.ledger_writer import LedgerWriter
from fraud_pipeline.errors import StateError
from fraud_pipeline_tests.entries import T0, entry, label, payment, rich_payment

EVENT_FIELDS = (
    "event_time", "customer_id", "merchant_id", "amount_minor", "merchant_category", "channel", "country", "device_id",
    "latitude", "longitude",
)  # fmt: skip
LABEL_FIELDS = ("known_at", "event_time", "change", "merchant_id", "merchant_category", "country", "channel")


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with Ledger.open(ledger_url) as opened:
        yield opened


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_log, "PAGE", 3)


def fill(ledger: Ledger) -> int:
    """Payments and labels in turn, other writers' rows between them; returns the last place."""
    writer = LedgerWriter.open(ledger.database)
    ledger.adopt([payment(50)])
    writer.append([entry(1), LedgerEntry(rich_payment(2), T0)])
    ledger.record_labels([label(1), label(50), label(99)])
    ledger.append([entry(60)], writer="topic[0]")
    writer.append([entry(3), entry(4), entry(5)])
    ledger.record_labels([label(1, is_fraud=False, days=4), label(60), label(4), label(5)])
    ledger.append([entry(99)])
    writer.close()
    return ledger.last_sequence()


def read(pages: list[LogPage]) -> list[tuple[object, ...]]:
    """The pages as one list of places, each label where its position puts it."""
    places: list[tuple[object, ...]] = []
    for page in pages:
        events, labels = page.events.to_pylist(), page.labels.to_pylist()
        for row in range(len(events) + 1):
            places += [
                ("label", *(each[name] for name in LABEL_FIELDS))
                for each, position in zip(labels, page.positions, strict=True)
                if position == row
            ]
            if row < len(events):
                places.append(("event", *(events[row][name] for name in EVENT_FIELDS)))
    return places


def expected(ledger: Ledger, after: int, until: int) -> list[tuple[object, ...]]:
    places: list[tuple[object, ...]] = []
    for event in ledger.read_log(after=after):
        if event.sequence > until:
            break
        if event.transaction is not None:
            places.append(("event", *(getattr(event.transaction, name) for name in EVENT_FIELDS)))
        else:
            places.append(("label", *(getattr(event.label_change, name) for name in LABEL_FIELDS)))
    return places


def test_one_page_is_the_log(ledger: Ledger):
    end = fill(ledger)
    (page,) = ledger.log_pages(until=end)
    assert (page.after, page.last, page.places) == (0, end, 12)
    assert read([page]) == expected(ledger, 0, end)
    assert page.positions.tolist() == [2, 2, 5, 5, 5, 6]
    assert page.positions.dtype == np.int64


@pytest.mark.parametrize("after", range(13))
def test_pages_from_any_place_are_the_log_after_it(ledger: Ledger, small_pages: None, after: int):
    end = fill(ledger)
    pages = list(ledger.log_pages(after=after, until=end))
    assert read(pages) == expected(ledger, after, end)
    assert [page.last for page in pages] == sorted({*range(after + 3, end, 3), end} if after < end else set())


def test_pages_end_where_they_are_told_to(ledger: Ledger, small_pages: None):
    fill(ledger)
    assert read(list(ledger.log_pages(after=2, until=7))) == expected(ledger, 2, 7)
    assert list(ledger.log_pages(after=7, until=7)) == []


def test_a_page_of_labels_alone_has_empty_events(ledger: Ledger):
    ledger.append([entry(1), entry(2)])
    ledger.record_labels([label(1), label(2)])
    (page,) = ledger.log_pages(after=2, until=4)
    assert (len(page.events), len(page.labels), page.positions.tolist()) == (0, 2, [0, 0])


def test_more_columns_of_the_payments_are_had_by_name(ledger: Ledger):
    end = fill(ledger)
    (page,) = ledger.log_pages(until=end, extra=("transaction_id", "currency"))
    assert page.events["transaction_id"].to_pylist() == ["t1", "t2", "t3", "t4", "t5", "t99"]
    assert page.events["currency"].to_pylist() == ["USD", "EUR", "USD", "USD", "USD", "USD"]


@pytest.mark.parametrize(("table", "place"), [("transactions", 2), ("transactions", 5), ("labels", 3)])
def test_a_missing_place_stops_the_reader(ledger: Ledger, table: str, place: int):
    end = fill(ledger)
    with ledger.database.writing() as connection:
        connection.exec_driver_sql(f"DELETE FROM {table} WHERE writer = 'local' AND sequence = {place}")
    with pytest.raises(StateError, match=r"has 11 of the 12 places after 0.*restore it from a backup"):
        list(ledger.log_pages(until=end))
    if place < 4:
        assert len(list(ledger.log_pages(after=4, until=end))) == 1


def test_an_end_that_the_log_does_not_have_yet_is_a_gap(ledger: Ledger):
    end = fill(ledger)
    with pytest.raises(StateError, match="12 of the 13 places"):
        list(ledger.log_pages(until=end + 1))


def test_an_empty_log_ends_at_zero(ledger: Ledger):
    assert ledger.last_sequence() == 0
    ledger.adopt([payment(1)])
    assert ledger.last_sequence() == 0
