"""Two samples side by side, measured when asked: the whole window, each of its days, and the window without one of them.

The reference is drawn so that its weekdays have the shares that they have among the rows it is compared with: a short week,
a missing day or a busy Saturday differ from a whole week without anything being wrong. Knows no limits: `drift` judges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fraud_pipeline.domain.drift_measures import Measures, measure

Rows = NDArray[np.intp]

WEEKDAY: Final = "day_of_week"
"""The feature by which weekdays are known, in the time zone that the features are meant in."""
SCARCE: Final = 0.25
"""A weekday with less than this part of the share that it should have is an accident of midnight or of a lost day."""
_EPOCH: Final = date(1970, 1, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Whose and when the rows of the current sample are: `day` as days since 1970, `customer` as codes."""

    day: NDArray[np.integer[Any]]
    customer: NDArray[np.integer[Any]]

    @property
    def customers(self) -> int:
        return len(np.unique(self.customer))

    @property
    def effective_customers(self) -> float:
        """How many equally active customers weigh as much as these: (sum of n)^2 / sum of n^2 (Kish 1965)."""
        counts = np.unique(self.customer, return_counts=True)[1].astype(np.float64)
        return float(counts.sum() ** 2 / np.square(counts).sum()) if len(counts) else 0.0


class Comparison:
    """Measures by feature, each made once; so that many limits may be tried on them."""

    def __init__(
        self,
        reference: Mapping[str, NDArray[Any]],
        current: Mapping[str, NDArray[Any]],
        *,
        window: Window | None = None,
        customers: int | None = None,
    ) -> None:
        """Columns by name. `customers` stands in for a `window` that is not known; without both rows count as independent."""
        self.reference, self.current, self.window = reference, current, window
        self.rows = len(next(iter(current.values())))
        self.customers = window.customers if window is not None else customers
        self._whole: dict[str, Measures] = {}
        self._parts: dict[tuple[str, str, int], Measures] = {}

    @cached_property
    def days(self) -> tuple[int, ...]:
        """The window's days that have rows, in order."""
        return () if self.window is None else tuple(int(day) for day in np.unique(self.window.day))

    def whole(self, name: str) -> Measures:
        """The whole window."""
        if name not in self._whole:
            rows, matched = self._everything
            self._whole[name] = self._measure(name, rows, matched)
        return self._whole[name]

    def only(self, name: str, day: int) -> Measures:
        """One day alone."""
        return self._part("only", name, day)

    def without(self, name: str, day: int) -> Measures:
        """The window without one day."""
        return self._part("without", name, day)

    def rows_on(self, day: int) -> int:
        return len(self._rows["only", day][0])

    def _part(self, kind: str, name: str, day: int) -> Measures:
        key = (kind, name, day)
        if key not in self._parts:
            self._parts[key] = self._measure(name, *self._rows[kind, day])
        return self._parts[key]

    @cached_property
    def _everything(self) -> tuple[Rows, Rows]:
        rows = np.arange(self.rows)
        return rows, self._same_weekdays(rows)

    @cached_property
    def _rows(self) -> dict[tuple[str, int], tuple[Rows, Rows]]:
        """By kind of part and day: the rows of the current sample, and those of the reference."""
        assert self.window is not None
        found = {}
        for day in self.days:
            for kind, mask in (("only", self.window.day == day), ("without", self.window.day != day)):
                rows = np.flatnonzero(mask)
                found[kind, day] = (rows, self._same_weekdays(rows))
        return found

    def _same_weekdays(self, rows: Rows) -> Rows:
        reference, current = self.reference.get(WEEKDAY), self.current.get(WEEKDAY)
        if reference is None or current is None:
            return np.arange(len(next(iter(self.reference.values()))))
        return same_weekdays(reference, np.asarray(current)[rows])

    def _measure(self, name: str, rows: Rows, matched: Rows) -> Measures:
        before, now = np.asarray(self.reference[name])[matched], np.asarray(self.current[name])[rows]
        return measure(before, now, rows_per_entity=self._repeated(rows))

    def _repeated(self, rows: Rows) -> float:
        """Rows of one customer among these, on average."""
        if self.customers is None or not len(rows):
            return 1.0
        if self.window is None or len(rows) == self.rows:
            return max(1.0, len(rows) / self.customers)
        return max(1.0, len(rows) / len(np.unique(self.window.customer[rows])))


def same_weekdays(reference: NDArray[Any], current: NDArray[Any]) -> Rows:
    """Rows of the reference, evenly spread over it, whose weekdays have the shares that they have in `current`.

    As many as can be had; all where the two share no weekday. A weekday that the reference hardly has (`SCARCE`) gives what
    it has.
    """
    days, counts = np.unique(current[np.isfinite(current)], return_counts=True)
    places = [np.flatnonzero(reference == day) for day in days]
    shared = sum(len(place) for place in places)
    if not shared:
        return np.arange(len(reference))
    wanted, there = counts / counts.sum(), np.array([len(place) for place in places]) / shared
    enough = there >= SCARCE * wanted
    scale = float((there[enough] / wanted[enough]).min()) * shared
    chosen = [
        place[np.linspace(0, len(place), min(len(place), round(scale * share)), endpoint=False).astype(np.intp)]
        for place, share in zip(places, wanted, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def date_of(day: int) -> date:
    """The date that is so many days after 1970-01-01."""
    return _EPOCH + timedelta(days=day)
