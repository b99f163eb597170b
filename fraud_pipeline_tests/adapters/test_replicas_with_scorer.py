"""REST replicas and the stream's scorer over the same topics, against batch: what callers were told is what the log gives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import orjson
import pytest
import redis

from fraud_pipeline.adapters.local_services.kafka_server import KafkaServer
from fraud_pipeline.adapters.local_services.valkey_server import ValkeyServer
from fraud_pipeline.domain.transaction import Label, Transaction
from fraud_pipeline.errors import FraudError
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.adapters.test_replicas_on_servers import posted
from fraud_pipeline_tests.replica_rig import now
from fraud_pipeline_tests.replica_stream import replica_running, replica_settings, until
from fraud_pipeline_tests.scored_replicas import (
    Content,
    caught_up,
    judged,
    ledger_answers,
    past_payments,
    payment_of,
    produce,
    routed,
    stream_running,
)
from fraud_pipeline_tests.servers import server_of_my_own
from fraud_pipeline_tests.service_process import start_service

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


class Callers:
    """Send payments of now to the replica of their customer, and remember what they were told."""

    def __init__(self, ask: Callable[[Transaction], Awaitable[bytes]]) -> None:
        self.answers: dict[str, bytes] = {}
        self._ask = ask
        self._chance = Random(7)

    async def pay(self, count: int) -> list[set[str]]:
        """One after the other; what the decisions lacked."""
        lacked = []
        for _ in range(count):
            payment = payment_of(f"l-{len(self.answers)}", now(), self._chance, CUSTOMERS)
            answer = await self._ask(payment)
            self.answers[payment.transaction_id] = answer
            lacked.append(set(orjson.loads(answer)["degraded"]))
        return lacked


def test_what_is_lost_or_away_costs_words_and_no_payment(tmp_path: Path):
    """Valkey's memory, the broker for some seconds, and a replica with rows in its journal: one after the other."""

    async def work(settings: Settings, kafka: KafkaServer, valkey: ValkeyServer) -> tuple[dict[str, bytes], Content]:
        with stream_running(settings) as stream:
            produce(settings, past_payments(60, customers=CUSTOMERS))
            service = await asyncio.to_thread(
                start_service, tmp_path / "other.log", environment=environment_of(settings)
            )
            try:
                async with replica_running(settings) as one:
                    await caught_up(stream, one)

                    async def ask(payment: Transaction) -> bytes:
                        chosen = routed((one, service), payment)
                        if chosen is one:
                            return await one.ready_scorer().score(payment, received_at=now())
                        return await asyncio.to_thread(posted, service, payment)

                    callers = Callers(ask)
                    assert not set().union(*await callers.pay(20))

                    with redis.Redis.from_url(valkey.address) as client:
                        client.flushall()
                    assert set().union(*await callers.pay(20)) <= {"state_view"}
                    await caught_up(stream, one)
                    assert not set().union(*await callers.pay(20))

                    await asyncio.to_thread(kafka.kill)
                    await callers.pay(5)
                    await until(lambda: one.lacking == ("log",))
                    assert any("log" in each for each in await callers.pay(20))
                    service.kill()
                    await asyncio.to_thread(kafka.start)
                    service = await asyncio.to_thread(
                        start_service, tmp_path / "other.log", environment=environment_of(settings)
                    )
                    await caught_up(stream, one)
                    await until(lambda: not one.lacking)
                    await callers.pay(10)
                    await caught_up(stream, one)
            finally:
                service.stop()
        return callers.answers, judged(settings)

    with server_of_my_own(KafkaServer) as kafka, server_of_my_own(ValkeyServer) as valkey:
        settings = replica_settings(tmp_path, kafka=kafka.address, valkey=valkey.address)
        answers, content = asyncio.run(work(settings, kafka, valkey))
    assert content.parity.equal
    assert content.passed_on == answers.keys()
    assert {identity: content.decisions[identity].to_json() for identity in answers} == answers


def environment_of(settings: Settings) -> dict[str, str]:
    return {
        "FRAUD_HOME": str(settings.home), "FRAUD_KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "FRAUD_STATE_VIEW_URL": settings.state_view_url, "FRAUD_TOPIC_PREFIX": settings.topic_prefix,
        "FRAUD_DAGSTER_URL": "",
    }  # fmt: skip
