"""A notice in the process's own log: always there, and what is left where every other channel is away."""

from __future__ import annotations

import logging
from typing import Final

from fraud_pipeline.adapters.notices.channel import Attempt
from fraud_pipeline.domain.notice import SEVERITIES, RecordedNotice

_LEVELS: Final = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.ERROR}
_log = logging.getLogger("fraud_pipeline.notices")


class Log:
    """Takes every severity."""

    name = "log"
    severities = SEVERITIES
    secrets: tuple[str, ...] = ()

    def send(self, told: RecordedNotice, _attempt: Attempt) -> None:
        """One line."""
        notice = told.notice
        level = logging.INFO if notice.resolves else _LEVELS[notice.severity]
        _log.log(level, "notice %d %s (%s): %s", told.notice_id, notice.key, notice.severity, notice.title)
