"""`fraud loadtest`: what it says, and its exit code."""

from __future__ import annotations

import json

import pytest

from fraud_pipeline import cli
from fraud_pipeline_tests.fake_service import FakeService

SHORT = ("--rate", "50", "--duration", "0.4", "--connections", "4", "--customers", "30")


def test_a_load_without_failures_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeService().running() as service:
        code = cli.run(["loadtest", service.url, *SHORT, "--json"])
    said = json.loads(capsys.readouterr().out)
    assert code == 0
    assert (said["answered"], said["failed"], said["decisions"]) == (20, 0, {"APPROVE": 20})
    assert 0 < said["latency_ms"]["p50"] <= said["latency_ms"]["p99"] <= said["latency_ms"]["max"]
    assert said["interrupted"] is False


def test_a_failed_request_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeService(refuse_every=10).running() as service:
        code = cli.run(["loadtest", service.url, *SHORT])
    said = capsys.readouterr().out
    assert code == 1
    assert "2 requests failed" in said
    assert "Not now" in said


def test_batches_are_sent_to_their_route(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeService().running() as service:
        code = cli.run(["loadtest", service.url, "--rate", "10", "--duration", "0.3", "--batch", "25", "--json"])
    assert code == 0
    assert json.loads(capsys.readouterr().out)["decisions"] == {"APPROVE": 75}


def test_what_is_no_address_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["loadtest", "localhost:3001", *SHORT]) == 2
    assert "http://127.0.0.1:3001" in capsys.readouterr().err
