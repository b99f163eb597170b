from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from fraud_pipeline.adapters import group_commit, live_scorer
from fraud_pipeline.domain.bundle_files import read_directory
from fraud_pipeline.errors import ConflictingTransaction, DependencyError, FraudError
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.live_rig import LiveRig, label, run, said, turns
from fraud_pipeline_tests.postgres import end_sessions
from fraud_pipeline_tests.serving.home import (
    HISTORY_END,
    append_promotion,
    changed,
    live_payments,
    made_bundle,
    serving_home,
)

PAYMENTS = live_payments(250)

both_ways = pytest.mark.parametrize("at_once", [True, False], ids=["in the loop", "by the thread"])
both_policies = pytest.mark.parametrize("policy", ["journal", "refuse"])


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return serving_home(tmp_path / "home")


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "PROBE_S", 0.02)
    monkeypatch.setattr(live_scorer, "REBUILD_RETRY_S", 0.02)


@both_ways
def test_the_journal_carries_on_while_the_ledger_is_away(settings: Settings, at_once: bool):
    async def work() -> None:
        async with LiveRig(settings, at_once=at_once) as rig:
            await rig.scorer.score_many(PAYMENTS[:20], received_at=HISTORY_END)
            rig.take_away()
            away = [await rig.score(payment) for payment in PAYMENTS[20:30]]
            away += [
                a for a in await rig.scorer.score_many(PAYMENTS[30:40], received_at=HISTORY_END) if isinstance(a, bytes)
            ]
            assert [said(answer, "degraded") for answer in away] == [["ledger"]] * 20
            assert await rig.score(PAYMENTS[25]) == away[5]
            with pytest.raises(ConflictingTransaction):
                await rig.score(*changed(PAYMENTS[25:26]))
            assert await rig.scorer.stored("live-25") == (PAYMENTS[25], away[5])
            with pytest.raises(FraudError):
                await rig.scorer.record_labels([label(PAYMENTS[0])])
            rig.bring_back()
            await rig.settled()
            assert rig.metrics.rebuilds == 0
            assert [rig.answer_of(payment.transaction_id) for payment in PAYMENTS[20:40]] == away
            assert await rig.score(PAYMENTS[25]) == away[5]
            await rig.scorer.record_labels([label(PAYMENTS[25])])
            assert said(await rig.score(PAYMENTS[40]), "degraded") == []
            await rig.check()

    run(work)


@both_ways
def test_refusing_leaves_nothing_and_goes_on_when_the_ledger_answers(settings: Settings, at_once: bool):
    async def work() -> None:
        async with LiveRig(settings, policy="refuse", at_once=at_once) as rig:
            await rig.scorer.score_many(PAYMENTS[:20], received_at=HISTORY_END)
            rig.take_away()
            refused = await asyncio.gather(*(rig.score(p) for p in PAYMENTS[20:30]), return_exceptions=True)
            assert all(isinstance(each, DependencyError) for each in refused)
            with pytest.raises(DependencyError):
                await rig.scorer.score_many(PAYMENTS[20:30], received_at=HISTORY_END)
            rig.bring_back()
            await rig.settled()
            answers = [await rig.score(payment) for payment in PAYMENTS[20:30]]
            assert [said(answer, "degraded") for answer in answers] == [[]] * 10
            assert rig.ledger.last_sequence() == 30
            await rig.check()

    run(work)


@both_policies
@both_ways
def test_groups_on_their_way_when_the_ledger_goes_are_kept_or_refused_and_the_state_follows(
    settings: Settings, policy: str, at_once: bool
):
    async def work() -> None:
        async with LiveRig(settings, policy=policy, at_once=at_once) as rig:
            tasks = [asyncio.create_task(rig.score(payment)) for payment in PAYMENTS[:50]]
            await turns(1)
            rig.take_away()
            tasks += [asyncio.create_task(rig.score(payment)) for payment in PAYMENTS[50:60]]
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            rig.bring_back()
            await rig.check()
            for payment, outcome in zip(PAYMENTS, outcomes, strict=False):
                record = rig.ledger.decision(payment.transaction_id)
                if isinstance(outcome, bytes):
                    assert record is not None
                    assert record.payload.encode() == outcome
                else:
                    assert policy == "refuse"
                    assert isinstance(outcome, DependencyError)
                    assert record is None

    run(work)


@pytest.mark.parametrize("probe_s", [0.02, 0.3], ids=["the journal is replayed first", "the ledger is seen first"])
def test_a_full_journal_refuses_and_the_state_has_what_it_kept(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, probe_s: float
):
    monkeypatch.setattr(group_commit, "PROBE_S", probe_s)

    async def work() -> None:
        async with LiveRig(settings, journal_limit=5) as rig:
            await rig.score(PAYMENTS[0])
            rig.take_away()
            kept = [await rig.score(payment) for payment in PAYMENTS[1:6]]
            with pytest.raises(DependencyError, match="5 are allowed"):
                await rig.score(PAYMENTS[6])
            with pytest.raises(DependencyError):
                await rig.score(PAYMENTS[7])
            rig.bring_back()
            await rig.check()
            assert [rig.answer_of(payment.transaction_id) for payment in PAYMENTS[1:6]] == kept
            assert said(await rig.score(PAYMENTS[6]), "degraded") == []
            await rig.check()

    run(work)


def test_a_payment_that_a_label_waits_for_does_not_shut_the_journals_way(settings: Settings):
    async def work() -> None:
        async with LiveRig(settings) as rig:
            await rig.scorer.record_labels([label(PAYMENTS[1])])
            rig.take_away()
            with pytest.raises(FraudError):
                await rig.score(PAYMENTS[1])
            assert said(await rig.score(PAYMENTS[2]), "degraded") == ["ledger"]
            rig.bring_back()
            await rig.check()
            assert said(await rig.score(PAYMENTS[1]), "degraded") == []
            await rig.check()
            assert rig.ledger.waiting_ids() == set()

    run(work)


def test_a_repeat_of_a_recorded_payment_during_an_outage_makes_the_state_follow_the_ledger(settings: Settings):
    async def work() -> None:
        async with LiveRig(settings) as rig:
            first = await rig.score(PAYMENTS[0])
            rig.take_away()
            assert said(await rig.score(PAYMENTS[0]), "degraded") == ["ledger"]
            await rig.score(PAYMENTS[1])
            rig.bring_back()
            await rig.check()
            assert await rig.score(PAYMENTS[0]) == first
            assert [e.transaction for e in rig.ledger.read_log()] == PAYMENTS[:2]

    run(work)


def test_a_state_is_not_renewed_while_the_journal_holds_a_part_of_the_log(settings: Settings):
    async def work() -> None:
        async with LiveRig(settings) as rig:
            await rig.score(PAYMENTS[0])
            rig.take_away()
            await rig.score(PAYMENTS[1])
            with pytest.raises(FraudError):
                await rig.scorer.renew()
            rig.bring_back()
            await rig.settled()
            await rig.scorer.renew()
            await rig.check()

    run(work)


@both_policies
def test_a_scorer_that_stops_without_its_ledger_keeps_no_checkpoint(settings: Settings, policy: str):
    async def work() -> None:
        rig = LiveRig(settings, policy=policy)
        async with rig:
            await rig.score(PAYMENTS[0])
            rig.take_away()
            await asyncio.gather(rig.score(PAYMENTS[1]), return_exceptions=True)
            await rig.close()
        assert rig.kept is None
        rig.bring_back()

    run(work)


@pytest.mark.parametrize("seed", range(4))
def test_any_mixture_leaves_the_state_of_the_log(settings: Settings, seed: int):
    run(lambda: _mixture(settings, random.Random(seed), policy="journal", outages=False, at_once=bool(seed % 2)))


@both_policies
@pytest.mark.parametrize("seed", range(4))
def test_any_mixture_with_outages_loses_nothing_and_leaves_the_state_of_the_log(
    settings: Settings, seed: int, policy: str
):
    run(lambda: _mixture(settings, random.Random(seed), policy=policy, outages=True, at_once=bool(seed % 2)))


@pytest.mark.parametrize("seed", range(2))
def test_a_mixture_on_postgres_whose_server_ends_the_connections_leaves_the_state_of_the_log(
    settings: Settings, postgres_url: str, seed: int
):
    promotion = append_promotion(postgres_url, 1, read_directory(made_bundle())[1])
    assert promotion.promotion_id == 1
    served = settings.model_copy(update={"ledger_url": postgres_url})
    chance = random.Random(seed)

    async def work() -> None:
        async with LiveRig(served) as rig:
            for start in range(0, 96, 12):
                tasks = [asyncio.create_task(_one(rig, chance, start, {})) for _ in range(14)]
                await turns(chance.randrange(10))
                if start % 24:
                    await asyncio.to_thread(end_sessions, postgres_url)
                for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                    assert outcome is None or isinstance(outcome, FraudError), outcome
            await rig.settled()
            await rig.scorer.score(PAYMENTS[200], received_at=HISTORY_END)  # any doubt is resolved behind it
            await rig.check()

    run(work)


async def _mixture(settings: Settings, chance: random.Random, *, policy: str, outages: bool, at_once: bool) -> None:
    """Rounds of scores, batches, repeats, conflicts and labels side by side, some callers going away."""
    answered: dict[str, set[bytes]] = {}
    async with LiveRig(settings, policy=policy, at_once=at_once) as rig:
        for start in range(0, 120, 12):
            tasks = [asyncio.create_task(_one(rig, chance, start, answered)) for _ in range(14)]
            for _ in range(chance.randrange(4)):
                await turns(chance.randrange(4))
                chance.choice(tasks).cancel()
            if outages and chance.random() < 0.5:
                rig.take_away()
                tasks += [asyncio.create_task(_one(rig, chance, start, answered)) for _ in range(8)]
                await turns(chance.randrange(30))
                if chance.random() < 0.6:
                    await asyncio.wait(tasks)
                rig.bring_back()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            for outcome in done:
                assert outcome is None or isinstance(outcome, FraudError | asyncio.CancelledError), outcome
            if chance.random() < 0.3:
                await rig.check()
        await rig.check()
        for identity, answers in answered.items():
            stored = rig.answer_of(identity)
            assert {a for a in answers if "ledger" not in said(a, "degraded")} <= {stored}  # type: ignore[operator]
            assert len(answers) == 1 or outages


async def _one(rig: LiveRig, chance: random.Random, start: int, answered: dict[str, set[bytes]]) -> None:
    payment = chance.choice(PAYMENTS[max(0, start - 12) : start + 12])
    kind = chance.random()
    await turns(chance.randrange(6))
    if kind < 0.5:
        answer = await rig.score(payment)
        answered.setdefault(payment.transaction_id, set()).add(answer)
    elif kind < 0.6:
        await rig.score(*changed([payment]))
    elif kind < 0.75:
        batch = chance.sample(PAYMENTS[max(0, start - 12) : start + 24], 10)
        for sent, each in zip(batch, await rig.scorer.score_many(batch, received_at=HISTORY_END), strict=True):
            if isinstance(each, bytes):
                answered.setdefault(sent.transaction_id, set()).add(each)
    else:
        author = chance.choice(["ann", "bob"])
        await rig.scorer.record_labels([label(payment, is_fraud=chance.random() < 0.7, author=author)])
