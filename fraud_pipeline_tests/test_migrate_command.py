"""`fraud migrate` on a real PostgreSQL and a real Kafka: from nothing, again, and several at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from uuid import uuid4

import psycopg
import pytest

from fraud_pipeline.adapters.ledger_schema import SCHEMA_VERSION
from fraud_pipeline.adapters.local_services.kafka_server import KafkaServer
from fraud_pipeline.adapters.local_services.ports import free_port
from fraud_pipeline.adapters.local_services.postgres_server import PostgresServer
from fraud_pipeline.cli import run

WAIT_S = 280.0


@pytest.fixture
def addresses(postgres: PostgresServer, kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """Settings that name databases and topics which nobody has made."""
    name = uuid4().hex[:8]
    server = postgres.address.rsplit("/", 1)[0]
    found = {
        "FRAUD_LEDGER_URL": f"{server}/ledger_{name}",
        "FRAUD_DAGSTER_STORAGE_URL": f"{server.replace('+psycopg:', '+psycopg2:')}/dagster_{name}",
        "FRAUD_KAFKA_BOOTSTRAP_SERVERS": kafka.address,
        "FRAUD_TOPIC_PREFIX": f"m{name}.",
    }
    for key, value in found.items():
        monkeypatch.setenv(key, value)
    return found


def test_several_at_once_make_everything_once(addresses: Mapping[str, str]) -> None:
    line = [sys.executable, "-m", "fraud_pipeline.cli", "migrate", "--json"]
    many = [
        subprocess.Popen(
            line, env={**os.environ, **addresses}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    made = []
    for one in many:
        out, err = one.communicate(timeout=WAIT_S)
        assert one.returncode == 0, err
        made.append([step["name"] for step in json.loads(out)["steps"] if step["state"] == "made"])
    first, second = sorted(made, key=len, reverse=True)
    assert second == [], "who came second found everything done"
    assert len([name for name in first if name.startswith("database")]) == 2
    assert len([name for name in first if name.startswith("topic")]) == 6
    with psycopg.connect(addresses["FRAUD_LEDGER_URL"].replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == (SCHEMA_VERSION,)
    with psycopg.connect(addresses["FRAUD_DAGSTER_STORAGE_URL"].replace("+psycopg2", "")) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (0,)


def test_a_server_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    monkeypatch.setenv("FRAUD_LEDGER_URL", f"postgresql+psycopg://fraud:geheim@127.0.0.1:{port}/ledger")
    assert run(["migrate"]) == 3
    said = capsys.readouterr().err
    assert f"PostgreSQL at 127.0.0.1:{port} does not answer" in said
    assert "geheim" not in said


def test_a_user_who_may_make_no_database_is_told_so(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    role = f"plain_{uuid4().hex[:8]}"
    with psycopg.connect(postgres.address.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f'CREATE ROLE "{role}" LOGIN')
    address = postgres.address.replace("postgres@", f"{role}@").rsplit("/", 1)[0]
    monkeypatch.setenv("FRAUD_LEDGER_URL", f"{address}/not_there_{role}")
    assert run(["migrate"]) == 2
    said = capsys.readouterr().err
    assert "permission denied to create database" in said
    assert "CREATEDB" in said


def test_the_embedded_home_needs_no_server(home: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["migrate", "--json"]) == 0
    assert [step["name"] for step in json.loads(capsys.readouterr().out)["steps"]] == ["ledger"]
    assert run(["migrate", "--mlflow", "mlflow"]) == 2
    assert "Database 'mlflow' needs a server" in capsys.readouterr().err
