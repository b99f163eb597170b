"""A notice as JSON to any address, signed, so that the receiver knows who sent it and that nobody changed it.

The signature is the HMAC-SHA256 of `<timestamp>.<body>` with the shared secret, in hexadecimal. The timestamp (seconds since
1970) stands in the signed text, so that an old message cannot be sent again under a new time.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from fraud_pipeline.adapters.notices.channel import Attempt, address_secrets
from fraud_pipeline.adapters.notices.http_exchange import post
from fraud_pipeline.domain.notice import RecordedNotice, Severity

TIMESTAMP: Final = "X-Fraud-Timestamp"
SIGNATURE: Final = "X-Fraud-Signature"
NOTICE: Final = "X-Fraud-Notice"
"""The same for each attempt at one notice: what a receiver drops repeats by."""
ATTEMPT: Final = "X-Fraud-Attempt"

Post = Callable[[str, bytes, Mapping[str, str]], None]


class Webhook:
    """Posts to one address. Without a secret nothing is signed."""

    name = "webhook"

    def __init__(
        self, url: str, secret: str, *, source: str, severities: tuple[Severity, ...], send: Post = post
    ) -> None:
        self.severities = severities
        self.secrets = (*address_secrets(url), secret)
        self._url, self._secret, self._source, self._post = url, secret, source, send

    def send(self, told: RecordedNotice, attempt: Attempt) -> None:
        """Post it."""
        body = orjson.dumps(payload(told, source=self._source))
        headers = {
            TIMESTAMP: str(attempt.at_s),
            NOTICE: f"{self._source}/{told.notice_id}",
            ATTEMPT: str(attempt.number),
        }
        if self._secret:
            headers[SIGNATURE] = "v1=" + sign(self._secret, attempt.at_s, body)
        self._post(self._url, body, headers)


def payload(told: RecordedNotice, *, source: str) -> dict[str, Any]:
    """The body, before it is JSON."""
    notice = told.notice
    return {
        "schema": 1,
        "id": told.notice_id,
        "source": source,
        "kind": notice.kind,
        "severity": notice.severity,
        "episode": notice.key,
        "status": "resolved" if notice.resolves else "raised",
        "title": notice.title,
        "text": notice.text,
        "facts": dict(notice.facts),
        "link": notice.link,
        "at": notice.at.isoformat(),
        "told_at": told.told_at.isoformat(),
    }


def sign(secret: str, timestamp: int, body: bytes) -> str:
    """HMAC-SHA256 over the time and the body, in hexadecimal."""
    return hmac.new(secret.encode(), b"%d." % timestamp + body, hashlib.sha256).hexdigest()
