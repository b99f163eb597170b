"""`fraud services`: servers that outlive the command, and the settings that use them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fraud_pipeline.adapters.local_services.catalogue import servers_of
from fraud_pipeline.adapters.local_services.ports import free_port
from fraud_pipeline.cli import run
from fraud_pipeline_tests.servers import server_folder


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home that PostgreSQL may enter as root too; nothing is left running there."""
    with server_folder() as folder:
        monkeypatch.setenv("FRAUD_HOME", str(folder))
        yield folder
        for server in servers_of(folder):
            server.kill()


def status(capsys: pytest.CaptureFixture[str], *names: str) -> list[dict[str, object]]:
    capsys.readouterr()
    assert run(["services", "status", *names, "--json"]) == 0
    return list(json.loads(capsys.readouterr().out)["services"])


def test_a_server_is_started_shown_and_stopped(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    port = free_port()
    assert run(["services", "up", "redis", "--port", str(port)]) == 0
    said = capsys.readouterr()
    assert said.out == f"export FRAUD_STATE_VIEW_URL=redis://127.0.0.1:{port}/0\n"
    assert "Valkey: ready at" in said.err
    (one,) = status(capsys, "redis")
    assert one["state"] == "running"
    assert one["port"] == port
    assert one["settings"] == {"FRAUD_STATE_VIEW_URL": f"redis://127.0.0.1:{port}/0"}
    assert one["log"] == str(home / "services" / "redis" / "server.log")

    assert run(["services", "up", "redis"]) == 0
    assert f"runs already at redis://127.0.0.1:{port}/0 (process {one['pid']})" in capsys.readouterr().err
    assert run(["services", "logs", "redis", "-n", "500"]) == 0
    assert f"port={port}" in capsys.readouterr().out

    assert run(["services", "down"]) == 0
    assert capsys.readouterr().err == "Kafka: not running\nPostgreSQL: not running\nValkey: stopped\n"
    (one,) = status(capsys, "redis")
    assert (one["state"], one["pid"], one["port"], one["settings"]) == ("stopped", None, port, {})


def test_up_as_json_has_the_servers_and_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["services", "up", "redis", "postgres", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [one["service"] for one in result["services"]] == ["redis", "postgres"]
    assert set(result["settings"]) == {"FRAUD_STATE_VIEW_URL", "FRAUD_LEDGER_URL"}


def test_what_was_never_started_is_stopped_and_has_no_log(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert [one["state"] for one in status(capsys)] == ["stopped"] * 3
    assert run(["services", "status"]) == 0
    assert "kafka" in capsys.readouterr().out
    assert run(["services", "logs", "kafka"]) == 2
    assert "was never started. `fraud services up kafka`" in capsys.readouterr().err
    assert list(home.iterdir()) == [], "looking makes nothing"


@pytest.mark.parametrize("names", [[], ["redis", "kafka"]])
def test_a_port_is_for_one_service(capsys: pytest.CaptureFixture[str], names: list[str]) -> None:
    assert run(["services", "up", *names, "--port", "9092"]) == 2
    assert "--port is for one service" in capsys.readouterr().err


def test_an_unknown_service_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["services", "up", "nats"]) == 2
    assert "no service 'nats'. There are: kafka, postgres, redis." in capsys.readouterr().err
