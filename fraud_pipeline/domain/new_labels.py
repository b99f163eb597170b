"""Whether enough was learned since the champion was trained for a retraining to know more than it does. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True)
class NewLabels:
    """Known frauds among payments of the `days` mature days from `since` on, which the champion has not learned from.

    A day is mature when a chargeback has had its time; later days' frauds are mostly not known yet.
    """

    frauds: int
    days: int
    since: date

    @property
    def per_day(self) -> float:
        return self.frauds / self.days if self.days else 0.0


def label_shortage(new: NewLabels, *, wanted: int) -> str:
    """What is missing, in words and numbers; empty where nothing is."""
    if new.frauds >= wanted:
        return ""
    known = f"{new.frauds} of {wanted} new mature frauds are known"
    if not new.days:
        return f"{known}: no day from {new.since} on has mature labels yet."
    known = f"{known}, of the {new.days} days from {new.since} on"
    if not new.frauds:
        return f"{known}: more days of data are needed."
    more = math.ceil((wanted - new.frauds) / new.per_day)
    return f"{known}: at {new.per_day:.1f} a day about {more} more days of data are needed."
