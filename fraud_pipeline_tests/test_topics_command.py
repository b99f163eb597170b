"""`fraud topics`: made, verified, and an exit code that says whether one may start."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest

from fraud_pipeline.adapters.local_services.kafka_server import KafkaServer
from fraud_pipeline.adapters.local_services.ports import free_port
from fraud_pipeline.cli import run

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def prefix(kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"t{uuid4().hex[:8]}."
    monkeypatch.setenv("FRAUD_KAFKA_BOOTSTRAP_SERVERS", kafka.address)
    monkeypatch.setenv("FRAUD_TOPIC_PREFIX", name)
    return name


def test_missing_topics_are_a_no_until_they_are_made(prefix: str, capsys: Capture) -> None:
    assert run(["topics", "verify"]) == 1
    said = capsys.readouterr()
    assert f"{prefix}transactions" in said.out
    assert f"{prefix}labels: `fraud topics create` makes it." in said.err

    assert run(["topics", "create", "--partitions", "2", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["works"] is True
    assert made["topics"][0] == {
        "topic": f"{prefix}transactions",
        "partitions": 2,
        "state": "made",
        "said": [],
        "remedy": None,
    }

    assert run(["topics", "verify"]) == 0
    assert "wrong" not in capsys.readouterr().out
    assert run(["topics", "verify", "--partitions", "3"]) == 1
    assert f"--topic {prefix}transactions --partitions 3" in capsys.readouterr().err


def test_a_broker_that_is_not_there_is_exit_code_3(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("FRAUD_KAFKA_BOOTSTRAP_SERVERS", f"127.0.0.1:{free_port()}")
    monkeypatch.setattr("fraud_pipeline.adapters.kafka.topic_admin.ANSWER_S", 1.0)
    assert run(["topics", "verify"]) == 3
    assert "fraud services up kafka" in capsys.readouterr().err


def test_more_copies_than_brokers_is_said(prefix: str, capsys: Capture) -> None:
    assert run(["topics", "create", "--replicas", "3"]) == 3
    assert "replication factor" in capsys.readouterr().err.lower()


def test_a_prefix_that_no_topic_can_have_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("FRAUD_TOPIC_PREFIX", "no spaces ")
    assert run(["topics", "verify"]) == 2
    assert "FRAUD_TOPIC_PREFIX='no spaces '" in capsys.readouterr().err
