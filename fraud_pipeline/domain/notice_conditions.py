"""From what holds now to what is told: which episodes begin and which end.

A condition is a claim about one subject ("this scorer lags"), judged again and again. An episode begins when it has held
for `begins_after` without a break and ends when it has not held for `ends_after`, so that what comes and goes within a
minute wakes nobody. A subject that could not be judged this time changes nothing. Pure: what was pending comes in and goes
out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from fraud_pipeline.domain.notice import LONGEST_EPISODE, Kind, Notice, RecordedNotice, Severity

_AT_ONCE: Final = timedelta(0)
_NUMBER_ROOM: Final = 8
"""Digits, and the #, of an episode's number."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Whether something holds of `subject`, and what is told where it does; `text` says it either way."""

    kind: Kind
    subject: str
    holds: bool
    at: datetime
    text: str
    title: str = ""
    severity: Severity = "warning"
    facts: Mapping[str, Any] = field(default_factory=dict)
    link: str | None = None
    begins_after: timedelta = _AT_ONCE
    ends_after: timedelta = _AT_ONCE

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.name}"

    @property
    def name(self) -> str:
        """The subject as part of an episode's name: cut where it is too long, and without what does not print."""
        printable = "".join(letter if letter.isprintable() else "?" for letter in self.subject)
        return printable[: LONGEST_EPISODE - _NUMBER_ROOM]

    def beginning(self, number: int) -> Notice:
        """What tells that the subject's episode of this number has begun."""
        episode = f"{self.name}#{number}"
        return Notice(self.kind, self.severity, episode, self.title, self.text, self.facts, self.link, self.at)


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be told now, and since when the others have been otherwise than was told (`pending`, by key)."""

    begin: tuple[Condition, ...]
    end: tuple[Notice, ...]
    pending: Mapping[str, datetime]


def subject_of(notice: Notice) -> str:
    """The reverse of an episode's name."""
    return notice.episode.rpartition("#")[0]


def number_of(episode: str) -> int:
    """Which one of its subject's episodes it is; 0 for a name that has no number."""
    number = episode.rpartition("#")[2]
    return int(number) if number.isdecimal() else 0


def judge(
    conditions: Iterable[Condition],
    opened: Sequence[RecordedNotice],
    *,
    pending: Mapping[str, datetime],
    now: datetime,
) -> Changes:
    """Compare what holds with what was told: `opened` are the beginnings that have no end yet."""
    told = {f"{each.notice.kind}/{subject_of(each.notice)}": each.notice for each in opened}
    begin: list[Condition] = []
    end: list[Notice] = []
    waiting = dict(pending)
    for condition in conditions:
        since = waiting.pop(condition.key, now)
        beginning = told.get(condition.key)
        if condition.holds == (beginning is not None):
            continue
        if now - since < (condition.begins_after if condition.holds else condition.ends_after):
            waiting[condition.key] = since
        elif beginning is None:
            begin.append(condition)
        else:
            end.append(beginning.over(condition.text, at=condition.at, facts=condition.facts))
    return Changes(tuple(begin), tuple(end), waiting)
