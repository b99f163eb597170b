"""What a writer tells the others when it closes minutes: how often each shared entity was used in them, and what was learned.

A closing is integers by minute and id, so closings of different writers may be merged in any order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fraud_pipeline.domain.feature_layout import ENTITY_KINDS
from fraud_pipeline.errors import StateError

Ints = npt.NDArray[np.int64]

ROWS_PER_PART: Final = 10_000
"""Rows of one message: about 400 kB of JSON, under every broker's default limit of 1 MB."""


@dataclass(frozen=True)
class Rows:
    """n facts about entities: `kinds` [n] and `ids` name them; `numbers` [n, 3] are minute and two more.

    As counts: (minute, payments, hundredths). As marks: (minute, matured hour, change) of a label, or (minute, customer's
    hash, 0) of a device.
    """

    kinds: Ints
    ids: list[str]
    numbers: Ints

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def none(cls) -> Rows:
        return cls(np.empty(0, np.int64), [], np.empty((0, 3), np.int64))

    def slice(self, start: int, stop: int) -> Rows:
        return Rows(self.kinds[start:stop], self.ids[start:stop], self.numbers[start:stop])

    def as_lists(self) -> list[Any]:
        """JSON-able columns."""
        return [self.kinds.tolist(), self.ids, *self.numbers.T.tolist()]

    @classmethod
    def from_lists(cls, columns: Any) -> Rows:
        """The reverse of `as_lists`; ValueError where the columns do not belong together."""
        kinds, ids, *numbers = columns
        kinds, numbers = np.asarray(kinds, np.int64), np.asarray(numbers, np.int64)
        if numbers.shape != (3, len(ids)) or kinds.shape != (len(ids),):
            raise ValueError("the columns differ in length")
        if len(ids) and not (kinds.min() >= 0 and kinds.max() < len(ENTITY_KINDS)):
            raise ValueError("there is no such kind of entity")
        return cls(kinds, list(ids), np.ascontiguousarray(numbers.T))


@dataclass(frozen=True)
class Closing:
    """Writer `writer` adds nothing more to minutes up to `through` (minutes since 1970).

    `offset` is the place in its log before which it closed them; `by_clock`, that no event there tells so, but the clock.
    """

    writer: str
    through: int
    offset: int
    by_clock: bool
    counts: Rows = field(default_factory=Rows.none)
    marks: Rows = field(default_factory=Rows.none)

    def parts(self) -> Iterator[dict[str, Any]]:
        """JSON-able messages; a reader takes the minutes as closed at the last of them, `part == parts`."""
        parts = max(1, -(-max(len(self.counts), len(self.marks)) // ROWS_PER_PART))
        for part in range(parts):
            first, last = part * ROWS_PER_PART, (part + 1) * ROWS_PER_PART
            yield {
                "writer": self.writer,
                "minute": self.through,
                "offset": self.offset,
                "by_clock": self.by_clock,
                "part": part + 1,
                "parts": parts,
                "counts": self.counts.slice(first, last).as_lists(),
                "marks": self.marks.slice(first, last).as_lists(),
            }


class ClosingParts:
    """Puts closings together from their messages, writer by writer."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Mapping[str, Any]]] = {}

    def add(self, message: Mapping[str, Any]) -> Closing | None:
        """The closing that this message completes; StateError for a message that is none, or out of turn."""
        try:
            writer, part, parts = str(message["writer"]), int(message["part"]), int(message["parts"])
            waiting = [] if part == 1 else self._waiting.pop(writer, [])
            waiting.append(message)
            if len(waiting) != part:
                raise StateError(
                    f"Part {part} of {parts} of a closing of {writer} came without those before it.",
                    remedy="The reader must begin where a closing begins: take an older checkpoint.",
                )
            if part < parts:
                self._waiting[writer] = waiting
                return None
            return Closing(
                writer, int(message["minute"]), int(message["offset"]), bool(message["by_clock"]),
                _joined([each["counts"] for each in waiting]), _joined([each["marks"] for each in waiting]),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as err:
            raise StateError(f"A message on shared-state is no closing: {err!r}.") from err


def _joined(parts: list[Any]) -> Rows:
    rows = [Rows.from_lists(part) for part in parts]
    if len(rows) == 1:
        return rows[0]
    return Rows(
        np.concatenate([each.kinds for each in rows]),
        [identity for each in rows for identity in each.ids],
        np.concatenate([each.numbers for each in rows]),
    )
