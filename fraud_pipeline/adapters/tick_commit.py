"""Group commits in the event loop itself, where a commit is a write to the page cache: no thread is woken for it.

What came in during one turn of the loop is committed at its end, as one group. Where that does not go at once (another
process writes, an id is taken, the ledger is away), the groups go the long way, through the thread of `GroupCommit`, and
those after them too until it has settled all: the order of the log stays the order of decisions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from fraud_pipeline.adapters.group_commit import Group, GroupCommit, Outcome
from fraud_pipeline.adapters.ledger_writer import LedgerWriter

MAX_ROWS: Final = 64
"""A turn with more is a batch's: those are the thread's, which commits them while the next are decided."""


class TickCommit:
    """The face of a `GroupCommit` for an event loop."""

    def __init__(self, commits: GroupCommit, writer: LedgerWriter) -> None:
        self._commits = commits
        self._writer = writer
        self._ready: list[Group] = []

    @property
    def journalled(self) -> int:
        """Entries in the journal."""
        return self._commits.journalled

    @property
    def has_journal(self) -> bool:
        """Whether payments are decided while the ledger is away."""
        return self._commits.has_journal

    @property
    def store_errors(self) -> int:
        """Failed commits."""
        return self._commits.store_errors

    @property
    def last_error(self) -> str:
        """Why the ledger is away; empty where it is not."""
        return self._commits.last_error

    def start(self) -> None:
        self._commits.start()

    def close(self) -> None:
        """Commit what waits, and end. Not in the event loop."""
        self._commits.close()

    def submit(self, group: Group) -> None:
        """Have a group committed at the end of this turn of the loop, or by the thread."""
        if not self._ready and (not self._writer.can_at_once or self._commits.waiting or self._commits.journalled):
            self._commits.submit(group)
            return
        self._ready.append(group)
        if len(self._ready) == 1:
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        groups, self._ready = self._ready, []
        if sum(len(group.entries) for group in groups) > MAX_ROWS:
            self._hand_over(groups)
            return
        try:
            self._writer.append_at_once(*(group.entries for group in groups))
        except Exception:  # noqa: BLE001 whatever it is, the thread meets it too, and every group must be answered
            self._hand_over(groups)
            return
        outcome = Outcome()
        for group in groups:
            group.done(group, outcome)

    def _hand_over(self, groups: Sequence[Group]) -> None:
        for group in groups:
            self._commits.submit(group)
