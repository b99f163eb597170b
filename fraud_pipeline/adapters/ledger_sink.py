"""What the stream brings, in the ledger: rows and the positions they were read up to, in one database transaction.

So nothing is lost and nothing doubled, whatever dies: who comes after reads on from `positions`. And of two sinks that
believe to own a partition one is told so, since a batch moves a position only from where that sink read on. Knows nothing
of Kafka but topics, partitions and offsets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fraud_pipeline.adapters import ledger_labels, ledger_transactions
from fraud_pipeline.adapters.ledger_database import LedgerDatabase
from fraud_pipeline.adapters.ledger_decisions import close_labelled_alerts
from fraud_pipeline.adapters.ledger_decisions import find as find_decisions
from fraud_pipeline.adapters.ledger_records import DecisionRecord, RecordedTransaction
from fraud_pipeline.adapters.ledger_schema import alerts, decisions, labels, minute_closings, sink_positions
from fraud_pipeline.adapters.ledger_schema import transactions as transactions_table
from fraud_pipeline.adapters.ledger_sink_rows import RawTransaction, RowMaker, SinkBatch, TopicPartition, Written
from fraud_pipeline.adapters.ledger_sink_statements import SinkStatements
from fraud_pipeline.errors import IntegrityError

FEW_WAITING: Final = 2_000
"""Waiting labels' ids read whole at each batch; where there are more, the batch's ids are looked up instead."""


class PositionLost(Exception):
    """Another sink has moved a partition of the batch; nothing was written."""


class LedgerSink:
    """One thread at a time."""

    def __init__(self, database: LedgerDatabase) -> None:
        self._database = database
        dialect = database.engine.dialect.name
        self._sql, self._rows = SinkStatements(dialect), RowMaker(dialect)

    def begin(self, starts: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Where to read on in each of these partitions; one that the ledger does not know begins at the offset given."""
        with self._database.writing() as connection:
            rows = [(topic, partition, at, at) for (topic, partition), at in sorted(starts.items())]
            with self._cursor(connection) as cursor:
                self._sql.insert_new(cursor, sink_positions, rows)
            known = positions(connection)
        return {each: known[each] for each in starts}

    def skip(self, each: TopicPartition, *, to: int) -> None:
        """Go on at a later offset: what lies before it is lost, and the ledger says from where on it is complete."""
        where = (sink_positions.c.topic == each[0], sink_positions.c.partition == each[1])
        with self._database.writing() as connection:
            connection.execute(sa.update(sink_positions).where(*where).values(first_offset=to, next_offset=to))

    def positions(self) -> dict[TopicPartition, int]:
        """The next offset of every partition that the ledger knows."""
        with self._database.reading() as connection:
            return positions(connection)

    def write(self, batch: SinkBatch) -> Written:
        """Write the batch and move its positions. Raises PositionLost, DependencyError, Busy, IntegrityError."""
        done = Written()
        with self._database.writing() as connection, self._cursor(connection) as cursor:
            if batch.transactions or batch.alerts or batch.inbox:
                self._database.lock_labels(connection, exclusive=bool(batch.inbox))
            moves = [(move.next_offset, *each, move.expected) for each, move in sorted(batch.moves.items())]
            if not self._sql.move(cursor, moves):
                raise PositionLost
            if batch.transactions:
                self._write_transactions(connection, cursor, batch.transactions, done)
            if batch.labels:
                again = self._sql.place_labels(cursor, [self._rows.label(raw) for raw in batch.labels])
                _count(done, "labels", len(batch.labels), len(batch.labels) - again)
            if batch.decisions:
                self._write_decisions(connection, cursor, batch.decisions, done)
            if batch.alerts:
                new = self._sql.insert_new(cursor, alerts, [self._rows.alert(alert) for alert in batch.alerts])
                close_labelled_alerts(connection, [alert.transaction_id for alert in batch.alerts])
                _count(done, "alerts", len(batch.alerts), new)
            if batch.closings:
                new = self._sql.insert_new(cursor, minute_closings, [self._rows.closing(c) for c in batch.closings])
                _count(done, "closings", len(batch.closings), new)
            if batch.inbox:
                recorded = ledger_labels.record(connection, batch.inbox)
                _count(done, "inbox", len(batch.inbox), len(batch.inbox) - len(recorded.repeats))
        return done

    def _write_transactions(
        self, connection: Connection, cursor: Any, raw: Sequence[RawTransaction], done: Written
    ) -> None:
        new = self._sql.insert_new(cursor, transactions_table, [self._rows.transaction(each) for each in raw])
        taken = set() if new == len(raw) else _taken(connection, raw, done)
        _count(done, "transactions", len(raw), new)
        done.repeats["transactions"] -= len(done.conflicts)
        arrived = [each for each in raw if (each.writer, each.sequence) not in taken]
        waited = _waited_for(connection, arrived)
        recorded = [RecordedTransaction(w.transaction, w.writer, w.sequence, w.received_at) for w in waited]
        done.released = len(ledger_labels.release_waiting(connection, recorded))

    def _write_decisions(
        self, connection: Connection, cursor: Any, records: Sequence[DecisionRecord], done: Written
    ) -> None:
        new = self._sql.insert_new(cursor, decisions, [self._rows.decision(record) for record in records])
        _count(done, "decisions", len(records), new)
        if new < len(records):
            kept = {
                (r.transaction_id, r.role): r for r in find_decisions(connection, [r.transaction_id for r in records])
            }
            others = tuple(r.transaction_id for r in records if kept[r.transaction_id, r.role] != r)
            done.conflicts += others
            done.repeats["decisions"] -= len(others)

    @contextmanager
    def _cursor(self, connection: Connection) -> Iterator[Any]:
        """The driver's own cursor in the connection's transaction; its failures as the ledger's own errors."""
        driver = self._database.engine.dialect.loaded_dbapi
        cursor = connection.connection.cursor()
        try:
            yield cursor
        except driver.IntegrityError as err:
            raise IntegrityError(
                f"The ledger {self._database.address} refuses a row of the stream: {str(err).splitlines()[0]}.",
                remedy="A place in the log holds something else than when it was read: was the topic made anew?",
            ) from err
        except driver.Error as err:
            raise self._database.translate(err) or err from err
        finally:
            cursor.close()


def positions(connection: Connection) -> dict[TopicPartition, int]:
    """The next offset of every partition that the ledger knows."""
    table = sink_positions.c
    rows = connection.execute(sa.select(table.topic, table.partition, table.next_offset))
    return {(topic, partition): next_offset for topic, partition, next_offset in rows}


def _taken(connection: Connection, raw: Sequence[RawTransaction], done: Written) -> set[tuple[str, int]]:
    """The places whose ids came before from another place; notes those with other content as conflicts."""
    ids = list(dict.fromkeys(each.transaction.transaction_id for each in raw))
    kept = {found.transaction.transaction_id: found for found in ledger_transactions.find(connection, ids)}
    taken, conflicts = set(), []
    for each in raw:
        first = kept.get(each.transaction.transaction_id)
        if first is None:
            raise IntegrityError(
                f"{each.writer}@{each.sequence} holds transaction {each.transaction.transaction_id}, and in the ledger another one.",
                remedy="The topic was made anew under an old name: use another FRAUD_TOPIC_PREFIX or an empty ledger.",
            )
        if (first.writer, first.sequence) == (each.writer, each.sequence):
            continue
        taken.add((each.writer, each.sequence))
        if ledger_transactions.differing_fields(first.transaction, each.transaction):
            conflicts.append(each.transaction.transaction_id)
    done.conflicts += tuple(conflicts)
    return taken


def _waited_for(connection: Connection, arrived: Sequence[RawTransaction]) -> list[RawTransaction]:
    """Those of the payments that a label may wait for; which are few, or all where many labels wait."""
    query = sa.select(labels.c.transaction_id).where(labels.c.sequence.is_(None), labels.c.writer.is_(None))
    waiting = set(connection.execute(query.limit(FEW_WAITING + 1)).scalars())
    if len(waiting) > FEW_WAITING:
        return list(arrived)
    return [each for each in arrived if each.transaction.transaction_id in waiting]


def _count(done: Written, table: str, brought: int, new: int) -> None:
    done.rows[table] = new
    done.repeats[table] = brought - new
