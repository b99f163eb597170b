"""From a replica's journal into `transactions`: in order, each row until the log has confirmed it.

At least once: a row that a producer may have sent before it failed is sent again, and the scorer drops repeats by their id.
The client keeps what it was given for as long as the broker is away; the journal is the bound. One thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from confluent_kafka import KafkaError, KafkaException

from fraud_pipeline.adapters.kafka.messages import ATTACHED, HEADERS
from fraud_pipeline.adapters.replica_journal import ReplicaJournal, Row
from fraud_pipeline.errors import FraudError

PRODUCER: Final[dict[str, Any]] = {
    "enable.idempotence": True,  # one partition's messages stay in their order, whatever is sent twice below
    "message.timeout.ms": 0,  # nothing is given up: the journal holds it anyway
    "linger.ms": 2,
    "queue.buffering.max.messages": 20_000,
    "retry.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1_000,
}
"""Over the connection's configuration."""
MOST_IN_FLIGHT: Final = 10_000
AT_ONCE: Final = 500
LOG_LATE_S: Final = 2.0
"""A broker confirms within milliseconds; one that takes longer is away, and decisions say so."""
RETRY_S: Final = 1.0
POLL_S: Final = 0.005
IDLE_S: Final = 0.2
CLOSE_S: Final = 5.0
"""For what is under way at the end; the rest stays in the journal."""
log = logging.getLogger(__name__)


class Producer(Protocol):
    """What this needs of confluent_kafka's Producer."""

    def produce(
        self, topic: str, value: bytes, key: bytes, *, headers: Any, on_delivery: Callable[[Any, Any], None]
    ) -> None: ...
    def poll(self, timeout: float) -> int: ...
    def flush(self, timeout: float) -> int: ...
    def purge(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A payment that the log has, and where."""

    transaction_id: str
    writer: str
    offset: int


class Relay:
    """`wake` after rows were journalled; `confirmed` is called in the relay's thread."""

    def __init__(
        self,
        journal: ReplicaJournal,
        topic: str,
        *,
        producer: Callable[[], Producer],
        confirmed: Callable[[Sequence[Confirmed]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.relayed = 0
        self.errors = 0
        self.last_error = ""
        self._journal = journal
        self._topic = topic
        self._make_producer = producer
        self._confirmed = confirmed
        self._clock = clock
        self._producer: Producer | None = None
        self._in_flight: dict[int, tuple[str, float]] = {}
        self._done: list[tuple[int, Confirmed]] = []
        self._sent_through = 0
        self._failed = False
        self._ending = False
        self._awake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    @property
    def late(self) -> bool:
        """Whether the log does not confirm what it was given."""
        oldest = next(iter(list(self._in_flight.values())[:1]), None)
        return bool(self.last_error) or (oldest is not None and self._clock() - oldest[1] > LOG_LATE_S)

    @property
    def in_flight(self) -> int:
        """Rows that were sent and are not confirmed."""
        return len(self._in_flight)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There are new rows."""
        self._awake.set()

    def close(self) -> None:
        """Send what is journalled and wait a moment for its confirmation; the journal keeps the rest."""
        self._ending = True
        self._awake.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        deadline = 0.0
        while True:
            try:
                more = self._turn()
            except FraudError as err:
                self._note(err.message)
                more = False
            except Exception as err:  # this thread relays for all: it goes on with a fresh producer
                log.exception("relaying failed")
                self._note(f"{type(err).__name__}: {err}")
                self._failed = True
                more = False
            if self._ending:
                deadline = deadline or self._clock() + CLOSE_S
                if (not more and not self._in_flight) or self._clock() > deadline:
                    break
            if self._failed:
                self._drop_producer()
                self._awake.wait(0.0 if self._ending else RETRY_S)
        self._drop_producer()

    def _turn(self) -> bool:
        """Send what is new, take in what was confirmed; True where there may be more to send."""
        if self._producer is None:
            self._producer = self._make_producer()
        producer, sent = self._producer, 0
        if len(self._in_flight) < MOST_IN_FLIGHT:
            self._awake.clear()
            for row in self._journal.after(self._sent_through, AT_ONCE):
                if not self._send(producer, row):
                    break
                sent += 1
        if not sent and not self._in_flight:
            if not self._ending:
                self._awake.wait(IDLE_S)
            return False
        producer.poll(0 if sent else POLL_S)
        self._take_in()
        return sent > 0

    def _send(self, producer: Producer, row: Row) -> bool:
        """False where the client has no room."""

        def delivered(err: Any, message: Any) -> None:
            self._delivered(row, err, message)

        headers = [*HEADERS["transaction"], (ATTACHED, row.decision)]
        self._in_flight[row.position] = (row.transaction_id, self._clock())
        try:
            producer.produce(self._topic, row.value, row.key, headers=headers, on_delivery=delivered)
        except BufferError:
            del self._in_flight[row.position]
            producer.poll(POLL_S)
            return False
        except KafkaException as err:
            self._delivered(row, err.args[0], None)
        self._sent_through = row.position
        return True

    def _delivered(self, row: Row, err: Any, message: Any) -> None:
        self._in_flight.pop(row.position, None)
        if err is None:
            writer = f"{self._topic}[{message.partition()}]"
            self._done.append((row.position, Confirmed(row.transaction_id, writer, message.offset())))
        elif err.code() in {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE}:
            log.error("payment %s is kept aside: the log does not take it: %s", row.transaction_id, err)
            self._journal.refuse(row.position, str(err))
        elif not self._failed:
            self._note(f"{self._topic}: {err}")
            self._failed = True  # a fresh producer sends everything again, in order

    def _take_in(self) -> None:
        done, self._done = self._done, []
        if done:
            self._journal.remove([position for position, _ in done])
            self.relayed += len(done)
            self.last_error = ""
            self._confirmed([confirmed for _, confirmed in done])

    def _drop_producer(self) -> None:
        """Forget what is under way: it is sent again from the journal."""
        if self._producer is not None:
            self._producer.purge()
            self._producer.flush(POLL_S)
            self._producer = None
        try:
            self._take_in()
        except FraudError as err:
            self._note(err.message)
        self._in_flight.clear()
        self._sent_through, self._failed = 0, False

    def _note(self, reason: str) -> None:
        self.errors += 1
        if not self.last_error:
            log.warning("decisions wait in the journal: %s", reason)
        self.last_error = reason
