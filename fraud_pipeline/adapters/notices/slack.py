"""A notice as a message of Slack's incoming webhooks (`text` and `blocks`), which others understand as well.

Lengths are Slack's: what is longer is cut, since Slack refuses the whole message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from fraud_pipeline.adapters.notices.channel import Attempt, address_secrets
from fraud_pipeline.adapters.notices.http_exchange import post
from fraud_pipeline.adapters.notices.webhook import Post
from fraud_pipeline.domain.notice import Notice, RecordedNotice, Severity

_HEADER: Final = 150
_SECTION: Final = 3_000
_FIELD: Final = 2_000
_FIELDS: Final = 10
_MARKS: Final[Mapping[str, str]] = {
    "info": ":information_source:",
    "warning": ":warning:",
    "critical": ":rotating_light:",
}
_RESOLVED: Final = ":white_check_mark:"


class Slack:
    """Posts to one incoming webhook, whose address is the secret."""

    name = "slack"

    def __init__(self, url: str, *, source: str, severities: tuple[Severity, ...], send: Post = post) -> None:
        self.severities = severities
        self.secrets = address_secrets(url)
        self._url, self._source, self._post = url, source, send

    def send(self, told: RecordedNotice, _attempt: Attempt) -> None:
        """Post it."""
        self._post(self._url, orjson.dumps(message(told, source=self._source)), {})


def message(told: RecordedNotice, *, source: str) -> dict[str, Any]:
    """`text` is what notifications and those who know no blocks show."""
    notice = told.notice
    mark = _RESOLVED if notice.resolves else _MARKS[notice.severity]
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": _cut(notice.title, _HEADER), "emoji": False}},
        {"type": "section", "text": {"type": "mrkdwn", "text": _cut(f"{mark} {_escaped(notice.text)}", _SECTION)}},
    ]
    fields = [
        {"type": "mrkdwn", "text": _cut(f"*{_escaped(name)}*\n{_escaped(_shown(value))}", _FIELD)}
        for name, value in list(notice.facts.items())[:_FIELDS]
    ]
    if fields:
        blocks.append({"type": "section", "fields": fields})
    blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": _footer(notice, source)}]})
    return {"text": _cut(f"{mark} {_escaped(notice.title)}", _SECTION), "blocks": blocks}


def _footer(notice: Notice, source: str) -> str:
    link = f" · <{notice.link}|Open>" if notice.link else ""
    return _cut(f"{source} · {notice.severity} · {notice.kind} · {notice.at:%Y-%m-%d %H:%M} UTC{link}", _FIELD)


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _escaped(text: str) -> str:
    """Slack's three control characters."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
