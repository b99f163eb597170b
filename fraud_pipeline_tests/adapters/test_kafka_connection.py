"""From settings to the client's configuration: what is passed through, what is refused, and what an error says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from fraud_pipeline.adapters.kafka.connection import (
    DECIDED_BY_US,
    admin,
    consumer_config,
    dependency_error,
    producer_config,
)
from fraud_pipeline.adapters.local_services.kafka_server import KafkaServer
from fraud_pipeline.adapters.local_services.ports import free_port
from fraud_pipeline.cli import run
from fraud_pipeline.errors import SettingsError
from fraud_pipeline.settings import Settings, load_settings


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("FRAUD_KAFKA_BOOTSTRAP_SERVERS", "kafka.example:9092")
    return monkeypatch


def test_what_is_passed_through_reaches_both_kinds_of_client(broker: pytest.MonkeyPatch) -> None:
    broker.setenv("FRAUD_KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    broker.setenv("FRAUD_KAFKA_SASL_PASSWORD", "s3cret")
    broker.setenv("FRAUD_KAFKA_LINGER_MS", "50")
    broker.setenv("FRAUD_KAFKA_SESSION_TIMEOUT_MS", "30000")
    settings = load_settings()
    producer = producer_config(settings, linger_ms=5, transactional_id="scorer-0")
    assert producer["bootstrap.servers"] == "kafka.example:9092"
    assert producer["partitioner"] == "murmur2_random"
    assert producer["linger.ms"] == "50", "what a person sets goes over what the program proposes"
    assert producer["transactional.id"] == "scorer-0"
    assert "session.timeout.ms" not in producer, "the client would warn at every start"
    consumer = consumer_config(settings, group="scorers", session_timeout_ms=6_000)
    assert consumer["session.timeout.ms"] == "30000"
    assert consumer["isolation.level"] == "read_committed"
    assert consumer["enable.auto.commit"] is False
    assert "linger.ms" not in consumer
    for config in (producer, consumer):
        assert config["security.protocol"] == "SASL_SSL"
        assert config["sasl.password"] == "s3cret"


def test_the_environment_goes_over_dotenv_and_both_are_read(broker: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FRAUD_KAFKA_LINGER_MS=1\nFRAUD_KAFKA_BATCH_SIZE=7\nFRAUD_KAFKA_RETRIES=\n")
    broker.setitem(Settings.model_config, "env_file", str(tmp_path / ".env"))
    broker.setenv("FRAUD_KAFKA_LINGER_MS", "2")
    config = producer_config(load_settings())
    assert (config["linger.ms"], config["batch.size"]) == ("2", "7")
    assert "retries" not in config, "an empty variable is an unset one"


def test_passwords_are_not_shown(broker: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    broker.setenv("FRAUD_KAFKA_SASL_PASSWORD", "s3cret")
    assert "s3cret" not in repr(load_settings())
    assert run(["settings", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["FRAUD_KAFKA_<NAME>"]
    assert shown == {"value": "{'sasl.password': SecretStr('**********')}", "origin": "set"}


@pytest.mark.parametrize("name", DECIDED_BY_US)
def test_what_would_break_exactly_once_is_refused_by_name(broker: pytest.MonkeyPatch, name: str) -> None:
    variable = "FRAUD_KAFKA_" + name.upper().replace(".", "_")
    broker.setenv(variable, "x")
    if name == "bootstrap.servers":
        assert producer_config(load_settings())["bootstrap.servers"] == "x"
        return
    for make in (producer_config, lambda settings: consumer_config(settings, group="any"), admin):
        with pytest.raises(SettingsError, match=rf"{variable} cannot be set: {DECIDED_BY_US[name]}") as refused:
            make(load_settings())
        assert refused.value.remedy == f"Unset {variable}."


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("FRAUD_KAFKA_FOO_BAR", "1", 'No such configuration property: "foo.bar"'),
        ("FRAUD_KAFKA_LINGER_MS", "soon", "Invalid value for configuration property"),
    ],
)
def test_what_the_client_does_not_know_is_named(
    broker: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    broker.setenv(variable, value)
    with pytest.raises(SettingsError, match=rf"{variable} is not understood by the Kafka client: {reason}"):
        producer_config(load_settings())


def test_without_a_broker_the_setting_and_the_remedy_are_named() -> None:
    with pytest.raises(SettingsError, match=r"FRAUD_KAFKA_BOOTSTRAP_SERVERS is not set.*fraud services up kafka"):
        producer_config(load_settings())


def test_the_client_takes_what_is_configured(kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAUD_KAFKA_BOOTSTRAP_SERVERS", kafka.address)
    monkeypatch.setenv("FRAUD_KAFKA_STATISTICS_INTERVAL_MS", "0")
    settings = load_settings()
    assert Producer(producer_config(settings)).list_topics(timeout=30).brokers
    assert admin(settings).list_topics(timeout=30).brokers
    Consumer(consumer_config(settings, group="any")).close()


def test_a_broker_that_is_not_there_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("FRAUD_KAFKA_BOOTSTRAP_SERVERS", f"127.0.0.1:{port}")
    settings = load_settings()
    with pytest.raises(KafkaException) as caught:
        admin(settings).list_topics(timeout=0.5)
    error = dependency_error(settings, caught.value, "list the topics")
    assert f"Could not list the topics: Kafka at 127.0.0.1:{port} says: " in error.message
    assert "fraud services up kafka" in error.remedy


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "ask for the ACL"),
        (KafkaError.SASL_AUTHENTICATION_FAILED, "FRAUD_KAFKA_SASL_MECHANISM"),
        (KafkaError._UNSUPPORTED_FEATURE, "too old"),
        (KafkaError._ALL_BROKERS_DOWN, "fraud services up kafka"),
    ],
)
def test_an_error_says_what_can_be_done(broker: pytest.MonkeyPatch, code: int, remedy: str) -> None:
    assert remedy in dependency_error(load_settings(), KafkaException(KafkaError(code)), "do it").remedy
