"""What a channel is, and how an attempt fails: to be tried again, or for good."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol
from urllib.parse import urlsplit

from fraud_pipeline.domain.notice import RecordedNotice, Severity

SEND_TIMEOUT_S: Final = 5.0
"""A whole attempt: a receiver that takes longer hangs, and the next one waits for us."""


class NotDelivered(Exception):
    """The attempt failed and may succeed later. `retry_after`: what the receiver asked for."""

    def __init__(self, reason: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


class Refused(NotDelivered):
    """The receiver will not take this message, today or tomorrow: somebody must change something."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a receiver is told of the sending itself: when, and the how-manieth time."""

    at_s: int
    number: int


def address_secrets(url: str) -> tuple[str, ...]:
    """An address whose path is the secret, and the path, which errors of the HTTP client name by itself."""
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    return (url, path) if len(path) > 1 else (url,)


class Channel(Protocol):
    """One way to people."""

    @property
    def name(self) -> str:
        """By which its deliveries are kept."""
        ...

    @property
    def severities(self) -> tuple[Severity, ...]:
        """What it takes."""
        ...

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must stand in no log and no error."""
        ...

    def send(self, told: RecordedNotice, attempt: Attempt) -> None:
        """Deliver; NotDelivered or Refused where that fails. Returns or raises within SEND_TIMEOUT_S."""
        ...
