"""A replica's decided payments on their way to durable answers: journalled, then put to their claims, in groups and in order.

Answered is what is in the journal and, where the view answers, what nobody else answered first. Knows no HTTP and no models.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from fraud_pipeline.adapters.claims import Claim
from fraud_pipeline.adapters.replica_journal import ReplicaJournal, Row
from fraud_pipeline.adapters.state_view_reader import VIEW_PAUSE_S
from fraud_pipeline.errors import DependencyError

MAX_GROUP: Final = 1_000
log = logging.getLogger(__name__)


class Claims(Protocol):
    """What this needs of the state view."""

    def settle(self, decided: Sequence[tuple[str, Claim]]) -> list[Claim | None]: ...
    def release(self, claims: Iterable[tuple[str, Claim]]) -> None: ...


@dataclass(slots=True)
class Decided:
    """One payment with its answer. `done(error, other)` is called in the committing thread: `other` was answered elsewhere.

    `held` is the claim as it was made. `row` None: the log has the payment, and only its claim lacks the answer.
    """

    transaction_id: str
    row: Row | None
    held: Claim
    claim: Claim
    done: Callable[[Exception | None, Claim | None], None]


class ReplicaCommit:
    """`start` first, `close` last. `wake` has the relay look at the journal."""

    def __init__(
        self,
        journal: ReplicaJournal,
        view: Claims,
        *,
        wake: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store_errors = 0
        self.last_error = ""
        self.unsettled = 0
        """Decisions that were answered without their claim: the view was away."""
        self._journal = journal
        self._view = view
        self._wake = wake
        self._clock = clock
        self._ask_again_at = 0.0
        self._queue: queue.SimpleQueue[Decided | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="replica-commit", daemon=True)

    @property
    def journalled(self) -> int:
        """Entries in the journal."""
        return len(self._journal)

    def start(self) -> None:
        self._thread.start()

    def submit(self, decided: Decided) -> None:
        """Have a payment journalled and settled."""
        self._queue.put(decided)

    def close(self) -> None:
        """Commit what waits, and end."""
        if self._thread.ident is not None:
            self._queue.put(None)
            self._thread.join()

    def _run(self) -> None:
        while True:
            group, ending = self._next()
            if group:
                try:
                    self._commit(group)
                except Exception as err:  # everyone must be answered, whatever went wrong
                    log.exception("committing failed")
                    for each in group:
                        each.done(err, None)
            if ending:
                return

    def _next(self) -> tuple[list[Decided], bool]:
        group: list[Decided] = []
        first = self._queue.get()
        while first is not None:
            group.append(first)
            if len(group) >= MAX_GROUP or self._queue.empty():
                return group, False
            first = self._queue.get()
        return group, True

    def _commit(self, group: list[Decided]) -> None:
        try:
            rows = [each.row for each in group if each.row is not None]
            last = self._journal.append(rows) if rows else None
        except DependencyError as err:
            self.store_errors, self.last_error = self.store_errors + 1, err.message
            log.warning("the journal refuses: %s", err.message)
            for each in group:
                each.done(err, None)
            self._give_up(group)
            return
        self.last_error = ""
        others = self._settled(group)
        overtaken = [each.transaction_id for each, other in zip(group, others, strict=True) if other is not None]
        if overtaken:
            self._journal.remove_ids(overtaken)
        for each, other in zip(group, others, strict=True):
            each.done(None, other)
        if last is not None:
            self._journal.release(last)
            self._wake()

    def _settled(self, group: list[Decided]) -> list[Claim | None]:
        if self._clock() >= self._ask_again_at:
            try:
                return self._view.settle([(each.transaction_id, each.claim) for each in group])
            except DependencyError:
                self._ask_again_at = self._clock() + VIEW_PAUSE_S
        self.unsettled += len(group)
        return [None] * len(group)

    def _give_up(self, group: list[Decided]) -> None:
        """Leave the ids to others at once, instead of when the claims end."""
        if self._clock() >= self._ask_again_at:
            try:
                self._view.release([(each.transaction_id, each.held) for each in group])
            except DependencyError:
                self._ask_again_at = self._clock() + VIEW_PAUSE_S
