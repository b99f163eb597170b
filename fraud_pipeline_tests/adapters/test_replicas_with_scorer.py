"""REST replicas and the stream's scorer over the same topics, against batch: what callers were told is what the log gives."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

from fraud_pipeline.adapters.local_services.kafka_server import KafkaServer
from fraud_pipeline.adapters.local_services.valkey_server import ValkeyServer
from fraud_pipeline.domain.transaction import Label
from fraud_pipeline.errors import FraudError
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.replica_rig import now
from fraud_pipeline_tests.replica_stream import replica_running, replica_settings, until
from fraud_pipeline_tests.scored_replicas import (
    caught_up,
    judged,
    ledger_answers,
    past_payments,
    payment_of,
    produce,
    routed,
    stream_running,
)

CUSTOMERS = 12


@pytest.fixture
def settings(tmp_path: Path, kafka: KafkaServer, valkey: ValkeyServer) -> Settings:
    return replica_settings(tmp_path, kafka=kafka.address, valkey=valkey.address)


def test_what_two_replicas_answer_is_what_batch_gives_over_the_log(settings: Settings):
    chance = Random(3)
    answers: dict[str, bytes | FraudError] = {}

    async def work() -> None:
        with stream_running(settings) as stream:
            past = past_payments(120, customers=CUSTOMERS)
            produce(settings, past)
            async with replica_running(settings) as one, replica_running(settings) as other:
                await caught_up(stream, one)
                await caught_up(stream, other)
                for wave in range(12):
                    made = [payment_of(f"r-{wave}-{number}", now(), chance, CUSTOMERS) for number in range(10)]
                    produce(settings, [payment_of(f"d-{wave}-{i}", now(), chance, 5, kind="direct") for i in range(3)])
                    asked = [
                        routed((one, other), payment).ready_scorer().score(payment, received_at=now())
                        for payment in made
                    ]
                    found = await asyncio.gather(*asked)
                    answers.update({p.transaction_id: answer for p, answer in zip(made, found, strict=True)})
                    if wave == 4:
                        labels = [Label(each.transaction_id, True, "chargeback", "bank", now()) for each in past[:20]]
                        await one.ready_scorer().record_labels(labels)
                        batch = [payment_of(f"b-{number}", now(), chance, CUSTOMERS) for number in range(60)]
                        for each in (one, other):
                            mine = [payment for payment in batch if routed((one, other), payment) is each]
                            found = await each.ready_scorer().score_many(mine, received_at=now())
                            answers.update({p.transaction_id: a for p, a in zip(mine, found, strict=True)})
                assert await routed((other, one), made[0]).ready_scorer().score(made[0], received_at=now()) == found[0]
                await caught_up(stream, one)
            ledger: dict[str, bytes] = {}

            def kept() -> bool:
                ledger.update(ledger_answers(settings))
                return answers.keys() <= ledger.keys()

            await until(kept)
            assert {identity: ledger[identity] for identity in answers} == answers

    asyncio.run(work())
    content = judged(settings)
    assert content.parity.equal
    assert content.passed_on == answers.keys()
    assert {identity: content.decisions[identity].to_json() for identity in answers} == answers
    assert content.parity.labels == 20
    assert content.parity.degraded_decisions == 0
