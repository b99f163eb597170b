"""The scorer's loop on a log in a file: whatever fails, each payment is decided once and as batch would."""

from __future__ import annotations

import random
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline_tests.event_logs import EmbeddedRig
from fraud_pipeline_tests.memory_stream import payments
from fraud_pipeline_tests.scorer_rig import (
    NOW,
    START,
    Scorer,
    decided,
    label,
    letters,
    models,
    parity,
    pay,
    plain,
    promote,
    put,
    scorer,
)


@pytest.fixture
def rig(tmp_path: Path) -> EmbeddedRig:
    return EmbeddedRig(tmp_path)


def some_stream(rig: EmbeddedRig, chance: random.Random, count: int) -> set[str]:
    """Payments with repeats, conflicts, late ones, labels and bad messages between them; the ids that are to be decided."""
    made = payments(count, start=START, step=timedelta(seconds=31), customers=9)
    for number, payment in enumerate(made):
        kind = chance.random()
        if kind < 0.05:
            made[number] = replace(payment, event_time=payment.event_time - timedelta(minutes=20))
        pay(rig, [made[number]])
        if kind > 0.95:
            pay(rig, [chance.choice(made[: number + 1])])
        elif kind > 0.90:
            pay(rig, [replace(chance.choice(made[: number + 1]), amount_minor=1)])
        elif kind > 0.80:
            label(rig, chance.choice(made[: number + 1]), payment.event_time, change=chance.choice([1, 1, -1, 0]))
        elif kind > 0.77:
            put(rig, plain(b"{", b"c%d" % chance.randrange(9)))
    return {payment.transaction_id for payment in made}


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32 - 1))
def test_whatever_fails_each_payment_is_decided_once_and_as_batch_would(seed: int) -> None:
    """Transactions taken back, scorers killed at any step, checkpoints kept now and then and lost at times."""
    chance = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="scorer-"))
    try:
        rig = EmbeddedRig(folder, partitions=chance.choice([1, 2, 4]))
        ids = some_stream(rig, chance, 120)
        aborts = chance.choice([0.0, 0.3, 0.7])
        batch = chance.choice([3, 20, 200])
        for _ in range(chance.randrange(4)):
            made = Scorer(rig, folder / "kept", models(), fails=lambda: chance.random() < aborts, max_batch=batch)
            for _ in range(chance.randrange(25)):
                made.loop.step()
                if chance.random() < 0.15:
                    made.keep()
            made.kill()
            if chance.random() < 0.2:
                shutil.rmtree(folder / "kept", ignore_errors=True)
        with scorer(rig, folder / "kept", fails=lambda: chance.random() < aborts, max_batch=batch) as last:
            last.work()
        report = parity(rig)
        assert report.equal, report
        assert report.degraded_decisions == 0
        found = decided(rig)
        assert set(found) == ids
        assert all(len(each) == 1 for each in found.values())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("seed", range(5))
def test_batches_written_while_the_next_are_decided_are_the_same(rig: EmbeddedRig, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    ids = some_stream(rig, chance, 300)
    fails, batch = lambda: chance.random() < 0.3, chance.choice([3, 20])
    with ThreadPoolExecutor(1) as executor, scorer(rig, tmp_path / "kept", fails=fails, max_batch=batch) as one:
        one.loop._executor = executor
        one.work()
        one.loop.finish()
        assert one.metrics.decided_ahead > 0
        assert one.metrics.aborted > 0
        one.keep()
    assert parity(rig).equal
    assert set(decided(rig)) == ids


def test_the_comparison_finds_what_differs(rig: EmbeddedRig, tmp_path: Path) -> None:
    """The negative controls: a payment that nobody decided, and one that the scorer's state did not have."""
    made = payments(40, start=START, customers=3)
    pay(rig, made[:30])
    with scorer(rig, tmp_path / "kept") as one:
        one.work()
        pay(rig, made[30:])
        assert parity(rig).lost == 10
        one.work()
    assert parity(rig).equal
    first = rig.content(rig.topics.transactions)
    for records in first.values():
        del records[1:2]
    assert not parity(rig, first).equal


def test_without_a_champion_it_waits_and_loses_nothing(rig: EmbeddedRig, tmp_path: Path) -> None:
    pay(rig, payments(20, start=START))
    slot = models(None)
    with scorer(rig, tmp_path / "kept", slot) as one:
        assert one.loop.step() == 0
        assert one.loop.step() == 0
        assert not decided(rig)
        assert one.behind == 20
        promote(slot, "1")
        one.work()
    assert len(decided(rig)) == 20
    assert parity(rig).equal


def test_after_a_promotion_every_decision_names_the_new_version(rig: EmbeddedRig, tmp_path: Path) -> None:
    made = payments(300, start=START)
    slot = models("1")
    with scorer(rig, tmp_path / "kept", slot, max_batch=10) as one:
        pay(rig, made[:150])
        for _ in range(6):
            one.loop.step()
        before = set(decided(rig))
        promote(slot, "2")
        pay(rig, made[150:])
        one.work()
    found = decided(rig)
    assert len(found) == 300
    assert 0 < len(before) < 150
    assert {each.model_version for name in before for each in found[name]} == {"1"}
    assert {each.model_version for name in set(found) - before for each in found[name]} == {"2"}
    report = parity(rig)
    assert report.equal
    assert report.versions == {"1": len(before), "2": 300 - len(before)}


def test_a_stop_leaves_a_place_to_go_on_from(rig: EmbeddedRig, tmp_path: Path) -> None:
    pay(rig, payments(100, start=START))
    with scorer(rig, tmp_path / "kept", max_batch=10) as one:
        for _ in range(5):
            one.loop.step()
        one.keeper.keep_now(one.loop.owned)
        stood = {partition: state.offset for partition, state in one.loop.owned.items()}
    with scorer(rig, tmp_path / "kept") as two:
        two.loop.step()
        assert two.metrics.replayed_events == 0
        assert all((two.log.position(each) or 0) >= offset for each, offset in stood.items())
        two.work()
    assert len(decided(rig)) == 100
    assert parity(rig).equal


def test_a_repeat_decides_nothing_and_other_content_is_a_dead_letter(rig: EmbeddedRig, tmp_path: Path) -> None:
    payment = payments(1, start=START)[0]
    pay(rig, [payment, payment, replace(payment, amount_minor=payment.amount_minor + 1)])
    with scorer(rig, tmp_path / "kept") as one:
        one.work()
        pay(rig, [payment])
        one.work()
        assert one.metrics.repeats == 2
        assert one.metrics.dead_letters == {"id_conflict": 1}
    assert [len(each) for each in decided(rig).values()] == [1]
    assert [code for code, _ in letters(rig)] == ["id_conflict"]


def test_idle_minutes_end_by_the_clock_and_a_successor_closes_them_there_too(rig: EmbeddedRig, tmp_path: Path) -> None:
    made = payments(30, start=NOW - timedelta(minutes=20), step=timedelta(seconds=20))
    with scorer(rig, tmp_path / "a", now=NOW) as one:
        pay(rig, made)
        one.work()
        while min(state.closed for state in one.loop.owned.values()) * 60 < NOW.timestamp() - 200:
            one.loop.step()
    with scorer(rig, tmp_path / "b", now=NOW) as two:  # from the log alone
        late = Transaction("late", NOW - timedelta(minutes=9), "c1", "m1", 100)
        pay(rig, [late, replace(late, transaction_id="later", event_time=NOW)])
        two.work()
    report = parity(rig)
    assert report.equal, report
    assert report.payments == 32


def test_a_second_scorer_of_the_file_does_not_start(rig: EmbeddedRig, tmp_path: Path) -> None:
    from fraud_pipeline.errors import Busy

    with scorer(rig, tmp_path / "kept"), pytest.raises(Busy, match="Another process scores"):
        Scorer(rig, tmp_path / "kept", models())
