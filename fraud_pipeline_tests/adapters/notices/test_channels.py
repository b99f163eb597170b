"""What each channel sends, as a receiver that really listens gets it."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from fraud_pipeline.adapters.notices.channel import Attempt, Channel, NotDelivered, Refused
from fraud_pipeline.adapters.notices.channels import channels_of
from fraud_pipeline.adapters.notices.http_exchange import post
from fraud_pipeline.adapters.notices.log_channel import Log
from fraud_pipeline.adapters.notices.pagerduty import PagerDuty
from fraud_pipeline.adapters.notices.slack import Slack
from fraud_pipeline.adapters.notices.webhook import Webhook
from fraud_pipeline.domain.notice import SEVERITIES, Notice, RecordedNotice
from fraud_pipeline.settings import load_settings
from fraud_pipeline_tests.notice_receivers import Answer, Posted, Receiver, receiving, signature_is_right

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
AT = Attempt(at_s=int(NOW.timestamp()), number=2)
BROKEN = Notice(
    "broken_input", "critical", "amount#1", "Broken input: amount", "Mend <the> source & wait.",
    {"fields": ["amount", "hour"], "share": 0.5}, "http://ui/assets/drift_report", NOW,
)  # fmt: skip
TOLD = RecordedNotice(7, BROKEN, NOW + timedelta(minutes=1))
OVER = RecordedNotice(8, BROKEN.over("They are sound again.", at=NOW), NOW + timedelta(hours=1))
SECRET = "a secret of the receiver"


def sent(channel: Channel, receiver: Receiver, told: RecordedNotice = TOLD) -> tuple[Posted, Any]:
    channel.send(told, AT)
    posted = receiver.posted[-1]
    return posted, json.loads(posted.body)


def test_the_webhook_is_signed_json() -> None:
    with receiving() as receiver:
        channel = Webhook(receiver.url + "/hook?to=fraud", SECRET, source="prod", severities=SEVERITIES)
        posted, body = sent(channel, receiver)
        _, over = sent(channel, receiver, OVER)
    assert (posted.method, posted.path) == ("POST", "/hook?to=fraud")
    assert posted.headers["Content-Type"] == "application/json"
    assert (posted.headers["X-Fraud-Notice"], posted.headers["X-Fraud-Attempt"]) == ("prod/7", "2")
    assert body == {
        "schema": 1, "id": 7, "source": "prod", "kind": "broken_input", "severity": "critical",
        "episode": "broken_input/amount#1", "status": "raised", "title": "Broken input: amount",
        "text": "Mend <the> source & wait.", "facts": {"fields": ["amount", "hour"], "share": 0.5},
        "link": "http://ui/assets/drift_report", "at": "2026-03-01T12:00:00+00:00", "told_at": "2026-03-01T12:01:00+00:00",
    }  # fmt: skip
    assert (over["status"], over["episode"], over["severity"]) == ("resolved", body["episode"], "critical")
    assert signature_is_right(posted, SECRET, now_s=AT.at_s)


def test_a_wrong_secret_a_changed_body_and_an_old_time_are_found_out() -> None:
    with receiving() as receiver:
        posted, _ = sent(Webhook(receiver.url, SECRET, source="prod", severities=SEVERITIES), receiver)
        bare, _ = sent(Webhook(receiver.url, "", source="prod", severities=SEVERITIES), receiver)
    assert signature_is_right(posted, SECRET, now_s=AT.at_s + 299)
    assert not signature_is_right(posted, "another", now_s=AT.at_s)
    assert not signature_is_right(posted, SECRET, now_s=AT.at_s + 301)
    changed = Posted(posted.method, posted.path, posted.headers, posted.body.replace(b"critical", b"info"))
    assert not signature_is_right(changed, SECRET, now_s=AT.at_s)
    later = Posted(posted.method, posted.path, {**posted.headers, "X-Fraud-Timestamp": str(AT.at_s + 500)}, posted.body)
    assert not signature_is_right(later, SECRET, now_s=AT.at_s + 500)
    assert "X-Fraud-Signature" not in bare.headers


def test_slack_gets_text_and_blocks_within_its_limits() -> None:
    long = Notice("lag", "info", "x#1", "T" * 400, "<x>" * 3_000, {f"f{n}": "v" * 3_000 for n in range(20)}, None, NOW)
    with receiving() as receiver:
        channel = Slack(receiver.url, source="prod", severities=SEVERITIES)
        _, body = sent(channel, receiver)
        _, huge = sent(channel, receiver, RecordedNotice(1, long, NOW))
        _, over = sent(channel, receiver, OVER)
    assert set(body) == {"text", "blocks"}
    assert body["text"] == ":rotating_light: Broken input: amount"
    header, section, fields, context = body["blocks"]
    assert header == {"type": "header", "text": {"type": "plain_text", "text": "Broken input: amount", "emoji": False}}
    assert section["text"] == {"type": "mrkdwn", "text": ":rotating_light: Mend &lt;the&gt; source &amp; wait."}
    assert {"type": "mrkdwn", "text": "*fields*\namount, hour"} in fields["fields"]
    assert "prod · critical · broken_input" in context["elements"][0]["text"]
    assert "<http://ui/assets/drift_report|Open>" in context["elements"][0]["text"]
    header, section, fields, _ = huge["blocks"]
    assert len(header["text"]["text"]) == 150
    assert len(section["text"]["text"]) == 3_000
    assert len(fields["fields"]) == 10
    assert {len(each["text"]) for each in fields["fields"]} == {2_000}
    assert over["text"].startswith(":white_check_mark: Over: ")


def test_pagerduty_gets_a_trigger_and_a_resolve_of_one_incident() -> None:
    with receiving(Answer(202, body=b'{"status":"success"}')) as receiver:
        channel = PagerDuty(receiver.url + "/v2/enqueue", "R0UTE", source="prod", severities=SEVERITIES)
        posted, trigger = sent(channel, receiver)
        _, resolve = sent(channel, receiver, OVER)
    assert posted.path == "/v2/enqueue"
    assert {name: trigger[name] for name in ("routing_key", "event_action", "dedup_key")} == {
        "routing_key": "R0UTE", "event_action": "trigger", "dedup_key": "prod/broken_input/amount#1",
    }  # fmt: skip
    payload = trigger["payload"]
    assert (payload["summary"], payload["source"], payload["severity"]) == ("Broken input: amount", "prod", "critical")
    assert payload["timestamp"] == "2026-03-01T12:00:00+00:00"
    assert payload["class"] == "broken_input"
    assert payload["custom_details"]["fields"] == ["amount", "hour"]
    assert trigger["links"] == [{"href": "http://ui/assets/drift_report", "text": "Open"}]
    assert resolve == {"routing_key": "R0UTE", "event_action": "resolve", "dedup_key": trigger["dedup_key"]}


def test_pagerduty_takes_no_news_that_nobody_can_end() -> None:
    def severities(*given: Any) -> tuple[str, ...]:
        return PagerDuty("http://x", "k", source="s", severities=given).severities

    assert severities(*SEVERITIES) == ("warning", "critical")
    assert severities("critical") == ("critical",)


def test_the_key_of_an_incident_fits_whatever_the_names_are() -> None:
    from fraud_pipeline.adapters.notices.pagerduty import dedup_key

    one, other = (Notice("lag", "info", "x" * 150 + f"#{n}", "T", "", {}, None, NOW) for n in (1, 2))
    keys = {dedup_key(notice, source="s" * 120) for notice in (one, other)}
    assert len(keys) == 2
    assert {len(key) for key in keys} == {255}


def test_the_log_says_it_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="fraud_pipeline.notices")
    Log().send(TOLD, AT)
    Log().send(OVER, AT)
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("ERROR", "notice 7 broken_input/amount#1 (critical): Broken input: amount"),
        ("INFO", "notice 8 broken_input/amount#1 (critical): Over: Broken input: amount"),
    ]


@pytest.mark.parametrize("status", [500, 502, 503, 408, 425, 429])
def test_what_may_pass_is_tried_again(status: int) -> None:
    with receiving(Answer(status, {"Retry-After": "120"}, b"busy")) as receiver:
        with pytest.raises(NotDelivered, match=f"HTTP {status}: busy") as caught:
            post(receiver.url, b"{}", {})
        assert caught.value.retry_after == timedelta(seconds=120)
        assert not isinstance(caught.value, Refused)


@pytest.mark.parametrize(("said", "known"), [("soon", False), ("", False), ("-5", False), ("date", True)])
def test_retry_after_may_be_a_date_or_nonsense(said: str, known: bool) -> None:
    if said == "date":
        said = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True)
    with receiving(Answer(429, {"Retry-After": said})) as receiver, pytest.raises(NotDelivered) as caught:
        post(receiver.url, b"{}", {})
    waits = caught.value.retry_after
    assert (waits is not None) == known
    assert waits is None or timedelta(minutes=9) < waits <= timedelta(minutes=10)


@pytest.mark.parametrize("status", [400, 401, 404, 410])
def test_what_will_not_pass_is_refused(status: int) -> None:
    refused = pytest.raises(Refused, match=f"HTTP {status}: invalid_payload")
    with receiving(Answer(status, body=b"invalid_payload\n")) as receiver, refused:
        post(receiver.url, b"{}", {})


def test_a_redirect_is_not_followed() -> None:
    with receiving() as elsewhere, receiving(Answer(307, {"Location": "http://elsewhere"})) as receiver:
        receiver.answer_from_now_on(Answer(307, {"Location": elsewhere.url}))
        with pytest.raises(Refused, match="redirects are not followed"):
            post(receiver.url, b"{}", {})
        assert elsewhere.posted == []


@pytest.mark.parametrize("answer", [Answer(None), Answer(200, drips=True)], ids=["hangs", "drips"])
def test_a_receiver_that_never_ends_its_answer_costs_the_deadline(answer: Answer) -> None:
    with receiving(answer) as receiver, pytest.raises(NotDelivered, match=r"no answer within 0\.3 s"):
        post(receiver.url, b"{}", {}, timeout_s=0.3)


def test_nobody_there_is_tried_again_and_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        with receiving() as receiver:
            gone = receiver.url
        with pytest.raises(NotDelivered, match=r"no answer: .*refused"):
            post(gone, b"{}", {})
        assert proxy.posted == []


def test_a_certificate_that_nobody_signed_is_refused(tmp_path: Any) -> None:
    from fraud_pipeline_tests.notice_receivers import certificate, mail_server

    server, _ = certificate(tmp_path)
    with (
        mail_server(tls=server, tls_from_the_start=True) as listener,
        pytest.raises(Refused, match="certificate is not trusted"),
    ):
        post(f"https://localhost:{listener.port}/", b"{}", {})


def test_the_settings_say_which_channels_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [each.name for each in channels_of(load_settings())] == ["log"]
    for name, value in {
        "WEBHOOK_URL": "https://a.example/x", "SLACK_URL": "https://b.example/T/B/s3cret", "PAGERDUTY_KEY": "k3y",
        "SMTP_URL": "smtp://u:p%40ss@c.example", "MAIL_FROM": "fraud@c.example", "MAIL_TO": "a@c.example, b@c.example",
        "LEAST_SEVERITY": "critical",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"FRAUD_NOTIFY_{name}", value)
    channels = {each.name: each for each in channels_of(load_settings())}
    assert list(channels) == ["log", "webhook", "slack", "pagerduty", "mail"]
    assert channels["log"].severities == SEVERITIES
    assert all(each.severities == ("critical",) for name, each in channels.items() if name != "log")
    assert "/T/B/s3cret" in channels["slack"].secrets
    assert channels["mail"].secrets == ("p@ss",)
