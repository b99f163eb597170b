"""Decided payments on their way into the ledger: whatever waits is committed together, by a thread of its own.

A group is answered when it is durable: in the ledger, or, while that is away and the policy allows it, in the local journal,
which is replayed in order as soon as the ledger answers again. Knows nothing of state, models or HTTP.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import Appended, LedgerEntry
from fraud_pipeline.adapters.ledger_writer import LedgerIdsTaken, LedgerWriter
from fraud_pipeline.adapters.local_journal import LocalJournal
from fraud_pipeline.errors import Busy, DependencyError, FraudError

MAX_GROUP: Final = 2_000
"""Entries per database transaction: 30 ms of work, beyond which a larger group saves nothing more."""
PROBE_S: Final = 1.0
"""How often a ledger that is away is tried again."""
REPLAY_AT_ONCE: Final = 1_000
log = logging.getLogger(__name__)

Where = Literal["ledger", "journal"]


@dataclass(slots=True)
class Outcome:
    """What became of a group. `error` None: it is durable `where`. `disputed`: ids of it were in the ledger already."""

    where: Where = "ledger"
    error: Exception | None = None
    disputed: bool = False


@dataclass(slots=True)
class Group:
    """Entries that are committed together. `done` is called in the committing thread.

    `degraded` gives them as the journal keeps them: their decisions say so.
    """

    entries: Sequence[LedgerEntry]
    done: Callable[[Group, Outcome], None]
    degraded: Callable[[], Sequence[LedgerEntry]]


class GroupCommit:
    """`journal` None refuses while the ledger is away. `replayed(disputed)` is called when the journal is empty again."""

    def __init__(
        self,
        ledger: Ledger,
        writer: LedgerWriter,
        *,
        journal: LocalJournal | None,
        replayed: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._ledger = ledger
        self._writer = writer
        self._journal = journal
        self._replayed = replayed
        self._queue: queue.SimpleQueue[Group | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="group-commit", daemon=True)
        self._probed_at = 0.0
        self.store_errors = 0
        self.last_error = ""
        self.journalled = len(journal) if journal is not None else 0
        self._submitted = 0
        self._settled = 0

    @property
    def waiting(self) -> int:
        """Groups that were submitted and are not settled."""
        return self._submitted - self._settled

    @property
    def has_journal(self) -> bool:
        """Whether payments are decided while the ledger is away."""
        return self._journal is not None

    def start(self) -> None:
        self._thread.start()

    def submit(self, group: Group) -> None:
        """Have a group committed; by one thread."""
        self._submitted += 1
        self._queue.put(group)

    def close(self) -> None:
        """Commit what waits, and end."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            groups = self._next()
            if groups is None:
                return
            if groups:
                self._settle(groups)
                self._settled += len(groups)
            elif self.journalled:
                self._look_after_journal()

    def _next(self) -> list[Group] | None:
        """The groups that wait, as many as fit one transaction; empty where the journal wants looking after; None at the end."""
        try:
            group = self._queue.get(timeout=PROBE_S if self.journalled else None)
        except queue.Empty:
            return []
        groups: list[Group] = []
        size = 0
        while group is not None:
            groups.append(group)
            size += len(group.entries)
            if size >= MAX_GROUP or self._queue.empty():
                return groups
            group = self._queue.get()
        if groups:
            self._queue.put(None)  # the end comes again after these
            return groups
        return None

    def _look_after_journal(self) -> None:
        try:
            self._replay_journal()
        except Exception:  # this thread answers everyone: it goes on, and the journal is tried again
            log.exception("the journal could not be replayed")

    def _settle(self, groups: list[Group]) -> None:
        try:
            if self.journalled and not self._replay_journal():
                self._to_journal(groups)
                return
            self._commit(groups)
        except Exception as err:  # every group must be answered, whatever went wrong
            log.exception("committing failed")
            _tell(groups, Outcome(error=err))

    def _commit(self, groups: list[Group]) -> None:
        try:
            self._writer.append(*(group.entries for group in groups))
        except LedgerIdsTaken:
            self._sort_out(groups)
        except (DependencyError, Busy) as err:
            self._note(err)
            self._to_journal(groups)
        else:
            self.last_error = ""
            _tell(groups, Outcome())

    def _sort_out(self, groups: list[Group]) -> None:
        """Somebody else wrote one of the ids: the long way appends the others."""
        for group in groups:
            try:
                self._writer.confirm()  # what follows goes by another connection
                appended = self._ledger.append(group.entries)
            except FraudError as err:
                self._note(err)
                _tell([group], Outcome(error=err))
            else:
                _tell([group], Outcome(disputed=_otherwise(appended)))

    def _to_journal(self, groups: list[Group]) -> None:
        for group in groups:
            if self._journal is None:
                away = DependencyError(f"The ledger is away: {self.last_error}", remedy="Try again in a moment.")
                _tell([group], Outcome(error=away))
                continue
            try:
                self._journal.append(group.degraded())
            except DependencyError as err:
                log.warning("the journal refuses: %s", err.message)
                _tell([group], Outcome(error=err))
            else:
                self.journalled = len(self._journal)
                _tell([group], Outcome("journal"))

    def _replay_journal(self) -> bool:
        """Bring the journal into the ledger where that answers; True where the journal is empty now."""
        assert self._journal is not None
        if time.monotonic() - self._probed_at < PROBE_S:
            return False
        self._probed_at = time.monotonic()
        disputed = False
        while found := self._journal.first(REPLAY_AT_ONCE):
            try:
                self._writer.confirm()  # what follows goes by another connection
                appended = self._ledger.append([entry for _, entry in found])
            except (DependencyError, Busy) as err:
                self._note(err)
                return False
            disputed |= _otherwise(appended)
            self._journal.remove_through(found[-1][0])
            self.journalled = len(self._journal)
        self.journalled, self.last_error = 0, ""
        log.info("the ledger answers again; the journal is in it")
        self._replayed(disputed)
        return True

    def _note(self, err: FraudError) -> None:
        self.store_errors += 1
        if not self.last_error:
            log.warning("the ledger is away: %s", err.message)
        self.last_error = err.message


def _otherwise(appended: Appended) -> bool:
    """Whether the log is not just the entries that were decided: what was known of them before was wrong."""
    return bool(appended.repeats or appended.conflicts or appended.released)


def _tell(groups: Sequence[Group], outcome: Outcome) -> None:
    for group in groups:
        group.done(group, outcome)
