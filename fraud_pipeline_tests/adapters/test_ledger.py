from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import DecisionRecord, IdConflict, LedgerEntry
from fraud_pipeline.domain.decision import Decision
from fraud_pipeline.domain.drift_episode import DriftObservation, EpisodePolicy, next_action
from fraud_pipeline.domain.explanation import Reason
from fraud_pipeline.domain.promotion import Promotion
from fraud_pipeline.domain.transaction import Label, Transaction
from fraud_pipeline.errors import Busy, DependencyError, IntegrityError, PromotionRefused, SettingsError

T0 = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
SECOND = timedelta(seconds=1)
FEATURES = np.array([1.5, np.nan, -0.0], dtype="<f4").tobytes()


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with Ledger.open(ledger_url) as opened:
        yield opened


def payment(number: int, **changes: object) -> Transaction:
    plain = Transaction(f"t{number}", T0 + number * SECOND, "c1", "m1", 1250)
    return replace(plain, **changes)  # type: ignore[arg-type]


def entry(number: int, **changes: object) -> LedgerEntry:
    return LedgerEntry(payment(number, **changes), received_at=T0 + number * SECOND)


def decided(number: int, decision: str = "APPROVE", probability: float = 0.01, role: str = "decided") -> DecisionRecord:
    return DecisionRecord(
        transaction_id=f"t{number}",
        decided_at=T0 + number * SECOND,
        decision=decision,
        fraud_probability=probability,
        model_version="3",
        payload=f'{{"b": 1,  "a": {number}}}',
        features=FEATURES,
        role=role,  # type: ignore[arg-type]
    )


def fraud(number: int, *, is_fraud: bool = True, at: timedelta = timedelta(days=3), author: str = "bank") -> Label:
    return Label(f"t{number}", is_fraud, "chargeback", author, T0 + at)


def test_a_transaction_comes_back_exactly_as_it_went_in(ledger: Ledger):
    whole = payment(
        1,
        currency="EUR",
        merchant_category="groceries",
        channel="pos",
        country="DE",
        device_id="dévice ✓",
        latitude=52.52000000000001,
        longitude=-13.4,
        attributes={"ip_risk": 0.1, "v1": -1e-300},
    )
    ledger.append([LedgerEntry(whole, received_at=T0)])
    recorded = ledger.transaction("t1")
    assert recorded is not None
    assert recorded.transaction == whole
    assert (recorded.writer, recorded.sequence, recorded.received_at) == ("local", 1, T0)
    assert ledger.transaction("t2") is None


def test_sequences_run_on_without_gaps_per_writer(ledger: Ledger):
    first = ledger.append([entry(1), entry(2)])
    second = ledger.append([entry(3)])
    other = ledger.append([entry(4)], writer="other")
    assert [r.sequence for r in (*first.recorded, *second.recorded, *other.recorded)] == [1, 2, 3, 1]


def test_a_kafka_writers_offsets_are_kept(ledger: Ledger):
    ledger.append(
        [LedgerEntry(payment(1), T0, sequence=41), LedgerEntry(payment(2), T0, sequence=43)], writer="topic[0]"
    )
    recorded = ledger.transaction("t2")
    assert recorded is not None
    assert (recorded.writer, recorded.sequence) == ("topic[0]", 43)
    with pytest.raises(IntegrityError, match="refuses a row"):
        ledger.append([LedgerEntry(payment(3), T0, sequence=43)], writer="topic[0]")
    assert ledger.transaction("t3") is None


def test_a_repeat_changes_nothing_and_a_conflict_names_its_fields(ledger: Ledger):
    ledger.append([entry(1)])
    again = ledger.append([entry(1), entry(1, amount_minor=9, country="FR"), entry(2), entry(2)])
    assert again.repeats == ("t1", "t2")
    assert again.conflicts == (IdConflict("t1", ("amount_minor", "country")),)
    assert [r.transaction.transaction_id for r in again.recorded] == ["t2"]
    kept = ledger.transaction("t1")
    assert kept is not None
    assert kept.transaction == payment(1)


def test_a_decision_is_kept_byte_for_byte_and_only_the_first_one(ledger: Ledger):
    ledger.append([replace(entry(1), decision=decided(1))])
    assert ledger.record_decisions([replace(decided(1), payload="other"), decided(1, role="shadow")]) == 1
    kept = ledger.decision("t1")
    assert kept == decided(1)
    assert ledger.decision("t1", role="shadow") == decided(1, role="shadow")
    assert ledger.decision("t9") is None


def test_a_decision_comes_back_as_it_was_made(ledger: Ledger):
    made = Decision(
        transaction_id="t1",
        event_time=T0,
        decided_at=T0 + SECOND,
        fraud_probability=0.8123456789,
        anomaly_score=0.55,
        raw_score=1.25,
        decision="BLOCK",
        risk_factors=("high_amount",),
        reasons=(Reason("amount", 1250.0, 0.7),),
        model_version="3",
        feature_schema="abc",
        processing_time_ms=0.15,
        features=FEATURES,
    )
    ledger.append([replace(entry(1), decision=DecisionRecord.of(made))])
    kept = ledger.decision("t1")
    assert kept is not None
    assert Decision.from_json(kept.payload, features=kept.features) == made


def test_a_decision_without_a_number_is_refused_and_its_transaction_with_it(ledger: Ledger):
    with pytest.raises(ValueError, match="t1"):
        ledger.append([replace(entry(1), decision=decided(1, probability=float("nan")))])
    assert ledger.transaction("t1") is None


def test_windows_of_time_are_half_open_and_ordered(ledger: Ledger):
    ledger.append([replace(entry(n), decision=decided(n)) for n in (3, 1, 2)])
    received = ledger.transactions_received(T0 + SECOND, T0 + 3 * SECOND)
    assert [(r.transaction.transaction_id, r.sequence) for r in received] == [("t1", 2), ("t2", 3)]
    assert [d.transaction_id for d in ledger.decisions(T0 + SECOND, T0 + 3 * SECOND)] == ["t1", "t2"]


def test_reviews_and_blocks_are_alerts_until_their_first_label(ledger: Ledger):
    ledger.append(
        [
            replace(entry(1), decision=decided(1, "REVIEW", 0.4)),
            replace(entry(2), decision=decided(2, "BLOCK", 0.9)),
            replace(entry(3), decision=decided(3)),
        ]
    )
    assert [a.transaction_id for a in ledger.open_alerts()] == ["t2", "t1"]
    ledger.record_labels([fraud(2)])
    assert [a.transaction_id for a in ledger.open_alerts()] == ["t1"]


def test_an_alert_whose_label_came_first_is_born_closed(ledger: Ledger):
    ledger.record_labels([fraud(1)])
    ledger.append([replace(entry(1), decision=decided(1, "BLOCK", 0.9))])
    assert ledger.open_alerts() == []


def test_labels_pass_on_their_change_and_every_version_is_kept(ledger: Ledger):
    ledger.append([entry(1, country="DE", device_id="d1"), entry(2)])
    day = timedelta(days=1)
    changes = [
        ledger.record_labels([fraud(1)]).changes[0].change,
        ledger.record_labels([fraud(1, at=4 * day)]).changes[0].change,
        ledger.record_labels([fraud(1, is_fraud=False, at=5 * day)]).changes[0].change,
        ledger.record_labels([fraud(1, is_fraud=False, at=6 * day)]).changes[0].change,
        ledger.record_labels([fraud(1, at=7 * day)]).changes[0].change,
        ledger.record_labels([fraud(2, is_fraud=False)]).changes[0].change,
    ]
    assert changes == [1, 0, -1, 0, 1, 0]
    known = ledger.labels_known(T0, T0 + 30 * day)
    assert len(known) == 6
    change = ledger.record_labels([fraud(1, is_fraud=False, at=8 * day)]).changes[0]
    assert (change.change, change.event_time, change.customer_id, change.country, change.device_id) == (
        -1,
        payment(1).event_time,
        "c1",
        "DE",
        "d1",
    )


def test_the_very_same_label_again_is_a_repeat(ledger: Ledger):
    ledger.append([entry(1)])
    ledger.record_labels([fraud(1)])
    again = ledger.record_labels([fraud(1), fraud(1)])
    assert (again.changes, again.repeats) == ((), (fraud(1), fraud(1)))
    assert len(ledger.labels_known(T0, T0 + timedelta(days=30))) == 1


def test_versions_within_one_call_count_one_after_the_other(ledger: Ledger):
    ledger.append([entry(1)])
    both = ledger.record_labels([fraud(1), fraud(1, is_fraud=False, author="analyst")])
    assert [c.change for c in both.changes] == [1, -1]


def test_a_label_for_an_unknown_transaction_waits_and_is_released(ledger: Ledger):
    early = ledger.record_labels([fraud(1), fraud(1, is_fraud=False, author="analyst"), fraud(2)])
    assert (early.changes, early.waiting) == ((), ("t1", "t1", "t2"))
    assert ledger.waiting_ids() == {"t1", "t2"}
    assert ledger.record_labels([fraud(1)]).repeats == (fraud(1),)
    arrived = ledger.append([entry(1)])
    assert [(r.change.transaction_id, r.change.change) for r in arrived.released] == [("t1", 1), ("t1", -1)]
    assert ledger.waiting_ids() == {"t2"}
    assert ledger.append([entry(1)]).released == ()
    assert ledger.record_labels([fraud(1, at=timedelta(days=9))]).changes[0].change == 1


def test_transactions_and_label_changes_share_one_log(ledger: Ledger, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fraud_pipeline.adapters.ledger.LOG_PAGE", 2)
    ledger.record_labels([fraud(2)])
    ledger.append([entry(1), entry(2), entry(3)])
    ledger.record_labels([fraud(1)])
    ledger.append([entry(4)])
    ledger.record_labels([fraud(3), fraud(4)])
    ledger.append([entry(5), entry(6)])
    told = []
    for event in ledger.read_log():
        if event.transaction is not None:
            told.append((event.sequence, event.transaction.transaction_id))
        if event.label_change is not None:
            told.append((event.sequence, f"label {event.label_change.transaction_id}"))
    names = ["t1", "t2", "t3", "label t2", "label t1", "t4", "label t3", "label t4", "t5", "t6"]
    assert told == list(enumerate(names, start=1))
    assert [e.sequence for e in ledger.read_log(after=8)] == [9, 10]


def test_a_label_of_a_kafka_transaction_names_its_partition_and_no_place(ledger: Ledger):
    ledger.append([LedgerEntry(payment(1), T0, sequence=7)], writer="topic[1]")
    (released,) = ledger.record_labels([fraud(1)]).released
    assert (released.writer, released.sequence, released.change.change) == ("topic[1]", None, 1)


def test_many_rows_in_one_call(ledger: Ledger):
    ledger.append([entry(n) for n in range(1_201)])
    assert len(ledger.record_labels([fraud(n) for n in range(0, 1_201, 2)]).changes) == 601
    assert len(ledger.append([entry(n) for n in range(1_201)]).repeats) == 1_201


def test_a_label_and_its_transaction_at_the_same_moment_never_miss_each_other(ledger_url: str):
    ids = range(40)
    changes: list[int] = []
    with Ledger.open(ledger_url) as one, Ledger.open(ledger_url) as other:

        def bring_transactions() -> None:
            for n in ids:
                changes.extend(r.change.change for r in one.append([entry(n)]).released)

        def bring_labels() -> None:
            for n in ids:
                changes.extend(c.change for c in other.record_labels([fraud(n)]).changes)

        run_together(bring_transactions, bring_labels)
        assert changes == [1] * len(ids)
        assert one.waiting_ids() == set()


def test_two_who_bring_the_same_transactions_record_each_once(ledger_url: str):
    recorded: list[str] = []
    with Ledger.open(ledger_url) as one, Ledger.open(ledger_url) as other:

        def bring(ledger: Ledger) -> None:
            for n in range(30):
                recorded.extend(r.transaction.transaction_id for r in ledger.append([entry(n)]).recorded)

        run_together(lambda: bring(one), lambda: bring(other))
        assert sorted(recorded) == sorted(f"t{n}" for n in range(30))
        assert [e.sequence for e in one.read_log()] == list(range(1, 31))


def promotion(number: int, version: int) -> Promotion:
    return Promotion(number, number - 1, "promotion", version, "f" * 64, None, "test", "", T0, {"gates": [None, 1.5]})


def test_promotions_form_a_chain_that_forks_nowhere(ledger: Ledger):
    assert ledger.current_promotion() is None
    ledger.append_promotion(promotion(1, version=4))
    ledger.append_promotion(promotion(2, version=5))
    with pytest.raises(PromotionRefused, match="Version 6 was not promoted: another promotion came first"):
        ledger.append_promotion(promotion(2, version=6))
    assert ledger.promotions() == [promotion(1, version=4), promotion(2, version=5)]
    assert ledger.current_promotion() == promotion(2, version=5)


@pytest.mark.parametrize("statement", ["UPDATE promotions SET version = 9", "DELETE FROM promotions"])
def test_the_database_itself_refuses_to_rewrite_promotions(ledger: Ledger, statement: str):
    ledger.append_promotion(promotion(1, version=4))
    with pytest.raises(Exception, match="append-only"), ledger._database.writing() as connection:
        connection.exec_driver_sql(statement)
    assert ledger.current_promotion() == promotion(1, version=4)


def test_a_drift_episode_lives_in_the_ledger(ledger: Ledger):
    drift = DriftObservation(T0, champion_version=4, drifted=True, reason="12 of 30 features drifted")
    action = next_action(None, drift, champion_version=4, now=T0)
    assert ledger.apply_episode_action(action, drift, verdict={"share": 0.4}, now=T0)
    assert not ledger.apply_episode_action(action, drift, verdict={}, now=T0)
    assert ledger.note_run("1:1", outcome="running", run_id="r1")
    assert not ledger.note_run("1:2", outcome="running", run_id="r1")
    episode = ledger.last_episode()
    assert episode is not None
    assert (episode.episode_id, episode.attempts[0].run_key, episode.attempts[0].outcome) == (1, "1:1", "running")
    assert next_action(episode, drift, champion_version=4, now=T0).kind == "none"

    over = replace(drift, as_of=T0 + timedelta(days=1), drifted=False)
    close = next_action(episode, over, champion_version=4, now=T0)
    assert ledger.apply_episode_action(close, over, verdict={}, now=T0)
    closed = ledger.last_episode()
    assert closed is not None
    assert (closed.closed_at, closed.close_reason) == (over.as_of, "The drift is over.")


def test_an_action_written_before_a_crash_is_written_once(ledger: Ledger):
    drift = DriftObservation(T0, champion_version=4, drifted=True, reason="drift")
    ledger.apply_episode_action(next_action(None, drift, champion_version=4, now=T0), drift, verdict={}, now=T0)
    later = T0 + EpisodePolicy().start_within
    again = next_action(ledger.last_episode(), drift, champion_version=4, now=later, last_run=None)
    assert (again.kind, again.run_key) == ("request", "1:1")
    assert ledger.apply_episode_action(again, drift, verdict={}, now=later)
    assert len(ledger.episodes()[0].attempts) == 1


def test_a_naive_time_is_refused(ledger: Ledger):
    with pytest.raises(Exception, match="has no time zone"):
        ledger.append([LedgerEntry(payment(1), received_at=datetime(2026, 1, 1))])  # noqa: DTZ001 - that is the point


def test_everything_survives_a_reopening(ledger_url: str):
    with Ledger.open(ledger_url) as before:
        before.append([entry(1)])
        before.ping()
    with Ledger.open(ledger_url) as after:
        assert after.transaction("t1") is not None
        assert [r.sequence for r in after.append([entry(2)]).recorded] == [2]


def test_a_server_that_is_away_is_named_without_its_password():
    with pytest.raises(DependencyError) as caught:
        Ledger.open("postgresql://fraud:secret@127.0.0.1:9/fraud")
    assert "127.0.0.1:9/fraud" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "Start PostgreSQL" in caught.value.remedy


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense", "sqlite://", "sqlite:///:memory:", ""])
def test_an_address_that_cannot_hold_a_ledger_is_refused(url: str):
    with pytest.raises(SettingsError, match="FRAUD_LEDGER_URL"):
        Ledger.open(url)


def test_a_file_that_is_no_database_is_named(tmp_path):
    path = tmp_path / "ledger.db"
    path.write_bytes(b"this was once a ledger" * 100)
    with pytest.raises(IntegrityError, match=r"ledger\.db is damaged"):
        Ledger.open(f"sqlite:///{path}")
    assert path.read_bytes() == b"this was once a ledger" * 100


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "ledger.db").mkdir()
    with pytest.raises(DependencyError, match="does not answer: unable to open database file"):
        Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}")


def test_a_full_disk_is_the_disks_fault_and_loses_nothing(tmp_path):
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        ledger.append([entry(1)])
        with ledger._database.reading() as connection:  # a limit on pages acts as a disk that is full
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        with pytest.raises(DependencyError, match="full"):
            ledger.append([entry(n) for n in range(2, 3_000)])
        assert [e.sequence for e in ledger.read_log()] == [1]


def test_a_writer_that_waits_too_long_is_told_who_to_stop(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fraud_pipeline.adapters.ledger_database.BUSY_TIMEOUT_MS", 50)
    path = tmp_path / "ledger.db"
    with Ledger.open(f"sqlite:///{path}") as ledger:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Busy, match="locked by another process"):
            ledger.append([entry(1)])
        assert ledger.transaction("t1") is None  # readers go on
        other.execute("ROLLBACK")
        other.close()
        assert len(ledger.append([entry(1)]).recorded) == 1


def run_together(*actions) -> None:
    """Run the actions at the same time and raise what any of them raised."""
    start = threading.Barrier(len(actions))
    errors: list[BaseException] = []

    def run(action) -> None:
        start.wait()
        try:
            action()
        except BaseException as err:  # noqa: BLE001 - raised again below
            errors.append(err)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not errors, errors
