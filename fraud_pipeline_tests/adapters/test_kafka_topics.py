"""The topics on a real broker: made once, compared ever after, and refused clearly."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]

from fraud_pipeline.adapters.kafka.connection import admin, consumer_config
from fraud_pipeline.adapters.kafka.topic_admin import Found, compare, create, faults, verify
from fraud_pipeline.adapters.kafka.topics import DAY_MS, Topics, plans
from fraud_pipeline.adapters.local_services.kafka_server import KafkaServer
from fraud_pipeline.adapters.local_services.ports import HOST, free_port
from fraud_pipeline.errors import DependencyError
from fraud_pipeline_tests.old_broker import old_broker
from fraud_pipeline_tests.servers import server_of_my_own

ANSWER_S = 30


def reached(address: str, **options: str) -> Any:
    """Settings of a client at this address."""
    values = {name: SimpleNamespace(get_secret_value=lambda value=value: value) for name, value in options.items()}
    return SimpleNamespace(kafka_bootstrap_servers=address, kafka_options=values)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + ANSWER_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def topics() -> Topics:
    return Topics(f"t{uuid4().hex[:8]}.")


def test_the_names_have_the_prefix() -> None:
    topics = Topics("eu.")
    assert [plan.name for plan in plans(topics, partitions=1)] == [
        "eu.transactions",
        "eu.decisions",
        "eu.alerts",
        "eu.shared-state",
        "eu.labels",
        "eu.transactions.dlq",
    ]


def test_topics_are_made_once_and_then_right(kafka: KafkaServer, topics: Topics) -> None:
    settings = reached(kafka.address)
    assert {state.state for state in verify(settings, topics)} == {"missing"}
    made = create(settings, topics, partitions=4)
    assert {state.topic: (state.partitions, state.state) for state in made} == {
        topics.transactions: (4, "made"),
        topics.decisions: (4, "made"),
        topics.alerts: (4, "made"),
        topics.shared_state: (4, "made"),
        topics.labels: (3, "made"),
        topics.dead_letters: (1, "made"),
    }
    again = create(settings, topics)
    assert {(state.state, state.said) for state in again} == {("right", ())}, "the count is what is there"
    assert again == verify(settings, topics)
    assert faults(again) == []


def test_the_broker_stamps_the_payments(kafka: KafkaServer, topics: Topics) -> None:
    settings = reached(kafka.address)
    create(settings, topics, partitions=1)
    producer = Producer({"bootstrap.servers": kafka.address})
    producer.produce(topics.transactions, b"{}", timestamp=1_000)
    assert producer.flush(ANSWER_S) == 0
    consumer = Consumer(consumer_config(settings, group=topics.prefix))
    try:
        consumer.assign([TopicPartition(topics.transactions, 0, 0)])
        message = consumer.poll(ANSWER_S)
        assert message is not None
        kind, stamp = message.timestamp()
        assert kind == 2
        assert stamp > 1_700_000_000_000
    finally:
        consumer.close()


def test_what_exists_is_compared_and_not_changed(kafka: KafkaServer, topics: Topics) -> None:
    settings, client = reached(kafka.address), admin(reached(kafka.address))
    theirs = [
        NewTopic(topics.transactions, 4, config={"retention.ms": str(3 * DAY_MS)}),
        NewTopic(topics.decisions, 2),
        NewTopic(topics.labels, 5, config={"cleanup.policy": "compact"}),
    ]
    for future in client.create_topics(theirs).values():
        future.result(ANSWER_S)
    until(lambda: {topic.topic for topic in theirs} <= set(client.list_topics(timeout=ANSWER_S).topics))
    states = {state.topic: state for state in create(settings, topics)}
    assert states[topics.alerts].state == "made"
    assert states[topics.alerts].partitions == 4

    log = states[topics.transactions]
    assert log.state == "wrong"
    assert "message.timestamp.type is CreateTime and not LogAppendTime" in log.said
    assert "retention.ms is 3 days and not 14 days" in log.said
    assert "--add-config" in log.remedy
    assert "message.timestamp.type=LogAppendTime" in log.remedy

    assert states[topics.decisions].state == "wrong"
    assert "it has 2 partitions and not 4" in states[topics.decisions].said
    assert f"kafka-topics.sh --alter --topic {topics.decisions} --partitions 4" in states[topics.decisions].remedy
    assert "cleanup.policy is compact and not delete" in states[topics.labels].said

    after = {state.topic: state for state in verify(settings, topics)}
    assert after[topics.transactions] == log
    assert {state.topic for state in faults(list(after.values()))} == {
        topics.transactions,
        topics.decisions,
        topics.labels,
    }


def test_a_longer_retention_is_as_right_as_none() -> None:
    plan = plans(Topics(), partitions=2)[1]
    for kept in ("-1", str(400 * DAY_MS)):
        assert compare(plan, Found(2, 1, {**plan.config, "retention.ms": kept})).state == "right"
    shorter = compare(plan, Found(2, 1, {**plan.config, "retention.ms": str(DAY_MS)}))
    assert (shorter.state, shorter.works) == ("differs", True)


def test_three_replicas_want_two_in_sync_and_no_unclean_leader() -> None:
    plan = plans(Topics(), partitions=2, replicas=3)[0]
    assert plan.config["min.insync.replicas"] == "2"
    found = Found(2, 3, {**plan.config, "min.insync.replicas": "1", "unclean.leader.election.enable": "true"})
    state = compare(plan, found)
    assert "min.insync.replicas is 1 and not 2" in state.said
    assert any("acknowledged payments may be lost" in said for said in state.said)
    assert "unclean.leader.election.enable=false" in state.remedy


def test_a_broker_that_is_not_there_is_named() -> None:
    port = free_port()
    with pytest.raises(DependencyError, match=rf"Could not look at the topics: Kafka at {HOST}:{port} says"):
        verify(reached(f"{HOST}:{port}"), Topics(), answer_s=1.0)


def test_a_broker_that_is_too_old_is_named() -> None:
    with old_broker() as address, pytest.raises(DependencyError, match=r"Kafka at .* says") as refused:
        create(reached(address), Topics("any."), answer_s=20.0)
    assert "too old: Apache Kafka 4.0 or newer" in refused.value.remedy


class GuardedKafka(KafkaServer):
    """A broker with one more listener, which wants a password and lets nobody do anything; alice has one."""

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(folder, **options)
        self.guarded = f"{HOST}:{free_port()}"

    def _settings(self) -> dict[str, str]:
        settings = super()._settings()
        for name in ("listeners", "advertised.listeners"):
            settings[name] += f",GUARDED://{self.guarded}"
        login = 'org.apache.kafka.common.security.plain.PlainLoginModule required user_alice="secret";'
        return settings | {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,GUARDED:SASL_PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.guarded.plain.sasl.jaas.config": login,
        }


def test_a_user_without_rights_or_with_a_wrong_password_is_told(topics: Topics) -> None:
    with server_of_my_own(GuardedKafka) as server:
        alice = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "alice"}
        denied = reached(server.guarded, **alice, **{"sasl.password": "secret"})
        with pytest.raises(DependencyError, match=r"Authorization failed") as refused:
            create(denied, topics)
        assert "ask for the ACL" in refused.value.remedy

        create(reached(server.address), topics, partitions=1)
        assert {state.state for state in verify(denied, topics)} == {"missing"}, "what one may not see is not there"

        wrong = reached(server.guarded, **alice, **{"sasl.password": "guessed"})
        with pytest.raises(DependencyError) as refused:
            verify(wrong, topics, answer_s=5.0)
        assert "FRAUD_KAFKA_SASL_PASSWORD" in refused.value.remedy
