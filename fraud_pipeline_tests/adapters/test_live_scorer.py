from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from fraud_pipeline.adapters import group_commit, live_scorer
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import LedgerEntry
from fraud_pipeline.domain.decision import Decision, decide_on
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.errors import Busy, ConflictingTransaction, DependencyError
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.live_rig import LiveRig, label, run, said, turns
from fraud_pipeline_tests.serving.home import (
    HISTORY_END,
    changed,
    live_payments,
    serving_home,
)

PAYMENTS = live_payments(250)

both_ways = pytest.mark.parametrize("at_once", [True, False], ids=["in the loop", "by the thread"])


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return serving_home(tmp_path / "home")


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "PROBE_S", 0.02)
    monkeypatch.setattr(live_scorer, "REBUILD_RETRY_S", 0.02)


@both_ways
def test_an_answer_is_the_stored_decision_made_from_the_state_before_it(settings: Settings, at_once: bool):
    async def work() -> None:
        async with LiveRig(settings, at_once=at_once) as rig:
            for payment in PAYMENTS[:30]:
                answer = await rig.score(payment)
                assert rig.answer_of(payment.transaction_id) == answer
            await rig.check()
            assert rig.undecided == 0
            assert rig.models.champion is not None
            record = rig.ledger.decision("live-29")
            assert record is not None
            kept = Decision.from_json(record.payload, features=record.features)
            again = decide_on(
                kept.vector, rig.models.champion.bundle, transaction_id="live-29", event_time=kept.event_time,
                decided_at=kept.decided_at, control_share=0.01,
            )  # fmt: skip
            assert replace(again, processing_time_ms=kept.processing_time_ms) == kept
            assert (kept.degraded, kept.model_version) == ((), "1")
            assert sum(rig.metrics.decisions.values()) == 30

    run(work)


@both_ways
def test_a_batch_answers_in_the_order_given_and_decides_in_that_of_event_times(settings: Settings, at_once: bool):
    async def work() -> None:
        async with LiveRig(settings, at_once=at_once) as rig:
            shuffled = list(PAYMENTS)
            random.Random(3).shuffle(shuffled)
            answers = await rig.scorer.score_many(shuffled, received_at=HISTORY_END)
            ids = [said(answer, "transaction_id") for answer in answers if isinstance(answer, bytes)]
            assert ids == [payment.transaction_id for payment in shuffled]
            log = [event.transaction for event in rig.ledger.read_log()]
            assert log == PAYMENTS
            await rig.check()
            again = await rig.scorer.score_many(shuffled, received_at=HISTORY_END)
            assert again == answers
            assert rig.metrics.repeats == len(PAYMENTS)

    run(work)


def test_a_batch_and_one_by_one_decide_alike(settings: Settings, tmp_path: Path):
    async def work() -> None:
        async with LiveRig(settings) as one, LiveRig(serving_home(tmp_path / "other")) as other:
            for payment in PAYMENTS:
                await one.score(payment)
            await other.scorer.score_many(PAYMENTS, received_at=HISTORY_END)
            for payment in PAYMENTS:
                records = [rig.ledger.decision(payment.transaction_id) for rig in (one, other)]
                made = [Decision.from_json(r.payload, features=r.features) for r in records if r is not None]
                assert replace(made[0], processing_time_ms=0.0) == replace(made[1], processing_time_ms=0.0)
            assert one.scorer.state.snapshot() == other.scorer.state.snapshot()

    run(work)


@both_ways
def test_two_at_once_decide_once_and_both_get_the_same_bytes(settings: Settings, at_once: bool):
    async def work() -> None:
        async with LiveRig(settings, at_once=at_once) as rig:
            answers = await asyncio.gather(*(rig.score(PAYMENTS[0]) for _ in range(20)))
            assert len(set(answers)) == 1
            assert await rig.score(PAYMENTS[0]) == answers[0]
            assert rig.ledger.last_sequence() == 1
            assert (rig.metrics.repeats, sum(rig.metrics.decisions.values())) == (20, 1)
            twice = await rig.scorer.score_many([PAYMENTS[1], PAYMENTS[1], PAYMENTS[0]], received_at=HISTORY_END)
            assert twice == [rig.answer_of("live-1"), rig.answer_of("live-1"), answers[0]]
            await rig.check()

    run(work)


@both_ways
def test_another_content_under_a_taken_id_is_refused_by_field_also_while_it_is_on_its_way(
    settings: Settings, at_once: bool
):
    async def work() -> None:
        async with LiveRig(settings, at_once=at_once) as rig:
            other = replace(PAYMENTS[0], amount_minor=1, country="IT")
            found = await asyncio.gather(rig.score(PAYMENTS[0]), rig.score(other), return_exceptions=True)
            assert found[0] == rig.answer_of("live-0")
            assert isinstance(found[1], ConflictingTransaction)
            assert found[1].fields == ("amount", "country")
            with pytest.raises(ConflictingTransaction, match="live-0 is recorded with another amount, country"):
                await rig.score(other)
            batch = await rig.scorer.score_many([PAYMENTS[1], other, *changed(PAYMENTS[1:2])], received_at=HISTORY_END)
            assert batch[0] == rig.answer_of("live-1")
            assert all(isinstance(each, ConflictingTransaction) for each in batch[1:])
            assert rig.metrics.conflicts == 4
            await rig.check()

    run(work)


def test_what_is_stored_is_told_also_while_it_is_on_its_way(settings: Settings):
    async def work() -> None:
        async with LiveRig(settings) as rig:
            assert await rig.scorer.stored("live-0") is None
            scoring = asyncio.create_task(rig.score(PAYMENTS[0]))
            await turns(1)
            stored = await rig.scorer.stored("live-0")
            assert stored == (PAYMENTS[0], await scoring)
            assert await rig.scorer.stored("live-0") == stored

    run(work)


def test_a_restart_answers_alike_and_goes_on(settings: Settings):
    async def work() -> None:
        async with LiveRig(settings) as rig:
            first = await rig.scorer.score_many(PAYMENTS[:50], received_at=HISTORY_END)
            await rig.scorer.record_labels([label(PAYMENTS[3])])
            before = rig.scorer.state.snapshot()
        assert rig.kept is not None
        assert (rig.kept.sequence, rig.kept.state.snapshot()) == (51, before)
        async with LiveRig(settings) as rig:
            assert rig.scorer.state.snapshot() == before
            assert await rig.scorer.score_many(PAYMENTS[:50], received_at=HISTORY_END) == first
            await rig.scorer.score_many(PAYMENTS[50:100], received_at=HISTORY_END)
            await rig.check()

    run(work)


@both_ways
def test_labels_stand_where_they_were_recorded(settings: Settings, at_once: bool):
    async def work() -> None:
        async with LiveRig(settings, at_once=at_once) as rig:
            await rig.score(PAYMENTS[0])
            work = [rig.score(payment) for payment in PAYMENTS[1:20]]
            labelling = asyncio.create_task(rig.scorer.record_labels([label(PAYMENTS[0])]))
            await asyncio.gather(*work)
            recorded = await labelling
            assert [each.change.change for each in recorded.released] == [1]
            assert (await rig.scorer.record_labels([label(PAYMENTS[0])])).repeats == (label(PAYMENTS[0]),)
            corrected = await rig.scorer.record_labels([label(PAYMENTS[0], is_fraud=False, author="bob")])
            assert [each.change.change for each in corrected.released] == [-1]
            assert rig.metrics.labels == 2
            await rig.check()

    run(work)


@both_ways
def test_a_label_before_its_payment_follows_it_at_once(settings: Settings, at_once: bool):
    async def work() -> None:
        async with LiveRig(settings, at_once=at_once) as rig:
            early = await rig.scorer.record_labels([label(PAYMENTS[5]), label(PAYMENTS[7])])
            assert early.waiting == ("live-5", "live-7")
            answers = await asyncio.gather(*(rig.score(payment) for payment in [*PAYMENTS[:10], PAYMENTS[5]]))
            assert answers[5] == answers[10] == rig.answer_of("live-5")
            words = [event.transaction is not None for event in rig.ledger.read_log()]
            assert words.count(False) == 2
            await rig.check()
            assert rig.ledger.waiting_ids() == set()

    run(work)


def test_labels_before_their_payments_survive_a_restart_and_a_batch(settings: Settings):
    async def work() -> None:
        async with LiveRig(settings) as rig:
            await rig.scorer.record_labels([label(payment) for payment in PAYMENTS[:40:10]])
        async with LiveRig(settings) as rig:
            answers = await rig.scorer.score_many(PAYMENTS[:40], received_at=HISTORY_END)
            assert answers == [rig.answer_of(payment.transaction_id) for payment in PAYMENTS[:40]]
            assert rig.ledger.waiting_ids() == set()
            await rig.check()

    run(work)


def test_what_runs_before_the_labels_may_make_their_payments_known(settings: Settings):
    async def work() -> None:
        async with LiveRig(settings) as rig:
            past = replace(PAYMENTS[0], event_time=HISTORY_END - timedelta(days=2))
            recorded = await rig.scorer.record_labels([label(past)], first=lambda: rig.ledger.adopt([past]))
            assert [each.change.event_time for each in recorded.released] == [past.event_time]
            await rig.score(PAYMENTS[1])
            await rig.check()

    run(work)


def test_a_payment_recorded_without_a_decision_is_decided_once_and_not_taken_in_again(settings: Settings):
    with Ledger.open(settings.ledger_url) as ledger:
        ledger.append([LedgerEntry(payment, payment.event_time) for payment in PAYMENTS[:3]])

    async def work() -> None:
        async with LiveRig(settings) as rig:
            assert await rig.scorer.stored("live-1") == (PAYMENTS[1], None)
            answers = await asyncio.gather(*(rig.score(PAYMENTS[1]) for _ in range(5)))
            assert set(answers) == {rig.answer_of("live-1")}
            assert rig.ledger.last_sequence() == 3
            with pytest.raises(ConflictingTransaction):
                await rig.score(*changed(PAYMENTS[2:3]))
            assert said(await rig.scorer.decide_recorded(PAYMENTS[2]), "decision") in ("APPROVE", "REVIEW", "BLOCK")
            before = rig.scorer.state.snapshot()
            past = replace(PAYMENTS[9], customer_id="never-met", merchant_id="nor-this", device_id="nor-that")
            await rig.scorer.decide_recorded(past)
            assert rig.scorer.state.snapshot() == before

    run(work)


def test_an_id_that_another_process_wrote_is_disputed_and_answered_the_next_time(settings: Settings):
    async def work() -> None:
        async with LiveRig(settings, at_once=False) as rig:
            await rig.score(PAYMENTS[0])
            scoring = asyncio.create_task(rig.score(PAYMENTS[1]))
            with Ledger.open(settings.ledger_url) as another, another.database.writing():
                await turns()
                assert not scoring.done()
            with pytest.raises(Busy, match="Send the payment again"):
                await _written_before(rig, PAYMENTS[2], scoring)
            await rig.settled()
            assert await rig.score(PAYMENTS[2]) == rig.answer_of("live-2")
            await rig.check()

    run(work)


async def _written_before(rig: LiveRig, payment: Transaction, before: asyncio.Task[bytes]) -> None:
    """The payment is on its way, and another process has just written it."""
    await before
    find = rig.scorer._payments._lookup.find
    rig.scorer._payments._lookup.find = _not_there  # type: ignore[method-assign]  # it looked before the other wrote
    rig.ledger.append([LedgerEntry(payment, payment.event_time)])
    try:
        await rig.score(payment)
    finally:
        rig.scorer._payments._lookup.find = find  # type: ignore[method-assign]


def _not_there(transaction_id: str) -> None:
    return None


@both_ways
def test_a_caller_that_goes_away_leaves_its_payment_and_its_labels_whole(settings: Settings, at_once: bool):
    async def work() -> None:
        async with LiveRig(settings, at_once=at_once) as rig:
            await rig.scorer.record_labels([label(PAYMENTS[3])])
            gone = [asyncio.create_task(rig.score(payment)) for payment in PAYMENTS[:6]]
            gone.append(asyncio.create_task(rig.scorer.score_many(PAYMENTS[6:60], received_at=HISTORY_END)))  # type: ignore[arg-type]
            gone.append(asyncio.create_task(rig.scorer.record_labels([label(PAYMENTS[0])])))  # type: ignore[arg-type]
            await turns(3)
            for task in gone:
                task.cancel()
            outcomes = await asyncio.gather(*gone, return_exceptions=True)
            assert any(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
            await rig.until(lambda: not rig.scorer._payments._in_flight)
            await rig.scorer.record_labels([label(PAYMENTS[1])])  # stands behind whatever was begun
            await rig.check()
            assert rig.undecided == 0
            answers = [await rig.score(payment) for payment in PAYMENTS[:60]]
            assert answers == [rig.answer_of(payment.transaction_id) for payment in PAYMENTS[:60]]
            await rig.check()

    run(work)


def test_without_a_champion_nothing_is_approved_nor_taken_in(settings: Settings):
    async def work() -> None:
        async with LiveRig(settings) as rig:
            await rig.score(PAYMENTS[0])
            champion, rig.models.champion = rig.models.champion, None
            with pytest.raises(DependencyError, match="There is no champion to decide with"):
                await rig.score(PAYMENTS[1])
            failed = await asyncio.gather(
                rig.scorer.score_many(PAYMENTS[1:9], received_at=HISTORY_END), return_exceptions=True
            )
            assert isinstance(failed[0], DependencyError)
            rig.models.champion = champion
            assert (rig.ledger.last_sequence(), rig.metrics.rebuilds) == (1, 0)
            await rig.score(PAYMENTS[1])
            await rig.check()

    run(work)


def test_a_stopping_scorer_refuses_the_new_and_finishes_the_old(settings: Settings):
    async def work() -> None:
        async with LiveRig(settings, at_once=False) as rig:
            await rig.score(PAYMENTS[0])
            old = [asyncio.create_task(rig.score(payment)) for payment in PAYMENTS[1:9]]
            await turns(1)
            labels = asyncio.create_task(rig.scorer.record_labels([label(PAYMENTS[0])]))
            await turns(2)
            closing = asyncio.create_task(rig.close())
            await turns(1)
            with pytest.raises(DependencyError, match="The service is stopping"):
                await rig.score(PAYMENTS[9])
            answers = await asyncio.gather(*old)
            await closing
            recorded = await asyncio.gather(labels, return_exceptions=True)
            with Ledger.open(settings.ledger_url) as ledger:
                assert [ledger.decision(f"live-{n}").payload.encode() for n in range(1, 9)] == answers  # type: ignore[union-attr]
                places = ledger.last_sequence()
                assert places == 9 + (not isinstance(recorded[0], BaseException))
                assert rig.kept is not None
                assert rig.kept.sequence == places
                states = rig.states.base()
                for event in ledger.read_log():
                    if event.transaction is not None:
                        states.state.update(event.transaction)
                    elif event.label_change is not None:
                        states.state.apply_label(event.label_change)
            assert rig.kept.state.snapshot() == states.state.snapshot()

    run(work)


@both_ways
def test_a_state_is_renewed_while_payments_and_labels_come_in(settings: Settings, at_once: bool):
    async def work() -> None:
        async with LiveRig(settings, at_once=at_once) as rig:
            await rig.scorer.score_many(PAYMENTS[:50], received_at=HISTORY_END)
            rig.states.keep(rig.states.recover())
            old = rig.scorer.state
            renewing = asyncio.create_task(rig.scorer.renew())
            number = 50
            while not renewing.done():
                await asyncio.gather(
                    rig.score(PAYMENTS[number]), rig.scorer.record_labels([label(PAYMENTS[number - 50])])
                )
                number += 1
            await renewing
            assert rig.scorer.state is not old
            await rig.score(PAYMENTS[number])
            await rig.check()
            assert rig.metrics.rebuilds == 0

    run(work)
