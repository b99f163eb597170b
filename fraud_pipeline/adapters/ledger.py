"""The ledger: what was received, decided, labelled and promoted, kept for ever and never rewritten.

One class over SQLite and PostgreSQL. Each method is one database transaction: whole or not at all, and durable when it
returns. Knows nothing of features, models or MLflow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError as ConstraintViolated

from fraud_pipeline.adapters import (
    ledger_decisions,
    ledger_history,
    ledger_labels,
    ledger_log,
    ledger_notices,
    ledger_transactions,
)
from fraud_pipeline.adapters.ledger_database import LedgerDatabase
from fraud_pipeline.adapters.ledger_log import LogPage
from fraud_pipeline.adapters.ledger_records import (
    LOCAL_WRITER,
    Alert,
    Appended,
    DecisionRecord,
    DecisionRole,
    IdConflict,
    LedgerEntry,
    LogEvent,
    RecordedLabels,
    RecordedTransaction,
)
from fraud_pipeline.domain.drift_episode import DriftEpisode, DriftObservation, EpisodeAction, RunState
from fraud_pipeline.domain.notice import Notice
from fraud_pipeline.domain.promotion import Challenger, Promotion
from fraud_pipeline.domain.transaction import Label, LabelChange, Transaction
from fraud_pipeline.errors import IntegrityError, PromotionRefused

LOG_PAGE: Final = 5_000
"""Rows per read of a log: a few MB, and no read transaction stays open while the caller works."""
COLLISION_RETRIES: Final = 3
"""Two PostgreSQL sinks may bring the same id at once; the loser tries again and then sees it."""

Result = TypeVar("Result")


class Ledger:
    """Use `Ledger.open`; close it, or use it as a context manager. Threads may share one."""

    def __init__(self, database: LedgerDatabase) -> None:
        self._database = database

    @classmethod
    def open(cls, url: str) -> Ledger:
        """Open the ledger at a SQLAlchemy address and bring its schema up to date.

        Raises SettingsError for an address that cannot be one, DependencyError where nothing answers, IntegrityError
        for a damaged file or a schema newer than this code.
        """
        database = LedgerDatabase(url)
        try:
            database.migrate()
        except BaseException:
            database.close()
            raise
        return cls(database)

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def address(self) -> str:
        """Where it is, without a password."""
        return self._database.address

    def ping(self) -> None:
        """DependencyError where the database does not answer."""
        with self._database.reading() as connection:
            connection.execute(sa.text("SELECT 1"))

    # Transactions and decisions

    def append(self, entries: Sequence[LedgerEntry], *, writer: str = LOCAL_WRITER) -> Appended:
        """Append transactions, with their decisions, once per id, and release the labels that waited for them.

        An id that is there with the same content is a repeat, with other content a conflict; neither changes anything.
        """

        def work(connection: Connection) -> Appended:
            self._database.lock_labels(connection, exclusive=False)
            new, repeats, conflicts = _sort_out(connection, entries)
            recorded = ledger_transactions.insert(connection, new, writer=writer)
            ledger_decisions.insert_new(connection, [e.decision for e in new if e.decision is not None])
            released = ledger_labels.release_waiting(connection, recorded)
            return Appended(tuple(recorded), repeats, conflicts, tuple(released))

        return self._write(work)

    def record_decisions(self, records: Sequence[DecisionRecord]) -> int:
        """Keep decisions (a shadow's, or those that came by a topic of their own); those there already stay as they are.

        Returns how many were new.
        """
        return self._write(lambda connection: ledger_decisions.insert_new(connection, records))

    def adopt(self, past: Sequence[Transaction]) -> int:
        """Take in payments of the imported or simulated history, so that they can be labelled; returns how many were new."""
        return self._write(lambda connection: ledger_transactions.adopt(connection, past))

    def transaction(self, transaction_id: str) -> RecordedTransaction | None:
        with self._database.reading() as connection:
            return next(ledger_transactions.find(connection, [transaction_id]), None)

    def transactions(self, transaction_ids: Sequence[str]) -> list[RecordedTransaction]:
        """The recorded ones among these ids, in no particular order."""
        with self._database.reading() as connection:
            return list(ledger_transactions.find(connection, transaction_ids))

    def decision(self, transaction_id: str, *, role: DecisionRole = "decided") -> DecisionRecord | None:
        with self._database.reading() as connection:
            found = ledger_decisions.find(connection, [transaction_id])
            return next((record for record in found if record.role == role), None)

    def decided(self, transaction_ids: Sequence[str]) -> list[DecisionRecord]:
        """The answers that were given to these payments, in no particular order."""
        with self._database.reading() as connection:
            found = ledger_decisions.find(connection, transaction_ids)
            return [record for record in found if record.role == "decided"]

    def transactions_received(self, since: datetime, until: datetime) -> list[RecordedTransaction]:
        """What was received in [since, until), in each writer's order: a contiguous range of sequences."""
        with self._database.reading() as connection:
            return list(ledger_transactions.select_received(connection, since, until))

    def decisions(self, since: datetime, until: datetime, *, role: DecisionRole = "decided") -> list[DecisionRecord]:
        """What was decided in [since, until), by time."""
        with self._database.reading() as connection:
            return list(ledger_decisions.select_decided(connection, since, until, role=role))

    def recent(self, customer_id: str, *, limit: int) -> list[tuple[RecordedTransaction, DecisionRecord | None]]:
        """A customer's newest payments with their decisions, the newest first."""
        with self._database.reading() as connection:
            return ledger_decisions.select_recent(connection, customer_id, limit=limit)

    def open_alerts(self, *, limit: int = 100) -> list[Alert]:
        """The analysts' queue, the most probable fraud first."""
        with self._database.reading() as connection:
            return list(ledger_decisions.select_open_alerts(connection, limit=limit))

    # Labels

    def record_labels(self, labels: Sequence[Label]) -> RecordedLabels:
        """Keep every version of every label and return the changes (+1, 0, -1) that they make.

        The very same label again (every field) is a repeat and changes nothing. A label for an unknown transaction
        waits; `append` releases it when the transaction shows up.
        """

        def work(connection: Connection) -> RecordedLabels:
            self._database.lock_labels(connection, exclusive=True)
            return ledger_labels.record(connection, labels)

        return self._write(work)

    def labels_known(self, since: datetime, until: datetime) -> list[tuple[Label, LabelChange]]:
        """Labels of known transactions that we learned in [since, until), with their changes, by time."""
        with self._database.reading() as connection:
            return list(ledger_labels.select_known(connection, since, until))

    def read_log(self, writer: str = LOCAL_WRITER, *, after: int = 0) -> Iterator[LogEvent]:
        """A writer's log after a sequence: transactions and label changes in their one order.

        Only of writers whose log is the ledger; a Kafka partition's labels stand in Kafka.
        """
        while True:
            with self._database.reading() as connection:
                came = ledger_transactions.select_after(connection, writer, after, limit=LOG_PAGE)
                changes = ledger_labels.select_after(connection, writer, after, limit=LOG_PAGE)
            events = [LogEvent(t.sequence, transaction=t.transaction) for t in came]
            events += [LogEvent(sequence, label_change=change) for sequence, change in changes]
            events.sort(key=lambda e: e.sequence)
            # Past the end of a full page of either kind, events of that kind may be missing: stop before them.
            full = [page[-1] for page in (_places(came), [s for s, _ in changes]) if len(page) == LOG_PAGE]
            if full:
                events = [e for e in events if e.sequence <= min(full)]
            if not events:
                return
            yield from events
            after = events[-1].sequence

    def last_sequence(self, writer: str = LOCAL_WRITER) -> int:
        """The newest place of a writer's log; 0 before the first."""
        with self._database.reading() as connection:
            return ledger_log.last_sequence(connection, writer)

    def log_pages(
        self, writer: str = LOCAL_WRITER, *, after: int = 0, until: int, extra: tuple[str, ...] = ()
    ) -> Iterator[LogPage]:
        """A writer's log as columns, page by page; `extra` names more columns of the payments. StateError for a gap."""
        while after < until:
            with self._database.reading() as connection:
                page = ledger_log.read_page(connection, writer, after, until=until, extra=extra)
            yield page
            after = page.last

    def waiting_ids(self) -> set[str]:
        """Ids of unknown transactions that a label waits for."""
        with self._database.reading() as connection:
            return ledger_labels.waiting_ids(connection)

    @property
    def database(self) -> LedgerDatabase:
        """For those who keep a connection of their own: `LedgerWriter` and `LedgerLookup`."""
        return self._database

    # Promotions

    def promotions(self) -> list[Promotion]:
        """Every promotion, oldest first; the last one is the champion's."""
        with self._database.reading() as connection:
            return ledger_history.select_promotions(connection)

    def current_promotion(self) -> Promotion | None:
        """The promotion that made the present champion."""
        with self._database.reading() as connection:
            return ledger_history.newest_promotion(connection)

    def append_promotion(self, promotion: Promotion) -> None:
        """Append the row. PromotionRefused where another promotion came first."""
        try:
            with self._database.writing() as connection:
                ledger_history.insert_promotion(connection, promotion)
        except ConstraintViolated as err:
            raise PromotionRefused(
                f"Version {promotion.version} was not promoted: another promotion came first.",
                remedy="Look at `fraud models list`, and judge the candidate against the new champion.",
            ) from err

    # Challengers

    def challengers(self) -> list[Challenger]:
        """Every appointment and dismissal, oldest first; the last one holds."""
        with self._database.reading() as connection:
            return ledger_history.select_challengers(connection)

    def current_challenger(self) -> Challenger | None:
        """The row that holds: its `version` is None where the challenger was dismissed. None before the first row."""
        with self._database.reading() as connection:
            return ledger_history.newest_challenger(connection)

    def append_challenger(self, challenger: Challenger) -> None:
        """Append the row. PromotionRefused where another one came first."""
        try:
            with self._database.writing() as connection:
                ledger_history.insert_challenger(connection, challenger)
        except ConstraintViolated as err:
            raise PromotionRefused(
                "The challenger was not changed: somebody else has just changed it.",
                remedy="Look at `fraud models list`, and say it again.",
            ) from err

    # Drift episodes

    def last_episode(self) -> DriftEpisode | None:
        return next(iter(self.episodes(limit=1)), None)

    def episodes(self, *, limit: int = 50) -> list[DriftEpisode]:
        """The newest episodes with their attempts, newest first."""
        with self._database.reading() as connection:
            return ledger_history.select_episodes(connection, limit=limit)

    def apply_episode_action(
        self, action: EpisodeAction, observation: DriftObservation, *, verdict: Mapping[str, Any], now: datetime
    ) -> bool:
        """Write what `drift_episode.next_action` decided; False where someone else has just done it.

        To be called before the run is requested: the same run key again starts at most one run.
        """
        if action.kind == "none":
            return True
        try:
            with self._database.writing() as connection:
                return ledger_history.apply_action(connection, action, observation, verdict=verdict, now=now)
        except ConstraintViolated:
            return False

    def note_run(self, run_key: str, *, outcome: RunState, run_id: str) -> bool:
        """Write a requested run's state beside its attempt; False where no such run was requested."""
        return self._write(
            lambda connection: ledger_history.note_run(connection, run_key, outcome=outcome, run_id=run_id)
        )

    # Notices

    def tell(self, notice: Notice, *, now: datetime | None = None) -> bool:
        """Put a notice into the outbox, from which the channels are served; `notices.NoticeBook` reads it.

        False where this episode was told before, or where what it ends was never told.
        """
        told_at = now or datetime.now(UTC)
        return self._write(lambda connection: ledger_notices.insert(connection, notice, now=told_at))

    def _write(self, work: Callable[[Connection], Result]) -> Result:
        for _ in range(COLLISION_RETRIES):
            try:
                with self._database.writing() as connection:
                    return work(connection)
            except ConstraintViolated as err:
                collision = err
        raise IntegrityError(
            f"The ledger {self.address} refuses a row: {collision.orig}.",
            remedy="Two records claim the same place; check that each writer has one owner.",
        ) from collision


def _sort_out(
    connection: Connection, entries: Sequence[LedgerEntry]
) -> tuple[list[LedgerEntry], tuple[str, ...], tuple[IdConflict, ...]]:
    """Split into new entries, repeats and conflicts; a call may hold the same id twice."""
    ids = [e.transaction.transaction_id for e in entries]
    known = {t.transaction.transaction_id: t.transaction for t in ledger_transactions.find(connection, ids)}
    new: list[LedgerEntry] = []
    repeats: list[str] = []
    conflicts: list[IdConflict] = []
    for transaction_id, entry in zip(ids, entries, strict=True):
        if transaction_id not in known:
            known[transaction_id] = entry.transaction
            new.append(entry)
        elif different := ledger_transactions.differing_fields(known[transaction_id], entry.transaction):
            conflicts.append(IdConflict(transaction_id, different))
        else:
            repeats.append(transaction_id)
    return new, tuple(repeats), tuple(conflicts)


def _places(recorded: Iterable[RecordedTransaction]) -> list[int]:
    return [t.sequence for t in recorded]
