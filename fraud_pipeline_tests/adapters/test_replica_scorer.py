"""REST replicas on the log: one answer per id whoever is asked, exact own history, and nothing lost whatever is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest

from fraud_pipeline.adapters import replica_scorer
from fraud_pipeline.adapters.claims import Claim, fingerprint_of
from fraud_pipeline.adapters.kafka import relay
from fraud_pipeline.adapters.ledger_records import DecisionRecord, LedgerEntry
from fraud_pipeline.adapters.local_journal import JournalFull
from fraud_pipeline.adapters.replica import Replica
from fraud_pipeline.adapters.replica_journal import ReplicaJournal
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.errors import Busy, ConflictingTransaction, FraudError
from fraud_pipeline_tests.replica_rig import ReplicaRig, now, until
from fraud_pipeline_tests.serving.home import empty_home


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ReplicaRig]:
    made = ReplicaRig(empty_home(tmp_path / "home"))
    yield made
    made.close()


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    asyncio.run(main())


def payments(count: int, *, customers: int = 3, seed: int = 1) -> list[Transaction]:
    """Of few customers, minutes apart, the last one now."""
    chance, start = Random(seed), now() - timedelta(minutes=3 * count)
    return [
        Transaction(
            f"p-{number}", start + timedelta(minutes=3 * number), f"customer-{number % customers}",
            f"merchant-{chance.randrange(4)}", chance.randrange(1, 90_000), country=chance.choice(["DE", "FR", None]),
            device_id=chance.choice([None, "d-1", "d-2"]),
        )
        for number in range(count)
    ]  # fmt: skip


async def score(replica: Replica, payment: Transaction) -> dict[str, Any]:
    return orjson.loads(await replica.scorer.score(payment, received_at=now()))


def test_the_same_payment_again_gets_the_same_bytes_here_and_elsewhere_and_the_log_has_it_once(rig: ReplicaRig):
    async def work() -> None:
        async with rig.replica() as one, rig.replica() as other:
            first = await one.scorer.score(PAYMENT, received_at=now())
            assert await one.scorer.score(PAYMENT, received_at=now()) == first
            assert await other.scorer.score(PAYMENT, received_at=now()) == first
            await rig.relayed(one, other)
            assert await other.scorer.score(PAYMENT, received_at=now()) == first
            assert await one.scorer.score(PAYMENT, received_at=now()) == first
        assert rig.log.payments() == [PAYMENT]
        assert rig.log.decisions()[PAYMENT.transaction_id].to_json() == first
        assert orjson.loads(first)["degraded"] == []

    run(work)


PAYMENT = payments(1)[0]


def test_the_same_payment_at_many_replicas_at_once_is_decided_once(rig: ReplicaRig):
    async def work() -> None:
        async with rig.replica() as one, rig.replica() as two, rig.replica() as three:
            asked = [each.scorer.score(PAYMENT, received_at=now()) for each in (one, two, three) for _ in range(3)]
            assert len(set(await asyncio.gather(*asked))) == 1
            await rig.relayed(one, two, three)
        assert rig.log.payments() == [PAYMENT]
        assert rig.metrics.repeats == 8

    run(work)


def test_an_id_with_another_content_is_refused_wherever_it_is_asked_and_the_field_is_named(rig: ReplicaRig):
    async def work() -> None:
        async with rig.replica() as one, rig.replica() as other:
            await score(one, PAYMENT)
            for replica in (one, other):
                with pytest.raises(ConflictingTransaction, match="another amount"):
                    await score(replica, replace(PAYMENT, amount_minor=PAYMENT.amount_minor + 1))
            asked = [score(one, replace(PAYMENT, transaction_id="x", amount_minor=n)) for n in (1, 2)]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            assert sum(isinstance(each, ConflictingTransaction) for each in answers) == 1

    run(work)


@pytest.mark.parametrize("seed", range(4))
def test_own_history_is_exact_however_far_the_view_is_behind(rig: ReplicaRig, seed: int):
    async def work() -> None:
        chance, made = Random(seed), payments(60, seed=seed)
        async with rig.replica() as replica:
            for payment in made:
                assert (await score(replica, payment))["degraded"] == []
                if chance.random() < 0.3:
                    rig.scorer.follow(most=chance.randrange(4))
            await rig.relayed(replica)
        expected = rig.expected(made)
        decided = rig.log.decisions()
        assert {each: rig.own_part(decided[each]) for each in decided} == expected

    run(work)


def test_a_batch_is_decided_in_the_order_of_its_times_and_answered_in_its_own(rig: ReplicaRig):
    async def work() -> None:
        made = payments(450)
        mixed = [*made[10:], *made[:10], made[3], replace(made[4], amount_minor=7)]
        async with rig.replica() as replica:
            answers = await replica.scorer.score_many(mixed, received_at=now())
            ids = [orjson.loads(each)["transaction_id"] if isinstance(each, bytes) else each for each in answers]
            assert ids[:-1] == [each.transaction_id for each in mixed[:-1]]
            assert isinstance(ids[-1], ConflictingTransaction)
            assert answers[-2] == answers[mixed.index(made[3])]
            await rig.relayed(replica)
        decided = rig.log.decisions()
        assert {each: rig.own_part(decided[each]) for each in decided} == rig.expected(made)

    run(work)


def test_a_record_that_cannot_be_read_costs_its_customer_words_and_the_rest_of_the_batch_nothing(rig: ReplicaRig):
    async def work() -> None:
        made = payments(60)
        async with rig.replica() as replica:
            await replica.scorer.score_many(made[:30], received_at=now())
            await rig.relayed(replica)
            rig.scorer.follow()
        writer, offset, _ = rig.server.customers["customer-1"]
        rig.server.customers["customer-1"] = writer, offset, b"of another schema"
        async with rig.replica() as replica:
            answers = await replica.scorer.score_many(made[30:], received_at=now())
            assert replica.features.damaged == 1
            await rig.relayed(replica)
        expected, decided = rig.expected(made), rig.log.decisions()
        for payment, answer in zip(made[30:], answers, strict=True):
            assert isinstance(answer, bytes)
            if payment.customer_id == "customer-1":
                assert orjson.loads(answer)["degraded"] == ["state_view"]
            else:
                assert orjson.loads(answer)["degraded"] == []
                assert rig.own_part(decided[payment.transaction_id]) == expected[payment.transaction_id]

    run(work)


def test_a_view_that_came_back_with_an_old_snapshot_counts_as_not_whole(rig: ReplicaRig):
    async def work() -> None:
        made = payments(12, customers=1)
        async with rig.replica() as replica:
            await replica.scorer.score_many(made[:10], received_at=now())
            await rig.relayed(replica)
            snapshot = dict(rig.server.customers), dict(rig.server.reach)
            rig.scorer.follow()
            replica.own.passed(rig.server.reach)
            assert len(replica.own) == 0
            rig.server.customers, rig.server.reach = snapshot
            assert (await score(replica, made[10]))["degraded"] == ["state_view"]
            rig.scorer.follow()
            assert (await score(replica, made[11]))["degraded"] == []
            await rig.relayed(replica)

    run(work)


def test_without_the_log_decisions_say_so_and_wait_in_the_journal_and_all_arrive_in_order(rig: ReplicaRig):
    async def work() -> None:
        made = payments(30)
        async with rig.replica() as replica:
            await score(replica, made[0])
            await rig.relayed(replica)
            rig.log.away = True
            await score(replica, made[1])
            await until(lambda: replica.relay.late)
            for payment in made[2:]:
                assert (await score(replica, payment))["degraded"] == ["log"]
            assert replica.health()["log"]["status"] == "away"
            assert len(replica.journal) == 29
            rig.log.away = False
            await rig.relayed(replica)
            assert not replica.relay.late
        for partition in (0, 1):
            mine = [each for each in made if replica.writer_of(each.customer_id) == f"transactions[{partition}]"]
            assert rig.log.payments_of(partition) == mine
        decided = rig.log.decisions()
        assert {each: rig.own_part(decided[each]) for each in decided} == rig.expected(made)

    run(work)


def test_a_full_journal_refuses_and_gives_the_id_up(tmp_path: Path):
    rig = ReplicaRig(empty_home(tmp_path / "home"), journal_limit=2)

    async def work() -> None:
        made = payments(4)
        async with rig.replica() as replica, rig.replica() as other:
            rig.log.away = True
            for payment in made[:2]:
                await score(replica, payment)
            with pytest.raises(JournalFull, match="FRAUD_JOURNAL_LIMIT"):
                await score(replica, made[2])
            assert (await score(other, made[2]))["transaction_id"] == "p-2"
            rig.log.away = False
            await rig.relayed(replica, other)
            await score(replica, made[3])
        assert sorted(each.transaction_id for each in rig.log.payments()) == ["p-0", "p-1", "p-2", "p-3"]

    run(work)
    rig.close()


@pytest.mark.parametrize("arrived", [0, 4, 10])
def test_a_killed_replica_loses_nothing_and_counts_nothing_twice(rig: ReplicaRig, arrived: int):
    async def work() -> None:
        made = payments(14)
        dead = rig.make()
        await dead.start()
        rig.log.away = True
        answers = [await dead.scorer.score(each, received_at=now()) for each in made[:10]]
        await kill(dead)
        rig.log.away = False
        deliver(rig, arrived)
        rig.scorer.follow()
        async with rig.replica() as replica:
            for payment, answer in zip(made[:10], answers, strict=True):
                assert await replica.scorer.score(payment, received_at=now()) == answer
            for payment in made[10:]:
                await score(replica, payment)
            await rig.relayed(replica)
            rig.scorer.follow()
        decided = rig.log.decisions()
        assert {each: decided[each].to_json() for each in decided if int(each[2:]) < 10} == {
            each.transaction_id: answer for each, answer in zip(made, answers, strict=False)
        }
        assert {each: rig.own_part(decided[each]) for each in decided} == rig.expected(made)

    run(work)


def deliver(rig: ReplicaRig, count: int) -> None:
    """The log gets the first rows of a dead replica's journal, which never learns it."""
    journal = ReplicaJournal(rig.settings.home / "replicas" / "journal-0.db", limit=100)
    assert journal.take()
    producer = rig.log.producer()
    for row in journal.after(0, count):
        headers = [("type", b"transaction"), ("decision", row.decision)]
        producer.produce("transactions", row.value, row.key, headers=headers, on_delivery=lambda *_: None)
    producer.poll(0)
    journal.close()


async def kill(replica: Replica) -> None:
    """As if the process had ended while the log was away: the journal has what was answered, and its lock is free."""
    await replica.close()


@pytest.fixture(autouse=True)
def _nobody_waits_for_the_log_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "CLOSE_S", 0.0)


def test_a_replica_relays_what_others_left_in_their_journals(rig: ReplicaRig):
    async def work() -> None:
        made = payments(6)
        rig.log.away = True
        dead = [rig.make(), rig.make()]
        for number, each in enumerate(dead):
            await each.start()
            for payment in made[3 * number : 3 * number + 3]:
                await score(each, payment)
        for each in dead:
            await kill(each)
        rig.log.away = False
        async with rig.replica() as replica:
            await rig.relayed(replica)
        assert sorted(each.transaction_id for each in rig.log.payments()) == [f"p-{n}" for n in range(6)]

    run(work)


def test_without_the_view_decisions_say_so_and_go_on(rig: ReplicaRig):
    async def work() -> None:
        made = payments(12, customers=1)
        async with rig.replica() as replica:
            await score(replica, made[0])
            rig.server.away = True
            for payment in made[1:6]:
                assert (await score(replica, payment))["degraded"] == ["state_view"]
            assert await score(replica, made[5]) == await score(replica, made[5])
            rig.server.away = False
            await rig.relayed(replica)
            rig.server.lose_everything()
            for payment in made[6:9]:
                assert (await score(replica, payment))["degraded"] == ["state_view"]
            await rig.relayed(replica)
            rig.scorer.follow()
            for payment in made[9:]:
                assert (await score(replica, payment))["degraded"] == []
            await rig.relayed(replica)
        decided = rig.log.decisions()
        # One replica, and nothing else pays: even what it decided without the view is exact.
        assert {each: rig.own_part(decided[each]) for each in decided} == rig.expected(made)

    run(work)


def test_shared_minutes_that_are_not_there_yet_are_said(rig: ReplicaRig):
    async def work() -> None:
        rig.shared.exact = False
        async with rig.replica() as replica:
            assert (await score(replica, PAYMENT))["degraded"] == ["shared_state_lag"]

    run(work)


def test_an_id_of_long_ago_is_answered_from_the_ledger_and_so_is_another_replica_then(rig: ReplicaRig):
    answer = b'{"transaction_id":"p-0","long":"ago"}'
    record = DecisionRecord(PAYMENT.transaction_id, now(), "APPROVE", 0.01, "1", answer.decode(), b"")
    rig.ledger.append([LedgerEntry(PAYMENT, now(), decision=record)])

    async def work() -> None:
        async with rig.replica() as one:
            assert await one.scorer.score(PAYMENT, received_at=now()) == answer
            with pytest.raises(ConflictingTransaction):
                await score(one, replace(PAYMENT, country="NZ"))
            await until(lambda: rig.server.claims[PAYMENT.transaction_id].answer == answer)
        assert rig.log.payments() == []

    run(work)


def test_an_id_that_a_replica_claimed_and_never_decided_is_busy_until_its_claim_ends(
    rig: ReplicaRig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(replica_scorer, "CLAIM_WAIT_S", 0.05)
    rig.server.claims[PAYMENT.transaction_id] = Claim(fingerprint_of(PAYMENT), b"somebody")

    async def work() -> None:
        async with rig.replica() as replica:
            with pytest.raises(Busy, match="p-0 is being decided by another replica"):
                await score(replica, PAYMENT)
            asked = asyncio.create_task(score(replica, PAYMENT))
            await asyncio.sleep(0)
            del rig.server.claims[PAYMENT.transaction_id]
            assert (await asked)["transaction_id"] == "p-0"

    run(work)


def test_where_another_replica_was_quicker_its_answer_counts_and_ours_never_reaches_the_log(rig: ReplicaRig):
    """Its claim ran out while it was held up, or the view had lost it."""
    theirs = Claim(fingerprint_of(PAYMENT), b"", b'{"theirs":true}')

    async def work() -> None:
        async with rig.replica() as replica:
            settle = replica.commits._view.settle

            def late(decided: Any) -> Any:
                rig.server.claims[PAYMENT.transaction_id] = theirs
                return settle(decided)

            replica.commits._view.settle = late
            assert await replica.scorer.score(PAYMENT, received_at=now()) == theirs.answer
            await rig.relayed(replica)
            assert replica.scorer.overtaken == 1
            assert len(replica.own) == 0
        assert rig.log.payments() == []

    run(work)


def test_a_stop_answers_what_is_on_its_way_and_then_refuses(rig: ReplicaRig):
    async def work() -> None:
        async with rig.replica() as replica:
            asked = [asyncio.create_task(score(replica, each)) for each in payments(20)]
            await asyncio.sleep(0)
        assert [orjson.dumps(await each)[:1] for each in asked] == [b"{"] * 20
        with pytest.raises(FraudError, match="stopping"):
            await score(replica, payments(21)[20])
        assert len(rig.log.payments()) == 20

    run(work)
