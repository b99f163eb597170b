from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from fraud_pipeline.adapters import ledger_log, ledger_retention
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_raw import closings, raw_from, raw_pages, raw_through
from fraud_pipeline.adapters.ledger_retention import delete_before
from fraud_pipeline.adapters.ledger_sink import LedgerSink
from fraud_pipeline.adapters.ledger_sink_rows import ClosedMinute
from fraud_pipeline.errors import StateError
from fraud_pipeline_tests.entries import SECOND, T0, decided, entry, label
from fraud_pipeline_tests.sink_batches import KEY, TOPIC, WRITER, alert, placed, raw, write


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with Ledger.open(ledger_url) as opened:
        yield opened


@pytest.fixture
def sink(ledger: Ledger) -> LedgerSink:
    return LedgerSink(ledger.database)


def fill(sink: LedgerSink) -> None:
    """Places 0 to 19: payments at the even ones but 8, labels at 5 and 13, nothing at the others."""
    there = [raw(n, n) for n in range(0, 20, 2) if n != 8]
    write(sink, 0, 20, transactions=there, labels=[placed(label(2), 1, 5), placed(label(4), 1, 13)])


def places(ledger: Ledger, after: int, until: int) -> list[tuple[str, int]]:
    read = []
    for page in raw_pages(ledger.database, WRITER, after, until):
        events, changes = page.events["sequence"].to_pylist(), page.labels["sequence"].to_pylist()
        for row in range(len(events) + 1):
            read += [("label", s) for s, p in zip(changes, page.positions, strict=True) if p == row]
            read += [("payment", s) for s in events[row : row + 1]]
    return read


@pytest.mark.parametrize("page", [3, 50_000])
def test_the_pages_are_the_partitions_log_with_its_empty_places(
    ledger: Ledger, sink: LedgerSink, monkeypatch: pytest.MonkeyPatch, page: int
):
    monkeypatch.setattr(ledger_log, "PAGE", page)
    fill(sink)
    whole = [("payment", n) for n in (0, 2, 4)] + [("label", 5), ("payment", 6), ("payment", 10), ("payment", 12)]
    whole += [("label", 13), ("payment", 14), ("payment", 16), ("payment", 18)]
    assert raw_through(ledger.database, WRITER) == 19
    assert places(ledger, -1, 19) == whole
    assert places(ledger, 4, 13) == whole[3:8]
    assert places(ledger, 19, 19) == []


def test_what_the_ledger_does_not_hold_is_refused(ledger: Ledger, sink: LedgerSink):
    write(sink, 100, 120, transactions=[raw(1, 110)])
    assert raw_from(ledger.database, WRITER) == 100
    assert places(ledger, 99, 119) == [("payment", 110)]
    for after, until in ((98, 119), (99, 120)):
        with pytest.raises(StateError, match=r"holds transactions\[0\] from offset 100 to 119, not all of"):
            places(ledger, after, until)


def test_of_a_partition_never_read_there_is_nothing(ledger: Ledger):
    assert (raw_from(ledger.database, "transactions[3]"), raw_through(ledger.database, "transactions[3]")) == (0, -1)
    with pytest.raises(StateError, match="'local' is no partition"):
        raw_through(ledger.database, "local")


def test_closed_minutes_come_in_the_order_of_their_places(ledger: Ledger, sink: LedgerSink):
    closed = [ClosedMinute(WRITER, 10, 5, False), ClosedMinute(WRITER, 12, 9, True), ClosedMinute(WRITER, 11, 9, False)]
    other = ClosedMinute("transactions[1]", 11, 9, False)
    done = write(sink, 0, 1, closings=[*closed, other, closed[0]])
    assert (done.rows["closings"], done.repeats["closings"]) == (4, 1)
    assert closings(ledger.database, WRITER, -1) == [closed[0], closed[2], closed[1]]
    assert closings(ledger.database, WRITER, 5) == [closed[2], closed[1]]
    assert closings(ledger.database, WRITER, 9) == []


def test_a_label_whose_payment_is_gone_is_a_gap(ledger: Ledger, sink: LedgerSink):
    fill(sink)
    with ledger.database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM transactions WHERE transaction_id = 't2'")
    with pytest.raises(StateError, match=r"1 labels of transactions\[0\] after offset -1 have no payment"):
        places(ledger, -1, 19)


@pytest.mark.parametrize("step", [2, 5_000])
def test_the_old_beginning_is_deleted_and_the_rest_is_whole(
    ledger: Ledger, sink: LedgerSink, monkeypatch: pytest.MonkeyPatch, step: int
):
    monkeypatch.setattr(ledger_retention, "STEP", step)
    fill(sink)
    write(sink, 20, 21, closings=[ClosedMinute(WRITER, 1, 3, False), ClosedMinute(WRITER, 2, 15, False)])
    ledger.append([entry(50)])
    steps = list(delete_before(ledger.database, T0 + 11 * SECOND, TOPIC))
    deleted = [count for table, count in steps if table == "transactions"]
    assert sum(deleted) == 4 - 1 + 0  # 0, 6, 10; those at 2 and 4 have labels
    assert raw_from(ledger.database, WRITER) == 11
    assert places(ledger, 10, 20) == [
        ("payment", 12), ("label", 13), ("payment", 14), ("payment", 16), ("payment", 18),
    ]  # fmt: skip
    assert [c.minute for c in closings(ledger.database, WRITER, -1)] == [2]
    assert ledger.transaction("t50") is not None
    assert ledger.transaction("t2") is not None
    with pytest.raises(StateError, match="from offset 11 to 20"):
        places(ledger, 5, 20)
    assert list(delete_before(ledger.database, T0 + 11 * SECOND, TOPIC)) == []


def test_old_decisions_and_closed_alerts_are_deleted_and_open_alerts_stay(ledger: Ledger, sink: LedgerSink):
    write(
        sink, 0, 3, transactions=[raw(1, 0), raw(2, 1)], decisions=[decided(1), decided(2), decided(90)],
        alerts=[alert(1), alert(2)], inbox=[label(1)],
    )  # fmt: skip
    cutoff = T0 + timedelta(seconds=60)
    assert dict(delete_before(ledger.database, cutoff, TOPIC)) == {"transactions": 1, "decisions": 2}
    assert [d.transaction_id for d in ledger.decided(["t1", "t2", "t90"])] == ["t90"]
    assert dict(delete_before(ledger.database, T0 + timedelta(days=4), TOPIC)) == {"decisions": 1, "alerts": 1}
    assert [a.transaction_id for a in ledger.open_alerts()] == ["t2"]
    assert sink.positions()[KEY] == 3
