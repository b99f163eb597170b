"""What the records of a batch become: decisions of both roles, alerts, decisions that came along; and nothing of what failed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from fraud_pipeline.adapters.kafka.messages import SOURCE, decision_value, header_text, read_alert, transaction_message
from fraud_pipeline_tests.event_logs import EmbeddedRig
from fraud_pipeline_tests.memory_stream import payments
from fraud_pipeline_tests.scorer_rig import START, decided, models, parity, pay, put, scorer, written
from fraud_pipeline_tests.sink_rig import decision

MADE = payments(200, start=START)


@pytest.fixture
def rig(tmp_path: Path) -> EmbeddedRig:
    return EmbeddedRig(tmp_path)


def test_every_decision_says_where_its_payment_stands(rig: EmbeddedRig, tmp_path: Path) -> None:
    pay(rig, MADE)
    with scorer(rig, tmp_path / "kept") as one:
        one.work()
    log = rig.content(rig.topics.transactions)
    for each in written(rig):
        assert each.decision.transaction_id.encode() in (log[each.partition][each.offset].value or b"")
    for partition, records in rig.content(rig.topics.decisions).items():
        sources = [header_text(record.headers, SOURCE) or "" for record in records]
        assert all(source.startswith(f"{rig.topics.transactions}[{partition}]@") for source in sources)
        assert [record.key for record in records] == [log[partition][i].key for i in range(len(records))]


def test_what_is_not_approved_is_an_alert_and_nothing_else_is(rig: EmbeddedRig, tmp_path: Path) -> None:
    pay(rig, MADE)
    with scorer(rig, tmp_path / "kept") as one:
        one.work()
        counted = one.metrics.decisions
    found = Counter(each[0].decision for each in decided(rig).values())
    assert {(verdict, "1"): count for verdict, count in found.items()} == counted
    assert found["APPROVE"] < len(MADE)
    raised = [
        read_alert(record.value) for every in rig.content(rig.topics.alerts).values() for record in every
    ]  # fmt: skip
    wanted = {name: each[0].decision for name, each in decided(rig).items() if each[0].decision != "APPROVE"}
    assert {alert.transaction_id: alert.decision for alert in raised} == wanted
    assert len(raised) == len(wanted)


def test_a_challenger_scores_everything_in_shadow(rig: EmbeddedRig, tmp_path: Path) -> None:
    pay(rig, MADE)
    with scorer(rig, tmp_path / "kept", models("1", challenger="2")) as one:
        one.work()
        assert one.metrics.shadow_decisions == len(MADE)
    first, shadow = decided(rig), decided(rig, "shadow")
    assert first.keys() == shadow.keys() == {payment.transaction_id for payment in MADE}
    assert {each.model_version for every in first.values() for each in every} == {"1"}
    assert {each.model_version for every in shadow.values() for each in every} == {"2"}
    assert all(first[name][0].features == shadow[name][0].features for name in first)
    assert len([r for every in rig.content(rig.topics.alerts).values() for r in every]) == sum(
        each[0].decision != "APPROVE" for each in first.values()
    )
    assert parity(rig).equal


def test_a_challenger_with_a_share_decides_for_its_customers(rig: EmbeddedRig, tmp_path: Path) -> None:
    pay(rig, MADE)
    with scorer(rig, tmp_path / "kept", models("1", challenger="2", share=0.5)) as one:
        one.work()
    customers = {payment.transaction_id: payment.customer_id for payment in MADE}
    by_version: dict[str, set[str]] = {"1": set(), "2": set()}
    for name, each in decided(rig).items():
        by_version[each[0].model_version].add(customers[name])
    assert by_version["1"]
    assert by_version["2"]
    assert not by_version["1"] & by_version["2"]
    for name, each in decided(rig, "shadow").items():
        assert {each[0].model_version, decided(rig)[name][0].model_version} == {"1", "2"}
        break
    assert parity(rig).equal


@pytest.mark.parametrize("verdict", ["APPROVE", "BLOCK"])
def test_a_decision_that_came_along_is_passed_on_and_nobody_decides_again(
    rig: EmbeddedRig, tmp_path: Path, verdict: str
) -> None:
    payment = MADE[0]
    given = replace(decision(payment, verdict), model_version="replica")
    message = transaction_message(payment, decision=decision_value(given, customer_id=payment.customer_id))
    put(rig, (message.key, message.value, list(message.headers)))
    pay(rig, [replace(payment, transaction_id="next", event_time=MADE[9].event_time)])
    with scorer(rig, tmp_path / "kept", models("1", challenger="2")) as one:
        one.work()
        assert one.metrics.passed_on == 1
    assert decided(rig)[payment.transaction_id] == [given]
    assert list(decided(rig, "shadow")) == ["next"]
    alerts = [read_alert(r.value).transaction_id for every in rig.content(rig.topics.alerts).values() for r in every]
    assert (payment.transaction_id in alerts) == (verdict == "BLOCK")


def test_a_batch_that_is_taken_back_is_counted_once(rig: EmbeddedRig, tmp_path: Path) -> None:
    pay(rig, [*MADE[:50], *MADE[:5]])
    failures = iter([True, True, False, True])
    with scorer(rig, tmp_path / "kept", fails=lambda: next(failures, False)) as one:
        one.work()
        assert one.metrics.aborted == 3
        assert one.metrics.records == 55
        assert one.metrics.repeats == 5
        assert sum(one.metrics.decisions.values()) == 50
    assert all(len(each) == 1 for each in decided(rig).values())
    assert parity(rig).equal
