"""`fraud notices`, on a ledger and with receivers that really listen."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fraud_pipeline import cli
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.domain.notice import Notice
from fraud_pipeline_tests.notice_receivers import Answer, receiving

Capture = pytest.CaptureFixture[str]
SECRET = "T0KEN"


def said(capsys: Capture, *line: str, code: int = 0) -> Any:
    assert cli.run(["notices", *line, "--json"]) == code
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def told(home: Path) -> Notice:
    notice = Notice("drift", "warning", "world#1", "Drift", "It has.", {"share": 0.2}, None, datetime.now(UTC))
    with Ledger.open(f"sqlite:///{home / 'ledger.db'}") as ledger:
        ledger.tell(notice)
    return notice


def test_a_home_without_notices_has_none(home: Path, capsys: Capture) -> None:
    assert said(capsys, "list") == {"notices": []}
    assert not (home / "ledger.db").exists()
    assert cli.run(["notices", "list"]) == 0
    assert "No such notice." in capsys.readouterr().out


@pytest.mark.usefixtures("told")
def test_what_was_told_is_listed_with_what_became_of_it(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving(Answer(403, body=b"invalid_token")) as slack:
        monkeypatch.setenv("FRAUD_NOTIFY_SLACK_URL", f"{slack.url}/{SECRET}")
        done = said(capsys, "deliver", code=1)["channels"]
    assert done["log"] == {"delivered": 1, "retried": 0, "given_up": 0}
    assert done["slack"] == {"delivered": 0, "retried": 0, "given_up": 1}
    (row,) = said(capsys, "list")["notices"]
    assert (row["kind"], row["title"], row["facts"]) == ("drift", "Drift", {"share": 0.2})
    states = {each["channel"]: (each["state"], each["error"]) for each in row["deliveries"]}
    assert states == {"log": ("delivered", None), "slack": ("failed", "HTTP 403: invalid_token")}
    assert cli.run(["notices", "list"]) == 0
    table = capsys.readouterr().out
    assert "log delivered, slack failed" in table
    assert "HTTP 403: invalid_token" in table
    assert len(said(capsys, "list", "--undelivered")["notices"]) == 1
    assert len(said(capsys, "list", "--open")["notices"]) == 1
    with Ledger.open(f"sqlite:///{home / 'ledger.db'}") as ledger:
        drift = Notice("drift", "warning", "world#1", "Drift", "", {}, None, datetime.now(UTC))
        assert ledger.tell(drift.over("It is over.", at=datetime.now(UTC)))
    assert said(capsys, "list", "--open")["notices"] == []


@pytest.mark.usefixtures("told")
def test_a_notice_is_sent_again_by_its_number(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving(Answer(410), Answer(200)) as hook:
        monkeypatch.setenv("FRAUD_NOTIFY_WEBHOOK_URL", hook.url)
        said(capsys, "deliver", code=1)
        row = said(capsys, "resend", "1", "--channel", "webhook")
        assert {each["channel"]: each["state"] for each in row["deliveries"]} == {
            "log": "delivered", "webhook": "delivered",
        }  # fmt: skip
        assert [json.loads(posted.body)["id"] for posted in hook.posted] == [1, 1]
        assert cli.run(["notices", "resend", "99"]) == 2
        assert "no notice 99" in capsys.readouterr().err


def test_each_channel_can_be_tried(home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving(Answer(404, body=b"no_service")) as slack, receiving(Answer(202)) as pager:
        monkeypatch.setenv("FRAUD_NOTIFY_SLACK_URL", f"{slack.url}/{SECRET}")
        monkeypatch.setenv("FRAUD_NOTIFY_PAGERDUTY_KEY", "k3y")
        monkeypatch.setenv("FRAUD_NOTIFY_PAGERDUTY_URL", pager.url)
        result = said(capsys, "test", code=1)["channels"]
        assert said(capsys, "test", "--channel", "pagerduty")["channels"] == {
            "pagerduty": {"taken": True, "problem": None}
        }  # fmt: skip
        assert cli.run(["notices", "test", "--channel", "carrier-pigeon"]) == 2
        assert "There are log, slack, pagerduty" in capsys.readouterr().err
        actions = [json.loads(posted.body)["event_action"] for posted in pager.posted]
    assert result == {
        "log": {"taken": True, "problem": None},
        "slack": {"taken": False, "problem": "HTTP 404: no_service"},
        "pagerduty": {"taken": True, "problem": None},
    }
    assert actions == ["trigger", "resolve"] * 2
    assert not (home / "ledger.db").exists(), "a test leaves nothing"


def test_no_secret_is_shown(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SLACK_URL": f"https://hooks.example/{SECRET}", "WEBHOOK_SECRET": SECRET, "PAGERDUTY_KEY": SECRET,
        "SMTP_URL": f"smtp://me:{SECRET}@x", "MAIL_FROM": "a@x", "MAIL_TO": "b@x", "WEBHOOK_URL": f"https://x/{SECRET}",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"FRAUD_NOTIFY_{name}", value)
    assert cli.run(["settings"]) == 0
    assert SECRET not in capsys.readouterr().out
    monkeypatch.setenv("FRAUD_NOTIFY_SLACK_URL", f"hooks.example/{SECRET}")
    assert cli.run(["notices", "test"]) == 2
    complaint = capsys.readouterr().err
    assert "FRAUD_NOTIFY_SLACK_URL" in complaint
    assert SECRET not in complaint


def test_mail_without_a_receiver_is_refused_at_the_start(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAUD_NOTIFY_SMTP_URL", "smtp://x")
    assert cli.run(["notices", "test"]) == 2
    assert "needs FRAUD_NOTIFY_MAIL_FROM and FRAUD_NOTIFY_MAIL_TO" in capsys.readouterr().err
