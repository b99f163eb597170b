"""Mail, to a server that really listens."""

from __future__ import annotations

import logging
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fraud_pipeline.adapters.notices.channel import Attempt, NotDelivered, Refused
from fraud_pipeline.adapters.notices.mail import Mail, MailServer
from fraud_pipeline.domain.notice import SEVERITIES, Notice, RecordedNotice
from fraud_pipeline_tests import notice_receivers
from fraud_pipeline_tests.notice_receivers import certificate, mail_server

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
AT = Attempt(at_s=int(NOW.timestamp()), number=1)
DRIFT = Notice("drift", "warning", "world#1", "Drift – again", "It has.", {"inputs": ["a", "b"]}, "http://ui", NOW)
TOLD = RecordedNotice(7, DRIFT, NOW)
OVER = RecordedNotice(8, DRIFT.over("It is over.", at=NOW), NOW + timedelta(hours=1))
PASSWORD = "pa55"


def channel(server: notice_receivers.MailServer, *, user: str = "", scheme: str = "smtp", **options: Any) -> Mail:
    credentials = f"{user}:{PASSWORD}@" if user else ""
    return Mail(
        MailServer.parse(f"{scheme}://{credentials}localhost:{server.port}"),
        sender="fraud@example.org", receivers=("a@example.org", "b@example.org"), source="prod", severities=SEVERITIES,
        **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    folder: Path = tmp_path_factory.mktemp("certificate")
    return certificate(folder)


def test_an_address_is_read_with_its_port_and_its_password() -> None:
    plain = MailServer.parse("smtp://me%40x:p%2Fw@mail.example")
    assert (plain.host, plain.port, plain.tls_from_the_start) == ("mail.example", 587, False)
    assert (plain.user, plain.password) == ("me@x", "p/w")
    assert "p/w" not in repr(plain)
    assert MailServer.parse("smtps://mail.example").port == 465
    assert MailServer.parse("smtp://mail.example:25").port == 25


def test_a_mail_says_what_it_is_and_its_end_answers_it() -> None:
    with mail_server() as server:
        channel(server).send(TOLD, AT)
        channel(server).send(OVER, AT)
    begin, end = server.messages
    assert server.receivers[0] == ["a@example.org", "b@example.org"]
    assert begin["Subject"] == "[prod] warning: Drift – again"
    assert (begin["From"], begin["To"]) == ("fraud@example.org", "a@example.org, b@example.org")
    assert begin["Auto-Submitted"] == "auto-generated"
    assert begin["X-Fraud-Notice"] == "prod/7"
    text = begin.get_content().replace("\r\n", "\n")
    assert text == "It has.\n\ninputs: a, b\n\ndrift, warning, as of 2026-03-01 12:00 UTC\nhttp://ui\n"
    assert end["Subject"] == "[prod] Over: Drift – again"
    assert end["In-Reply-To"] == begin["Message-ID"] != end["Message-ID"]


def test_a_repeated_delivery_has_the_same_message_id() -> None:
    with mail_server() as server:
        for _ in range(2):
            channel(server).send(TOLD, AT)
    first, second = server.messages
    assert first["Message-ID"] == second["Message-ID"]


def test_the_password_goes_by_starttls(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    served, trusted = contexts
    with mail_server(tls=served, password=PASSWORD) as server:
        channel(server, user="me", tls=trusted).send(TOLD, AT)
    assert server.logins == [("me", PASSWORD)]
    assert server.encrypted == [True]


def test_or_by_tls_from_the_start(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    served, trusted = contexts
    with mail_server(tls=served, tls_from_the_start=True, password=PASSWORD) as server:
        channel(server, user="me", scheme="smtps", tls=trusted).send(TOLD, AT)
    assert server.logins == [("me", PASSWORD)]
    assert server.encrypted == [True]


def test_and_never_in_the_clear() -> None:
    with (
        mail_server(password=PASSWORD) as server,
        pytest.raises(Refused, match="no STARTTLS, and a password is not sent without it"),
    ):
        channel(server, user="me").send(TOLD, AT)
    assert server.logins == []


@pytest.mark.parametrize("from_the_start", [True, False])
def test_a_server_that_nobody_vouches_for_gets_nothing(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], from_the_start: bool
) -> None:
    listening = mail_server(tls=contexts[0], tls_from_the_start=from_the_start, password=PASSWORD)
    with listening as server, pytest.raises(Refused, match="certificate is not trusted"):
        channel(server, user="me", scheme="smtps" if from_the_start else "smtp").send(TOLD, AT)
    assert (server.logins, server.messages) == ([], [])


def test_a_wrong_password_is_refused(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    served, trusted = contexts
    with mail_server(tls=served, password="another") as server, pytest.raises(Refused, match="SMTP 535"):
        channel(server, user="me", tls=trusted).send(TOLD, AT)


@pytest.mark.parametrize("says", [{"DATA": b"451 try later"}, {"MAIL": b"421 busy"}, {"CONNECT": b"421 busy"}])
def test_a_server_that_has_no_time_is_tried_again(says: dict[str, bytes]) -> None:
    with mail_server(says=says) as server, pytest.raises(NotDelivered) as caught:
        channel(server).send(TOLD, AT)
    assert not isinstance(caught.value, Refused)
    assert "SMTP 4" in caught.value.reason


@pytest.mark.parametrize("says", [{"DATA": b"554 spam"}, {"MAIL": b"550 who are you"}])
def test_a_server_that_will_not_is_refused(says: dict[str, bytes]) -> None:
    with mail_server(says=says) as server, pytest.raises(Refused, match="SMTP 55"):
        channel(server).send(TOLD, AT)


def test_all_receivers_refused_is_refused_and_one_of_two_is_said(caplog: pytest.LogCaptureFixture) -> None:
    refused = pytest.raises(Refused, match="every receiver is refused: no such mailbox")
    with mail_server(refuses=["a@example.org", "b@example.org"]) as server, refused:
        channel(server).send(TOLD, AT)
    caplog.set_level(logging.WARNING)
    with mail_server(refuses=["b@example.org"]) as server:
        channel(server).send(TOLD, AT)
    assert server.receivers == [["a@example.org"]]
    assert "refuses b@example.org" in caplog.text


@pytest.mark.parametrize("silent", ["CONNECT", "EHLO", "DATA"])
def test_a_server_that_says_nothing_costs_the_deadline(silent: str) -> None:
    with mail_server(says={silent: b""}) as server, pytest.raises(NotDelivered, match="no answer") as caught:
        channel(server, timeout_s=0.3).send(TOLD, AT)
    assert not isinstance(caught.value, Refused)


def test_nobody_there_is_tried_again() -> None:
    with mail_server() as server:
        gone = channel(server)
    with pytest.raises(NotDelivered, match=r"no answer: .*refused"):
        gone.send(TOLD, AT)
