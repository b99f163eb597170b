"""The sink's loop: messages into the ledger, batch by batch, through every outage; and what is done beside it.

One thread reads a batch while another one writes the batch before it. A third, on the sink that holds partition 0 of
`transactions`, relays labels and deletes what is old. Every failure has one way back: forget what was taken, ask the ledger
how far it is, read on from there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Protocol

from confluent_kafka import KafkaException

from fraud_pipeline.adapters.kafka.sink_messages import BadReceived, Received, SinkReader
from fraud_pipeline.adapters.kafka.sink_metrics import SinkMetrics
from fraud_pipeline.adapters.ledger_sink import LedgerSink, PositionLost
from fraud_pipeline.adapters.ledger_sink_rows import Move, SinkBatch, TopicPartition
from fraud_pipeline.errors import Busy, DependencyError, FraudError

FIRST_WAIT_S: Final = 0.1
LONGEST_WAIT_S: Final = 5.0
"""Between two tries while the ledger or the broker is away; it doubles from the first to this."""
LAG_EVERY_S: Final = 1.0
_log: Final = logging.getLogger(__name__)

Refuse = Callable[[Sequence[BadReceived]], None]
"""Makes dead letters of the inbox's bad messages; returns when the broker has them, or raises DependencyError."""


class Side(Protocol):
    """What runs beside the loop on one of the sinks."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


class Source(Protocol):
    """What the loop reads from: a broker's log (`SinkConsumer`), or one in a file."""

    assigned: tuple[TopicPartition, ...]
    rebalances: int

    @property
    def is_settled(self) -> bool: ...
    def start(self) -> None: ...
    def settle(self) -> None: ...
    def take(self) -> tuple[Sequence[Received], dict[TopicPartition, Move]]: ...
    def let_go(self) -> None: ...
    def wait(self, seconds: float) -> None: ...
    def lags(self) -> dict[TopicPartition, int]: ...
    def close(self) -> None: ...


class Sink:
    """`side` runs while this sink holds the partition `first`."""

    def __init__(
        self,
        consumer: Source,
        reader: SinkReader,
        ledger: LedgerSink,
        metrics: SinkMetrics,
        *,
        refuse: Refuse,
        side: Side,
        first: TopicPartition,
    ) -> None:
        self._consumer, self._reader, self._ledger, self._metrics = consumer, reader, ledger, metrics
        self._refuse, self._side, self._first = refuse, side, first
        self._stopping = threading.Event()
        self._rebalances = 0
        self._away_since: float | None = None
        self._wait_s = FIRST_WAIT_S
        self._lags_at = 0.0
        self._writer: ThreadPoolExecutor
        self._writing: Future[None] | None = None

    def stop(self) -> None:
        """Have `run` return after the batch that is being written; safe in a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Until `stop`. Raises StateError and IntegrityError: what waiting does not mend."""
        self._consumer.start()
        with ThreadPoolExecutor(1, "sink-writer") as self._writer:
            try:
                while not self._stopping.is_set():
                    try:
                        self._turn()
                    except PositionLost:
                        _log.warning("Another sink has moved on in a partition of this one; its batch is dropped.")
                        self._metrics.positions_lost.inc()
                        self._consumer.let_go()
                    except (DependencyError, Busy) as err:
                        self._come_back(err)
                    except KafkaException as err:
                        self._come_back(DependencyError(f"The broker does not answer: {err.args[0]}."))
                self._finish_quietly()
            finally:
                self._side.stop()
                self._consumer.close()

    def _turn(self) -> None:
        if not self._consumer.is_settled:
            self._finish_write()
            self._consumer.settle()
            self._follow_assignment()
        messages, moves = self._consumer.take()
        batch, refused = self._reader.read(messages)
        self._finish_write()
        if refused:
            self._refuse(refused)
        if moves:
            batch.moves = moves
            self._writing = self._writer.submit(self._write, batch)
        else:
            self._back_again()
        self._note_lags()

    def _write(self, batch: SinkBatch) -> None:
        """In the writer's thread."""
        started = time.perf_counter()
        written = self._ledger.write(batch)
        self._metrics.wrote(written, seconds=time.perf_counter() - started)
        for transaction_id in written.conflicts:
            _log.warning("%s came again with other content; the ledger keeps the first.", transaction_id)

    def _finish_write(self) -> None:
        """Wait for the batch that is being written. Raises what stopped it: then nothing taken since may be written."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()
            self._back_again()

    def _finish_quietly(self) -> None:
        """At the end, or after another failure: what was not written is read again by whoever comes next."""
        try:
            self._finish_write()
        except (PositionLost, DependencyError, Busy) as err:
            _log.warning("The last batch was not written: %s", str(err) or "another sink has moved on")

    def _follow_assignment(self) -> None:
        if self._consumer.rebalances == self._rebalances:
            return
        self._rebalances = self._consumer.rebalances
        self._metrics.rebalances.set(self._rebalances)
        self._side.stop()
        if self._first in self._consumer.assigned:
            self._side.start()

    def _come_back(self, err: FraudError) -> None:
        """Say it once, wait longer each time, stay in the group meanwhile."""
        self._metrics.errors.labels("ledger" if "ledger" in err.message else "kafka").inc()
        if self._away_since is None:
            self._away_since = time.monotonic()
            _log.error("%s Trying again until it answers; nothing is lost meanwhile.", err)
        self._finish_quietly()
        self._consumer.let_go()
        until = time.monotonic() + self._wait_s
        while (left := until - time.monotonic()) > 0 and not self._stopping.is_set():
            self._consumer.wait(min(left, 0.2))
        self._wait_s = min(self._wait_s * 2, LONGEST_WAIT_S)

    def _back_again(self) -> None:
        if self._away_since is not None:
            _log.warning("It goes on after %.1f s.", time.monotonic() - self._away_since)
            self._away_since, self._wait_s = None, FIRST_WAIT_S

    def _note_lags(self) -> None:
        if time.monotonic() >= self._lags_at:
            self._lags_at = time.monotonic() + LAG_EVERY_S
            self._metrics.set_lags(self._consumer.lags())
            for (kind, code), count in self._reader.bad.items():
                self._metrics.bad.labels(kind, code).inc(count)
            self._reader.bad.clear()
