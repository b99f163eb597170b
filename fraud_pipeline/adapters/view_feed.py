"""What a scorer does with the state view: after its commits it has the customers that changed written there.

`committed` returns at once and never fails: a thread sends, and while it does, changes gather. A view that is away is tried
again; one that has lost anything gets everything anew, in slices, while the scorer goes on. Knows nothing of Kafka.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, Literal

from fraud_pipeline.adapters.state_view import StateView, Written
from fraud_pipeline.domain.customer_record import CustomerRecords
from fraud_pipeline.errors import DependencyError

WRITE_EVERY_S: Final = 0.05
"""How soon one write follows another: customers that pay often are then written once, and making records takes 10 us each."""
RETRY_S: Final = 0.5
LOOK_EVERY_S: Final = 1.0
"""How often a view is looked at while nobody pays: what is lost then is rebuilt before the next payment reads it."""
SLICE: Final = 2_000
"""Customers at once while everything is written: 20 ms of making records."""
log = logging.getLogger(__name__)

Kind = Literal["changes", "part", "all"]


class ViewFeed:
    """The customers of one writer. `committed` and `tick` are called by the thread that owns the state."""

    def __init__(
        self,
        view: StateView,
        writer: str,
        *,
        customers: Callable[[], Iterable[str]],
        records: CustomerRecords,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.writer = writer
        self.reach: int | None = None
        """How far the view is known to reach; None while everything is being written, or nothing is known."""
        self.errors = 0
        self.older = 0
        self.strangers = 0
        self.rebuilds = 0
        self._view = view
        self._customers = customers
        self._records = records
        self._clock = clock
        self._offset = -1
        self._dirty: set[str] = set()
        self._all: list[str] = []
        self._failed: tuple[str, ...] = ()
        self._token = ""
        self._known = False
        self._next_at = 0.0
        self._look_at = 0.0
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = threading.Event()
        self._idle.set()
        self._thread: threading.Thread | None = None

    def committed(self, offset: int, customer_ids: Iterable[str]) -> None:
        """The state holds the log up to `offset`, the next place; that is committed, and these customers have changed."""
        self._offset = offset
        self._dirty.update(customer_ids)
        self.tick()

    @property
    def waiting(self) -> int:
        """Customers that are not written yet."""
        return len(self._dirty) + len(self._all)

    def tick(self) -> None:
        """Have written what waits, where nothing is being written: to be called now and then while nothing is committed."""
        if self._offset < 0 or not self._idle.is_set() or self._clock() < self._next_at:
            return
        self._dirty.update(self._failed)
        self._failed = ()
        if not self._known:
            self._start(self._look)
        elif self.reach is None:
            self._write_part()
        elif self._dirty or self.reach < self._offset or self._clock() >= self._look_at:
            self._write_changes(self.reach)

    def close(self) -> None:
        """End after what is being sent; what waits is the next owner's."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()

    def _look(self) -> None:
        """What a former owner left is whole where it ends where we begin; else everything is written."""
        reach = self._view.reaches().get(self.writer)
        self.reach = reach if reach is not None and reach == self._offset and not self._dirty else None
        self._known = True

    def _write_changes(self, since: int) -> None:
        offset, changed = self._offset, list(self._dirty)
        content = list(zip(changed, self._records.of(changed), strict=True))
        self._dirty.clear()

        def send() -> None:
            try:
                written = self._view.write(self.writer, offset, content, since=since)
            except DependencyError:
                self._again(changed)
                raise
            self._count(written)
            self.reach = None if written.reach is None else max(written.reach, offset)
            if self.reach is None:
                self._again(changed)

        self._start(send)

    def _write_part(self) -> None:
        """One slice of everything, with what has changed; after the last one the view reaches this offset."""
        beginning = not self._token
        if beginning:
            self._all = list(self._customers())
            self.rebuilds += 1
            log.info("%s: all %d customers are written to the state view", self.writer, len(self._all))
        offset = self._offset
        chosen = list(dict.fromkeys([*self._dirty, *self._all[-SLICE:]]))
        del self._all[-SLICE:]
        content = list(zip(chosen, self._records.of(chosen), strict=True))
        self._dirty.clear()
        last = not self._all

        def send() -> None:
            try:
                if beginning:
                    self._token = self._view.begin(self.writer)
                self._count(self._view.write_only(self.writer, offset, content))
                done = last and self._view.complete(self.writer, self._token, offset)
            except DependencyError:
                self._again(chosen)
                self._token = ""  # begin anew: what was lost is not known
                raise
            if last:
                self._token = ""
                self.reach = offset if done else None

        self._start(send)

    def _again(self, customer_ids: Iterable[str]) -> None:
        """In the sending thread, while the other one leaves everything alone."""
        self._failed = tuple(customer_ids)

    def _start(self, job: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"view-{self.writer}", daemon=True)
            self._thread.start()
        self._idle.clear()
        self._next_at = self._clock() + WRITE_EVERY_S
        self._look_at = self._next_at + LOOK_EVERY_S
        self._jobs.put(job)

    def _count(self, written: Written) -> None:
        self.older += written.older
        if written.strangers and not self.strangers:
            log.error(
                "%s: customers of the state view had come from another writer; is a customer on two partitions?",
                self.writer,
            )
        self.strangers += written.strangers

    def _run(self) -> None:
        failing = False
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except DependencyError as err:
                self.errors += 1
                if not failing:
                    log.warning("%s: the state view is not written: %s", self.writer, err.message)
                failing = True
                self._next_at = self._clock() + RETRY_S
            except Exception:  # the scorer goes on without its view, and tries again
                log.exception("%s: the state view is not written", self.writer)
                self.reach, self._token = None, ""
                self._next_at = self._clock() + RETRY_S
            else:
                failing = False
            self._idle.set()
