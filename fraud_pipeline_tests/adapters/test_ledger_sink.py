from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from fraud_pipeline.adapters import ledger_sink
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_outbox import LedgerOutbox
from fraud_pipeline.adapters.ledger_records import RecordedTransaction
from fraud_pipeline.adapters.ledger_sink import LedgerSink, PositionLost
from fraud_pipeline.adapters.ledger_sink_rows import Move, SinkBatch
from fraud_pipeline.errors import DependencyError, IntegrityError
from fraud_pipeline_tests.entries import SECOND, T0, decided, label, payment, rich_payment
from fraud_pipeline_tests.postgres import end_sessions
from fraud_pipeline_tests.sink_batches import KEY, WRITER, alert, batch, placed, raw, write


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with Ledger.open(ledger_url) as opened:
        yield opened


@pytest.fixture
def sink(ledger: Ledger) -> LedgerSink:
    return LedgerSink(ledger.database)


def test_rows_are_what_was_brought_with_writer_offset_and_the_brokers_time(ledger: Ledger, sink: LedgerSink):
    shadow = replace(decided(1, "BLOCK"), role="shadow")
    done = write(
        sink, 0, 9, transactions=[raw(1, 3), raw(2, 7, content=rich_payment(2))], decisions=[decided(1), shadow],
        alerts=[alert(1)],
    )  # fmt: skip
    assert done.rows == {"transactions": 2, "decisions": 2, "alerts": 1}
    assert sorted(ledger.transactions(["t1", "t2"]), key=lambda t: t.sequence) == [
        RecordedTransaction(payment(1), WRITER, 3, T0 + 3 * SECOND),
        RecordedTransaction(rich_payment(2), WRITER, 7, T0 + 7 * SECOND),
    ]
    assert ledger.decision("t1") == decided(1)
    assert ledger.decision("t1", role="shadow") == shadow
    assert ledger.open_alerts() == [alert(1)]
    assert sink.positions() == {KEY: 9}


def test_hundreds_of_rows_of_every_size_of_statement_are_all_there(ledger: Ledger, sink: LedgerSink):
    count = 256 + 32 + 4 + 1
    done = write(sink, 0, count, transactions=[raw(n, n) for n in range(count)])
    assert done.rows["transactions"] == count
    assert len(ledger.transactions([f"t{n}" for n in range(count)])) == count


def test_an_id_that_comes_again_stays_as_it_came_first(ledger: Ledger, sink: LedgerSink):
    write(sink, 0, 2, transactions=[raw(1, 0), raw(2, 1)])
    other = payment(2, amount_minor=5)
    done = write(
        sink, 2, 7, transactions=[raw(1, 2), raw(2, 3, content=other), raw(3, 4), raw(3, 5), raw(4, 6, writer="transactions[1]")]
    )  # fmt: skip
    assert (done.rows["transactions"], done.repeats["transactions"], done.conflicts) == (2, 2, ("t2",))
    assert {t.transaction.transaction_id: (t.sequence, t.transaction) for t in ledger.transactions(["t1", "t2", "t3"])} == {
        "t1": (0, payment(1)), "t2": (1, payment(2)), "t3": (4, payment(3))
    }  # fmt: skip


def test_a_decision_that_comes_again_stays_as_it_came_first(ledger: Ledger, sink: LedgerSink):
    write(sink, 0, 1, decisions=[decided(1), decided(2)])
    done = write(sink, 1, 2, decisions=[decided(1), decided(2, "BLOCK"), decided(3)])
    assert (done.rows["decisions"], done.repeats["decisions"], done.conflicts) == (1, 1, ("t2",))
    assert ledger.decision("t2") == decided(2)


def test_a_batch_that_fails_leaves_neither_rows_nor_position(ledger: Ledger, sink: LedgerSink):
    write(sink, 0, 1, transactions=[raw(1, 0)])
    broken = replace(decided(2), role="nobody")  # type: ignore[arg-type]
    with pytest.raises(IntegrityError, match="refuses a row of the stream"):
        sink.write(batch(1, 2, transactions=[raw(2, 1)], decisions=[broken]))
    assert ledger.transaction("t2") is None
    assert sink.positions() == {KEY: 1}
    write(sink, 1, 2, transactions=[raw(2, 1)])


def test_a_place_that_holds_another_payment_stops_the_sink(sink: LedgerSink):
    write(sink, 0, 1, transactions=[raw(1, 0)])
    with pytest.raises(IntegrityError, match=r"transactions\[0\]@0 holds transaction t2.*made anew"):
        sink.write(batch(1, 2, transactions=[raw(2, 0)]))


def test_of_two_sinks_on_one_partition_the_one_that_is_behind_writes_nothing(ledger: Ledger, sink: LedgerSink):
    write(sink, 0, 2, transactions=[raw(1, 0)])
    zombie = batch(0, 2, transactions=[raw(9, 1)], inbox=[label(1)])
    zombie.moves["labels", 0] = Move(0, 1)
    sink.begin({("labels", 0): 0})
    with pytest.raises(PositionLost):
        LedgerSink(ledger.database).write(zombie)
    assert sink.positions() == {KEY: 2, ("labels", 0): 0}
    assert ledger.transaction("t9") is None
    assert ledger.labels_known(T0, T0.replace(year=2027)) == []


def test_a_known_partition_goes_on_where_it_was_and_a_new_one_where_it_is_told_to(sink: LedgerSink):
    write(sink, 4, 9)
    assert sink.begin({KEY: 0, ("alerts", 2): 17}) == {KEY: 9, ("alerts", 2): 17}


def test_a_label_of_the_inbox_makes_a_change_that_waits_to_be_sent(ledger: Ledger, sink: LedgerSink):
    write(sink, 0, 2, transactions=[raw(1, 0)], alerts=[alert(1)], inbox=[label(1), label(1, is_fraud=False, days=4)])
    found = LedgerOutbox(ledger.database).unsent([WRITER], limit=10)
    assert [(u.label, u.change.change, u.change.customer_id, u.writer) for u in found] == [
        (label(1), 1, "c1", WRITER), (label(1, is_fraud=False, days=4), -1, "c1", WRITER),
    ]  # fmt: skip
    assert LedgerOutbox(ledger.database).unsent(["transactions[1]"], limit=10) == []
    assert LedgerOutbox(ledger.database).unsent([WRITER], limit=1) == found[:1]
    assert ledger.open_alerts() == []


def test_a_label_read_back_from_the_log_has_its_place_and_is_sent_no_more(ledger: Ledger, sink: LedgerSink):
    outbox = LedgerOutbox(ledger.database)
    write(sink, 0, 2, transactions=[raw(1, 0)], inbox=[label(1)])
    (unsent,) = outbox.unsent([WRITER], limit=10)
    assert (outbox.placed([unsent.label_id]), outbox.counts()) == (set(), (0, 1))
    done = write(sink, 2, 6, labels=[placed(label(1), 1, 4)])
    assert (done.rows["labels"], done.repeats["labels"]) == (1, 0)
    assert (outbox.unsent([WRITER], limit=10), outbox.counts()) == ([], (0, 0))
    assert outbox.placed([unsent.label_id, 99]) == {unsent.label_id}
    again = write(sink, 6, 9, labels=[placed(label(1), 1, 8)])
    assert (again.rows["labels"], again.repeats["labels"]) == (0, 1)
    assert [event.sequence for event in ledger.read_log(WRITER, after=0)] == [4]


def test_a_label_that_the_ledger_does_not_know_is_kept_as_the_log_has_it(ledger: Ledger, sink: LedgerSink):
    write(sink, 0, 6, transactions=[raw(1, 0)], labels=[placed(label(1), 1, 4)])
    ((kept, change),) = ledger.labels_known(T0, T0.replace(year=2027))
    assert (kept, change.change) == (label(1), 1)


@pytest.mark.parametrize("few", [0, 2_000])
def test_a_label_for_an_unknown_payment_is_released_when_it_comes(
    ledger: Ledger, sink: LedgerSink, monkeypatch: pytest.MonkeyPatch, few: int
):
    monkeypatch.setattr(ledger_sink, "FEW_WAITING", few)
    write(sink, 0, 1, inbox=[label(1), label(7)])
    assert LedgerOutbox(ledger.database).counts() == (2, 0)
    done = write(sink, 1, 3, transactions=[raw(1, 1), raw(2, 2)])
    assert done.released == 1
    (found,) = LedgerOutbox(ledger.database).unsent([WRITER], limit=10)
    assert (found.label, found.change.change) == (label(1), 1)
    assert ledger.waiting_ids() == {"t7"}


def test_a_label_and_its_payment_in_one_batch_find_each_other(ledger: Ledger, sink: LedgerSink):
    write(sink, 0, 1, transactions=[raw(1, 0)], inbox=[label(1)])
    assert len(LedgerOutbox(ledger.database).unsent([WRITER], limit=10)) == 1


def test_a_label_that_the_service_recorded_waits_to_be_sent_too(ledger: Ledger, sink: LedgerSink):
    write(sink, 0, 1, transactions=[raw(1, 0)])
    ledger.record_labels([label(1)])
    assert [u.label for u in LedgerOutbox(ledger.database).unsent([WRITER], limit=10)] == [label(1)]


def test_an_alert_whose_label_came_first_is_closed_at_once(ledger: Ledger, sink: LedgerSink):
    write(sink, 0, 1, transactions=[raw(1, 0)], inbox=[label(1)])
    write(sink, 1, 2, alerts=[alert(1), alert(2)])
    assert ledger.open_alerts() == [alert(2)]


def test_a_database_that_ended_the_session_is_a_dependency_and_the_next_write_succeeds(postgres_url: str):
    with Ledger.open(postgres_url) as ledger:
        sink = LedgerSink(ledger.database)
        write(sink, 0, 1, transactions=[raw(1, 0)])

        def query_after_the_session_ended() -> None:
            with ledger.database.writing() as connection, sink._cursor(connection) as cursor:
                end_sessions(postgres_url)
                cursor.execute("SELECT 1")

        with pytest.raises(DependencyError, match="does not answer"):
            query_after_the_session_ended()
        write(sink, 1, 2, transactions=[raw(2, 1)])
        assert sink.positions() == {KEY: 2}


def test_an_empty_batch_only_moves(sink: LedgerSink):
    assert SinkBatch().rows == 0
    assert write(sink, 0, 5).rows == {}
    assert sink.positions() == {KEY: 5}
