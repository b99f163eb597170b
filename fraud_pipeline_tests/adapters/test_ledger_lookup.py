from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC

import pytest
import sqlalchemy as sa

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_lookup import LedgerLookup
from fraud_pipeline.adapters.ledger_records import LedgerEntry
from fraud_pipeline.adapters.ledger_writer import LedgerWriter
from fraud_pipeline.errors import DependencyError
from fraud_pipeline_tests.entries import T0, decided, entry, payment, rich_payment
from fraud_pipeline_tests.postgres import end_sessions


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with Ledger.open(ledger_url) as opened:
        yield opened


@pytest.fixture
def lookup(ledger: Ledger) -> Iterator[LedgerLookup]:
    opened = LedgerLookup(ledger.database)
    yield opened
    opened.close()


def test_a_payment_and_its_answer_are_those_of_the_ledger(ledger: Ledger, lookup: LedgerLookup):
    ledger.append([LedgerEntry(rich_payment(1), T0, decision=decided(1)), LedgerEntry(payment(2), T0)])
    for number in (1, 2):
        recorded, decision = ledger.transaction(f"t{number}"), ledger.decision(f"t{number}")
        assert recorded is not None
        assert lookup.find(f"t{number}") == (recorded.transaction, decision and decision.payload)
    found = lookup.find("t1")
    assert found is not None
    assert found[0].event_time.tzinfo is UTC
    assert found[0].attributes == {"ip_risk": 0.1, "v1": -1e-300}


def test_an_unknown_id_is_nothing(lookup: LedgerLookup):
    assert lookup.find("t1") is None
    assert lookup.find("'; DROP TABLE transactions; --") is None
    assert lookup.known([]) == set()


def test_a_shadows_decision_is_no_answer(ledger: Ledger, lookup: LedgerLookup):
    ledger.append([entry(1, None)])
    ledger.record_decisions([replace(decided(1), role="shadow")])
    assert lookup.find("t1") == (payment(1), None)
    ledger.record_decisions([decided(1)])
    assert lookup.find("t1") == (payment(1), decided(1).payload)


def test_known_ids_are_told_from_many(ledger: Ledger, lookup: LedgerLookup):
    ledger.append([entry(number) for number in range(0, 1_200, 2)])
    known = lookup.known([f"t{number}" for number in range(1_200)])
    assert known == {f"t{number}" for number in range(0, 1_200, 2)}


def test_what_was_just_committed_is_seen(ledger: Ledger, lookup: LedgerLookup):
    writer = LedgerWriter.open(ledger.database)
    for number in range(20):
        assert lookup.find(f"t{number}") is None
        writer.append([entry(number)])
        assert lookup.find(f"t{number}") == (payment(number), decided(number).payload)
    writer.close()


def test_a_payment_of_the_history_is_known(ledger: Ledger, lookup: LedgerLookup):
    ledger.adopt([payment(1)])
    assert lookup.find("t1") == (payment(1), None)


def test_a_connection_that_the_server_ended_is_opened_anew(postgres_url: str):
    with Ledger.open(postgres_url) as ledger:
        lookup = LedgerLookup(ledger.database)
        ledger.append([entry(1)])
        assert lookup.known(["t1"]) == {"t1"}
        end_sessions(postgres_url)
        assert lookup.find("t1") == (payment(1), decided(1).payload)
        lookup.close()


def test_a_ledger_that_does_not_answer_is_a_dependency_error(ledger: Ledger, lookup: LedgerLookup):
    if ledger.database.is_sqlite:
        with ledger.database.writing() as connection:
            connection.exec_driver_sql("ALTER TABLE transactions RENAME TO elsewhere")
        with pytest.raises(DependencyError, match="does not answer"):
            lookup.find("t1")
        return
    gone = Ledger.open(ledger.database.url.render_as_string(hide_password=False))
    away = LedgerLookup(gone.database)
    gone.database.engine.dispose()
    gone.database.engine = sa.create_engine(ledger.database.url.set(host="127.0.0.1", port=1, query={}))
    with pytest.raises(DependencyError, match="does not answer"):
        away.find("t1")
    away.close()
    gone.close()


def test_closing_twice_and_asking_again_is_allowed(ledger: Ledger, lookup: LedgerLookup):
    ledger.append([entry(1)])
    assert lookup.known(["t1"]) == {"t1"}
    lookup.close()
    lookup.close()
    assert lookup.known(["t1"]) == {"t1"}
