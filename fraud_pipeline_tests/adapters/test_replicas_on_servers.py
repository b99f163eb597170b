"""REST replicas on a real broker and a real Valkey: one answer per id, and what is lost or away costs nothing but words."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import redis

from fraud_pipeline.adapters.kafka import relay
from fraud_pipeline.adapters.kafka.messages import transaction_message
from fraud_pipeline.adapters.local_services.kafka_server import KafkaServer
from fraud_pipeline.adapters.local_services.valkey_server import ValkeyServer
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.errors import ConflictingTransaction
from fraud_pipeline.replica_runtime import ReplicaRuntime
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.adapters.test_replica_scorer import payments
from fraud_pipeline_tests.replica_rig import now
from fraud_pipeline_tests.replica_stream import Follower, following, replica_running, replica_settings, until
from fraud_pipeline_tests.servers import server_of_my_own
from fraud_pipeline_tests.service_process import ServiceProcess, service_running, start_service


@pytest.fixture
def settings(tmp_path: Path, kafka: KafkaServer, valkey: ValkeyServer) -> Settings:
    return replica_settings(tmp_path, kafka=kafka.address, valkey=valkey.address)


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    asyncio.run(main())


async def score(runtime: ReplicaRuntime, payment: Transaction) -> dict[str, Any]:
    return orjson.loads(await runtime.ready_scorer().score(payment, received_at=now()))


def missing(answer: dict[str, Any]) -> set[str]:
    """What a decision lacked, but for shared minutes, which nobody closes here."""
    return set(answer["degraded"]) - {"shared_state_lag"}


async def whole(follower: Follower) -> None:
    """The view has all that the follower has."""
    await until(lambda: all(feed.reach is not None and not feed.waiting for feed in follower.feeds))


def test_the_same_id_at_two_replicas_has_one_answer_and_stands_in_the_log_once(settings: Settings):
    async def work() -> None:
        with following(settings) as follower:
            async with replica_running(settings) as one, replica_running(settings) as other:
                await whole(follower)
                made = payments(20)
                for payment in made:
                    both = [each.ready_scorer().score(payment, received_at=now()) for each in (one, other)]
                    answers = await asyncio.gather(*both)
                    assert answers[0] == answers[1]
                    assert not missing(orjson.loads(answers[0]))
                for runtime in (one, other):
                    with pytest.raises(ConflictingTransaction, match="another amount"):
                        await score(runtime, replace(made[0], amount_minor=made[0].amount_minor + 1))
                await until(lambda: len(follower.ids) == 20)
                health = one.more_health()
                assert health["log"]["status"] == health["state_view"]["status"] == "ok"
            assert follower.repeats == 0

    run(work)


def test_the_loss_of_all_of_valkeys_memory_is_said_and_made_up_for(settings: Settings, valkey: ValkeyServer):
    async def work() -> None:
        with following(settings) as follower:
            async with replica_running(settings) as runtime:
                await whole(follower)
                made = payments(30, customers=2)
                for payment in made[:10]:
                    assert not missing(await score(runtime, payment))
                await until(lambda: len(follower.ids) == 10)
                with redis.Redis.from_url(valkey.address) as client:
                    client.flushall()
                assert missing(await score(runtime, made[10])) in ({"state_view"}, set())
                await until(lambda: all(feed.rebuilds == 2 for feed in follower.feeds))
                await whole(follower)
                for payment in made[11:]:
                    assert not missing(await score(runtime, payment))
                await until(lambda: len(follower.ids) == 30)

    run(work)


def test_a_broker_that_is_away_for_a_while_holds_nothing_up_and_gets_everything(tmp_path: Path, valkey: ValkeyServer):
    async def work() -> None:
        with server_of_my_own(KafkaServer) as server:
            settings = replica_settings(tmp_path, kafka=server.address, valkey=valkey.address)
            with following(settings) as follower:
                async with replica_running(settings) as runtime:
                    await whole(follower)
                    made = payments(60)
                    for payment in made[:10]:
                        assert not missing(await score(runtime, payment))
                    await until(lambda: len(follower.ids) == 10)
                    server.kill()
                    await score(runtime, made[10])
                    await until(lambda: runtime.lacking == ("log",))
                    for payment in made[11:50]:
                        assert "log" in (await score(runtime, payment))["degraded"]
                    assert runtime.more_health()["log"]["journalled"] == 40
                    await asyncio.to_thread(server.start)
                    await until(lambda: len(follower.ids) == 50)
                    await until(lambda: not runtime.lacking)
                    for payment in made[50:]:
                        assert "log" not in (await score(runtime, payment))["degraded"]
                    await until(lambda: len(follower.ids) == 60)

    run(work)


def test_a_replica_that_ended_with_rows_in_its_journal_loses_none(
    tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(relay, "CLOSE_S", 0.0)

    async def work() -> None:
        with server_of_my_own(KafkaServer) as server:
            settings = replica_settings(tmp_path, kafka=server.address, valkey=valkey.address)
            made = payments(20)
            async with replica_running(settings) as runtime:
                await asyncio.to_thread(server.pause)
                answers = [await runtime.ready_scorer().score(payment, received_at=now()) for payment in made]
            server.resume()
            with following(settings) as follower:
                async with replica_running(settings) as runtime:
                    for payment, answer in zip(made, answers, strict=True):
                        assert await runtime.ready_scorer().score(payment, received_at=now()) == answer
                    await until(lambda: len(follower.ids) == 20)
                assert [follower.decisions[each.transaction_id].to_json() for each in made] == answers

    run(work)


def test_a_service_that_was_killed_with_rows_in_its_journal_loses_none(tmp_path: Path, valkey: ValkeyServer):
    """Two processes behind HTTP: what one answered before `kill -9` is in the log after its restart, the same at the other."""
    with server_of_my_own(KafkaServer) as server:
        settings = replica_settings(tmp_path, kafka=server.address, valkey=valkey.address)
        environment = {
            "FRAUD_HOME": str(settings.home),
            "FRAUD_KAFKA_BOOTSTRAP_SERVERS": server.address,
            "FRAUD_STATE_VIEW_URL": valkey.address,
            "FRAUD_TOPIC_PREFIX": settings.topic_prefix,
            "FRAUD_DAGSTER_URL": "",
        }
        made = payments(20)
        with (
            following(settings) as follower,
            service_running(tmp_path / "other.log", environment=environment) as other,
        ):
            one = start_service(tmp_path / "one.log", environment=environment)
            try:
                answers = [posted(one, payment) for payment in made[:10]]
                asyncio.run(until(lambda: len(follower.ids) == 10))
                server.pause()
                answers += [posted(one, payment) for payment in made[10:]]
            finally:
                one.kill()
            server.resume()
            assert [posted(other, payment) for payment in made] == answers
            with service_running(tmp_path / "one.log", environment=environment) as one:
                asyncio.run(until(lambda: len(follower.ids) == 20))
                assert [posted(one, payment) for payment in made] == answers
                health = httpx.get(f"{one.url}/health").json()["dependencies"]
                assert health["log"]["status"] == health["state_view"]["status"] == "ok"
                metrics = httpx.get(f"{one.url}/metrics").text
                assert "fraud_replica_relayed_total 10.0" in metrics
            assert [follower.decisions[each.transaction_id].to_json() for each in made] == answers


def posted(service: ServiceProcess, payment: Transaction) -> bytes:
    answer = httpx.post(
        f"{service.url}/score", content=transaction_message(payment).value, headers={"Content-Type": "application/json"},
        timeout=30,
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    return answer.content
