"""The watch over a promoted model on both ledgers: real bundles, real decisions, and what becomes of the champion."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.promotion_watch import WatchStep, watch_step
from fraud_pipeline.adapters.watch_records import all_watches, find_watch, write_watch
from fraud_pipeline.domain.promotion import rolled_back_versions
from fraud_pipeline.errors import DependencyError
from fraud_pipeline_tests.adapters.watched_ledger import BUDGET, POLICY, PROMOTED_AT, WatchedLedger


@pytest.fixture
def place(ledger_url: str, tmp_path: Path) -> Iterator[WatchedLedger]:
    with Ledger.open(ledger_url) as ledger:
        yield WatchedLedger(tmp_path, ledger)


@pytest.fixture
def promoted(place: WatchedLedger) -> WatchedLedger:
    """Version 2 in place of 1, which alerts a little more."""
    place.promote(1, place.bundle())
    place.promote(2, place.bundle(review=0.19))
    return place


@pytest.fixture
def sabotaged(place: WatchedLedger) -> WatchedLedger:
    """Version 2 alerts everything."""
    place.promote(1, place.bundle())
    place.promote(2, place.bundle(review=0.00001), reason="a sabotage", kind="forced")
    return place


def test_there_is_nothing_to_watch_before_the_first_champion(place: WatchedLedger):
    assert place.step().said == "There is no champion yet."


def test_a_sound_model_passes_when_its_days_are_over_and_is_left_alone_then(promoted: WatchedLedger):
    for _ in range(6):
        promoted.answer(400)
        step = promoted.steps()
        assert step.record is not None
        assert step.record.verdict == "watching", step.said
    assert step.tally is not None
    assert (step.tally.decisions, step.tally.compared) == (2_400, 2_400)
    promoted.answer(800, days=2)
    passed = promoted.steps()
    assert passed.record is not None
    assert (passed.record.verdict, passed.rolled_back) == ("passed", None)
    assert passed.record.evidence["counted"]["decisions"] == 3_200
    promoted.answer(10)
    assert "is over: passed" in promoted.step().said
    assert promoted.ledger.current_promotion().version == 2  # type: ignore[union-attr]


def test_a_sabotaged_champion_is_rolled_back_after_500_decisions_with_its_evidence(sabotaged: WatchedLedger):
    sabotaged.answer(499, days=0.02)
    assert sabotaged.steps().rolled_back is None
    sabotaged.answer(1, days=0.001)
    step = sabotaged.steps()
    back = step.rolled_back
    assert back is not None
    assert (back.kind, back.version, back.previous_version, back.who) == ("rollback", 1, 2, "the watch")
    assert sabotaged.ledger.current_promotion() == back
    assert "of 500 payments were alerted" in back.reason
    assert back.evidence["gates"] == "of version 1"
    told: Any = back.evidence["watch"]
    assert (told["verdict"], told["counted"]["decisions"]) == ("breached", 500)
    assert [check["name"] for check in told["checks"] if not check["passed"]] == ["alerts_within_the_budget"]
    watched = find_watch(sabotaged.ledger.database, 2)
    assert watched is not None
    assert (watched.verdict, watched.evidence["action"]) == ("breached", "rolled back to version 1")
    assert rolled_back_versions(sabotaged.ledger.promotions()) == {2}
    assert "is not watched" in sabotaged.step().said


def test_without_a_champion_before_it_a_breach_calls_for_a_person(place: WatchedLedger):
    place.promote(1, place.bundle(review=0.00001))
    place.answer(1_200, days=2)
    step = place.steps()
    assert step.rolled_back is None
    assert "stays champion: there is no champion before it to go back to" in step.alarm
    assert find_watch(place.ledger.database, 1).verdict == "breached"  # type: ignore[union-attr]
    assert place.step().alarm == "", "told once"


def test_where_the_bundle_before_is_gone_a_breach_calls_for_a_person(sabotaged: WatchedLedger):
    first = sabotaged.ledger.promotions()[0]
    shutil.rmtree(sabotaged.home / "bundles" / first.fingerprint[:16])
    sabotaged.answer(1_500, days=2)
    step = sabotaged.steps()
    assert step.rolled_back is None
    assert "the bundle of version 1 is gone" in step.alarm
    assert sabotaged.ledger.current_promotion().version == 2  # type: ignore[union-attr]


def test_a_hand_deleted_champion_bundle_is_named_and_changes_nothing(promoted: WatchedLedger):
    second = promoted.ledger.promotions()[1]
    folder = promoted.home / "bundles" / second.fingerprint[:16]
    shutil.move(folder, promoted.home / "elsewhere")
    step = promoted.step()
    assert step.alarm.startswith("The bundle of champion 2 cannot be had")
    assert (step.record, promoted.ledger.current_promotion()) == (None, second)
    shutil.move(promoted.home / "elsewhere", folder)
    promoted.answer(30)
    assert promoted.steps().alarm == ""


def test_an_mlflow_that_is_away_changes_nothing_and_the_next_step_goes_on(sabotaged: WatchedLedger):
    sabotaged.answer(600, days=0.1)

    def away(version: int, fingerprint: str) -> Path:
        raise DependencyError(f"MLflow does not answer, and version {version} is not here.")

    with pytest.raises(DependencyError):
        watch_step(sabotaged.ledger, away, policy=POLICY, now=sabotaged.now)
    assert all_watches(sabotaged.ledger.database) == {}
    assert sabotaged.steps().rolled_back is not None


def test_broken_input_takes_no_model_back_until_it_is_mended(sabotaged: WatchedLedger):
    sabotaged.answer(600, days=0.1)
    step = sabotaged.steps(broken_input="country is missing in 60%")
    assert step.rolled_back is None
    assert step.record is not None
    assert "the input is broken" in step.record.evidence["action"]
    assert step.record.verdict == "watching"
    assert sabotaged.steps().rolled_back is not None


def test_a_person_who_puts_it_back_is_not_overruled_but_told(sabotaged: WatchedLedger):
    sabotaged.answer(600, days=0.1)
    assert sabotaged.steps().rolled_back is not None
    second = sabotaged.ledger.promotions()[1]
    sabotaged.promote(2, second.fingerprint, kind="forced", reason="we know better")
    sabotaged.answer(700, days=0.1)
    step = sabotaged.steps()
    assert step.rolled_back is None
    assert "a person made it champion again" in step.alarm
    assert step.tally is not None
    assert step.tally.decisions == 700, "what it answered in its first reign is not counted again"


def test_a_promotion_by_somebody_else_ends_the_watch(promoted: WatchedLedger):
    promoted.answer(50)
    promoted.steps()
    promoted.promote(3, promoted.bundle(review=0.18))
    promoted.step()
    watches = all_watches(promoted.ledger.database)
    assert {number: watch.verdict for number, watch in watches.items()} == {2: "superseded", 3: "watching"}
    assert "made version 3 champion" in watches[2].evidence["action"]


def test_of_two_daemons_one_rolls_back_and_the_other_says_so(sabotaged: WatchedLedger):
    sabotaged.answer(600, days=0.1)
    start, steps = threading.Barrier(2), []

    def run() -> None:
        start.wait()
        steps.append(sabotaged.step())

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert [promotion.kind for promotion in sabotaged.ledger.promotions()] == ["promotion", "forced", "rollback"]
    assert len([step for step in steps if step.rolled_back is not None]) == 1
    other = next(step for step in steps if step.rolled_back is None)
    assert "Another daemon has just acted" in other.said or "is not watched" in other.said


def test_a_rollback_and_its_verdict_are_one_write(sabotaged: WatchedLedger):
    """Somebody promotes version 3 between the look and the write: neither the verdict nor the rollback is written."""
    sabotaged.answer(600, days=0.1)
    record = sabotaged.step(broken_input="held").record
    assert record is not None
    stale = sabotaged.ledger.promotions()
    sabotaged.promote(3, sabotaged.bundle(review=0.18))
    late = Late(sabotaged.ledger._database, stale)
    step = watch_step(late, sabotaged.fetch, policy=POLICY, now=sabotaged.now)
    assert step.said == "Another daemon has just acted on this watch."
    assert find_watch(sabotaged.ledger.database, 2) == record
    assert sabotaged.ledger.current_promotion().version == 3  # type: ignore[union-attr]


class Late(Ledger):
    """Whoever looked before the newest promotion was written."""

    def __init__(self, database: Any, history: list[Any]) -> None:
        super().__init__(database)
        self._history = history

    def promotions(self) -> list[Any]:
        return self._history


def test_a_step_that_saw_an_older_revision_writes_nothing(promoted: WatchedLedger):
    promoted.answer(20)
    record = promoted.steps().record
    assert record is not None
    assert write_watch(promoted.ledger.database, record)
    assert not write_watch(promoted.ledger.database, record)


def test_a_tick_in_which_nothing_came_writes_nothing(promoted: WatchedLedger):
    promoted.answer(20)
    first, second = promoted.steps().record, promoted.steps().record
    assert first == second


def test_frauds_that_only_the_champion_before_found_take_the_model_back(place: WatchedLedger):
    place.promote(1, place.bundle(review=0.05))
    place.promote(2, place.bundle(review=0.95, block=0.97, share=0.0), kind="promotion")
    ids = place.answer(4_000, days=3)
    place.steps()
    decided = place.ledger.decided(ids)
    missed = [d.transaction_id for d in decided if d.fraud_probability >= 0.05 and d.decision == "APPROVE"]
    assert len(missed) > 40
    place.label(missed, is_fraud=True)
    step = place.steps()
    assert step.rolled_back is not None
    assert step.tally is not None
    assert step.tally.old_only_frauds == len(missed)
    assert f"version 1 alone would have alerted {len(missed)} more" in step.rolled_back.reason


def test_labels_are_counted_once_and_corrected_when_they_are(promoted: WatchedLedger):
    ids = promoted.answer(300)
    promoted.label(ids[:10], is_fraud=True)
    first = promoted.steps().tally
    assert first is not None
    assert (first.labelled, first.frauds) == (10, 10)
    promoted.label(ids[:3], is_fraud=False, at=promoted.data_time + timedelta(hours=1))
    second = promoted.steps().tally
    assert second is not None
    assert (second.labelled, second.frauds) == (10, 10), "what waits for its payment changes nothing yet"


def test_degraded_decisions_are_counted_apart(sabotaged: WatchedLedger):
    sabotaged.answer(900, days=2, degraded=("shared_state_lag",))
    step = sabotaged.steps()
    assert step.tally is not None
    assert (step.tally.decisions, step.tally.degraded, step.rolled_back) == (0, 900, None)


def test_a_clock_that_was_set_back_neither_blocks_nor_starts_anything(promoted: WatchedLedger):
    promoted.promote(3, promoted.bundle(review=0.00002), promoted_at=PROMOTED_AT + timedelta(days=400))
    promoted.answer(100, days=0.01)
    promoted.steps()
    record = find_watch(promoted.ledger.database, 3)
    assert record is not None
    promoted.now += timedelta(days=300)
    promoted.answer(100, days=0.01)
    promoted.steps()
    promoted.now -= timedelta(days=300)
    assert promoted.steps().rolled_back is None
    promoted.answer(1_000, days=0.01)
    promoted.now += timedelta(minutes=10)
    step = promoted.steps()
    assert step.rolled_back is not None, step.said


def test_state_and_evidence_are_plain_json(promoted: WatchedLedger):
    promoted.answer(600, days=2)
    record = promoted.steps().record
    assert record is not None
    assert json.loads(json.dumps(dict(record.state))) == dict(record.state)
    assert record.state["promise"]["budget"] == BUDGET
    assert {check["name"] for check in record.evidence["checks"]} == {
        "alerts_within_the_budget", "alerts_not_gone", "scores_as_in_the_reference", "no_fraud_lost_to_the_champion_before",
    }  # fmt: skip


def test_what_is_left_undone_is_done_by_the_next_step(promoted: WatchedLedger):
    promoted.answer(5_000, days=2)
    taken = [promoted.step(for_s=0.0)]
    while taken[-1].behind and len(taken) < 50:
        taken.append(promoted.step(for_s=0.000_001))
    assert len(taken) > 3
    step: WatchStep = taken[-1]
    assert step.tally is not None
    assert step.tally.decisions == 5_000
