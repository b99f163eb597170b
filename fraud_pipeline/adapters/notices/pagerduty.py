"""A notice as an event of PagerDuty's Events API v2: an episode is an incident, its end resolves it.

Takes warnings and worse: an incident of what is merely good to know would have nobody to end it.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import orjson

from fraud_pipeline.adapters.notices.channel import Attempt
from fraud_pipeline.adapters.notices.http_exchange import post
from fraud_pipeline.adapters.notices.webhook import Post
from fraud_pipeline.domain.notice import Notice, RecordedNotice, Severity, at_least

LEAST: Final[Severity] = "warning"
_SUMMARY: Final = 1_024
_DEDUP_KEY: Final = 255


class PagerDuty:
    """Sends to one service of PagerDuty, by its routing key."""

    name = "pagerduty"

    def __init__(
        self, url: str, routing_key: str, *, source: str, severities: tuple[Severity, ...], send: Post = post
    ) -> None:
        self.severities = tuple(severity for severity in severities if severity in at_least(LEAST))
        self.secrets = (routing_key,)
        self._url, self._key, self._source, self._post = url, routing_key, source, send

    def send(self, told: RecordedNotice, _attempt: Attempt) -> None:
        """Post it."""
        self._post(self._url, orjson.dumps(event(told.notice, routing_key=self._key, source=self._source)), {})


def event(notice: Notice, *, routing_key: str, source: str) -> dict[str, Any]:
    """Trigger or resolve; both by the episode's key, which PagerDuty folds repeats by."""
    base = {"routing_key": routing_key, "dedup_key": dedup_key(notice, source=source)}
    if notice.resolves:
        return {**base, "event_action": "resolve"}
    links = [{"href": notice.link, "text": "Open"}] if notice.link else []
    return {
        **base,
        "event_action": "trigger",
        "payload": {
            "summary": notice.title[:_SUMMARY],
            "source": source,
            "severity": notice.severity,
            "timestamp": notice.at.isoformat(),
            "component": "fraud-pipeline",
            "class": notice.kind,
            "custom_details": {"text": notice.text, **notice.facts},
        },
        "links": links,
        "client": source,
    }


def dedup_key(notice: Notice, *, source: str) -> str:
    """The incident's key; a long one is cut and told apart by its hash."""
    key = f"{source}/{notice.key}"
    if len(key) <= _DEDUP_KEY:
        return key
    return key[: _DEDUP_KEY - 17] + "-" + hashlib.sha256(key.encode()).hexdigest()[:16]
