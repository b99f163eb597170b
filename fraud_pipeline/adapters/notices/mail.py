"""A notice as a mail, by SMTP: STARTTLS or TLS from the start, and no password over a line that is not encrypted.

The beginning and the end of an episode are one thread in a mail program, and a repeated delivery has the same Message-ID.
"""

from __future__ import annotations

import hashlib
import logging
import smtplib
import socket
import ssl
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Final
from urllib.parse import unquote, urlsplit

from fraud_pipeline.adapters.notices.channel import SEND_TIMEOUT_S, Attempt, NotDelivered, Refused
from fraud_pipeline.adapters.notices.deadline import Deadline
from fraud_pipeline.domain.notice import Notice, RecordedNotice, Severity

_PORTS: Final = {"smtp": 587, "smtps": 465}
_FOR_NOW: Final = range(400, 500)
"""SMTP's own word for what may work later (greylisting, a full disk); 5xx is for good."""
_log = logging.getLogger("fraud_pipeline.notices")


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where and how; read from an address."""

    host: str
    port: int
    tls_from_the_start: bool
    user: str
    password: str = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> MailServer:
        """smtp://user:password@host:port (STARTTLS), or smtps://... ; what is no letter or digit as %XX."""
        parts = urlsplit(url)
        return cls(
            host=parts.hostname or "",
            port=parts.port or _PORTS[parts.scheme],
            tls_from_the_start=parts.scheme == "smtps",
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
        )


class Mail:
    """Sends by one mail server. `tls`: whom to trust; the system's authorities where it is not given."""

    name = "mail"

    def __init__(
        self,
        server: MailServer,
        *,
        sender: str,
        receivers: tuple[str, ...],
        source: str,
        severities: tuple[Severity, ...],
        tls: ssl.SSLContext | None = None,
        timeout_s: float = SEND_TIMEOUT_S,
    ) -> None:
        self.severities = severities
        self.secrets = (server.password,)
        self._server, self._sender, self._receivers, self._source = server, sender, receivers, source
        self._tls, self._timeout_s = tls, timeout_s

    def send(self, told: RecordedNotice, _attempt: Attempt) -> None:
        """Send it. Receivers that the server refuses while it takes others are no reason to send it again."""
        message = compose(told, sender=self._sender, receivers=self._receivers, source=self._source)
        try:
            with (
                self._connect() as connection,
                Deadline(self._timeout_s, lambda: getattr(connection, "sock", None)) as deadline,
            ):
                try:
                    self._log_in(connection)
                    refused = connection.send_message(message)
                except smtplib.SMTPServerDisconnected as err:
                    if deadline.over:
                        raise TimeoutError from err
                    raise
        except Exception as err:
            raise self._outcome(err) from err
        if refused:
            _log.warning("notice %d: the mail server refuses %s", told.notice_id, ", ".join(sorted(refused)))

    def _connect(self) -> smtplib.SMTP:
        """Connecting and the greeting are bounded by the socket's own timeout."""
        server, name = self._server, socket.gethostname()  # a name is given: smtplib would ask the DNS for it
        if server.tls_from_the_start:
            return smtplib.SMTP_SSL(server.host, server.port, name, timeout=self._timeout_s, context=self._trusted())
        return smtplib.SMTP(server.host, server.port, name, timeout=self._timeout_s)

    def _log_in(self, connection: smtplib.SMTP) -> None:
        server = self._server
        connection.ehlo_or_helo_if_needed()
        if not server.tls_from_the_start and connection.has_extn("starttls"):
            connection.starttls(context=self._trusted())
        elif not server.tls_from_the_start and server.user:
            raise Refused("it offers no STARTTLS, and a password is not sent without it")
        if server.user:
            connection.login(server.user, server.password)

    def _trusted(self) -> ssl.SSLContext:
        return self._tls or ssl.create_default_context()

    def _outcome(self, err: Exception) -> Exception:
        """What smtplib's many exceptions mean; one that is not about the exchange stays what it is."""
        if isinstance(err, smtplib.SMTPRecipientsRefused):
            codes = [code for code, _ in err.recipients.values()]
            return _by_code(min(codes), f"every receiver is refused: {_said(next(iter(err.recipients.values()))[1])}")
        if isinstance(err, smtplib.SMTPResponseException):
            return _by_code(err.smtp_code, f"SMTP {err.smtp_code}: {_said(err.smtp_error)}")
        if isinstance(err, ssl.SSLCertVerificationError):
            return Refused(f"its certificate is not trusted: {err.verify_message}")
        if isinstance(err, smtplib.SMTPNotSupportedError):
            return Refused(str(err))
        if isinstance(err, TimeoutError):
            return NotDelivered(f"no answer within {self._timeout_s:g} s")
        if isinstance(err, OSError | smtplib.SMTPException):
            return NotDelivered(f"no answer: {str(err) or type(err).__name__}")
        return err


def compose(told: RecordedNotice, *, sender: str, receivers: tuple[str, ...], source: str) -> EmailMessage:
    """The mail: plain text, one line a fact."""
    notice = told.notice
    message = EmailMessage()
    message["Subject"] = f"[{source}] {'' if notice.resolves else f'{notice.severity}: '}{notice.title}"
    message["From"], message["To"] = sender, ", ".join(receivers)
    message["Date"] = format_datetime(told.told_at)
    message["Message-ID"] = _message_id(notice, source, resolves=notice.resolves)
    message["Auto-Submitted"] = "auto-generated"
    message["X-Fraud-Notice"] = f"{source}/{told.notice_id}"
    if notice.resolves:
        message["In-Reply-To"] = message["References"] = _message_id(notice, source, resolves=False)
    facts = [
        f"{name}: {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in notice.facts.items()
    ]
    foot = [
        f"{notice.kind}, {notice.severity}, as of {notice.at:%Y-%m-%d %H:%M} UTC",
        *([notice.link] if notice.link else []),
    ]
    message.set_content("\n\n".join("\n".join(part) for part in ([notice.text], facts, foot) if part) + "\n")
    return message


def _message_id(notice: Notice, source: str, *, resolves: bool) -> str:
    digest = hashlib.sha256(f"{source}/{notice.key}".encode()).hexdigest()[:32]
    return f"<{digest}.{'end' if resolves else 'begin'}@{source}>"


def _by_code(code: int, reason: str) -> NotDelivered:
    return NotDelivered(reason) if code in _FOR_NOW else Refused(reason)


def _said(text: bytes | str) -> str:
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else text
