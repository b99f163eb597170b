"""The sink of a log in one file: it runs beside the scorer, in the same process, so that decisions reach the ledger.

The same sink as a broker's; only what it reads from and writes back to is the file. A thread of its own: the scorer waits for
no ledger.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

from fraud_pipeline.adapters.embedded.appending import EmbeddedTransactions
from fraud_pipeline.adapters.embedded.sink_reading import EmbeddedSinkConsumer
from fraud_pipeline.adapters.embedded.stream_file import StreamFile
from fraud_pipeline.adapters.kafka.messages import dead_letter
from fraud_pipeline.adapters.kafka.sink_messages import BadReceived, Kind, SinkReader
from fraud_pipeline.adapters.kafka.sink_metrics import SinkMetrics
from fraud_pipeline.adapters.kafka.sink_relay import LabelRelay
from fraud_pipeline.adapters.kafka.sink_service import Sink
from fraud_pipeline.adapters.kafka.sink_side import SinkSide, deletions
from fraud_pipeline.adapters.kafka.topics import Topics
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_outbox import LedgerOutbox
from fraud_pipeline.adapters.ledger_sink import LedgerSink
from fraud_pipeline.adapters.stream.event_log import Output

DRAIN_S: Final = 2.0
"""At a clean end: what was decided reaches the ledger; what does not is read at the next start. Well within a stop's 5 s."""
DRAIN_LOOK_S: Final = 0.02
JOIN_S: Final = 1.0
log = logging.getLogger(__name__)


class EmbeddedSink:
    """`start`, and `end` at the end; `failed` is called from its thread where it cannot go on, and `end` raises why."""

    def __init__(
        self,
        path: Path,
        ledger: Ledger,
        topics: Topics,
        *,
        currency: str,
        retention_days: int,
        now: Callable[[], datetime],
        failed: Callable[[], None],
    ) -> None:
        self._path, self._ledger, self._topics = path, ledger, topics
        self._failed = failed
        self._failure: BaseException | None = None
        self._metrics = SinkMetrics()
        kinds: dict[str, Kind] = {
            topics.transactions: "transactions", topics.decisions: "decisions", topics.alerts: "alerts",
            topics.labels: "labels", topics.shared_state: "shared_state",
        }  # fmt: skip
        self._kinds = kinds
        self._writes, outbox = LedgerSink(ledger.database), LedgerOutbox(ledger.database)
        side = SinkSide(
            lambda: LabelRelay(
                outbox, topics.transactions, producer=lambda: EmbeddedTransactions(StreamFile(path)), ends=self._ends
            ),
            outbox,
            self._metrics,
            deletions=partial(
                deletions, ledger.database, days=retention_days, topic=topics.transactions, now=now
            ),
        )  # fmt: skip
        self._sink = Sink(
            EmbeddedSinkConsumer(StreamFile(path), list(kinds), self._writes.begin),
            SinkReader(kinds, currency=currency, now=now),
            self._writes,
            self._metrics,
            refuse=partial(_bury, StreamFile(path), topics.dead_letters, now),
            side=side,
            first=(topics.transactions, 0),
        )
        self._thread = threading.Thread(target=self._run, name="sink", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Raises what had ended it before, if anything had."""
        deadline = time.monotonic() + DRAIN_S
        with StreamFile(self._path) as file:
            while self._thread.is_alive() and time.monotonic() < deadline and self._behind(file):
                time.sleep(DRAIN_LOOK_S)
        self._sink.stop()
        self._thread.join(JOIN_S)
        if self._failure is not None:
            raise self._failure

    def _behind(self, file: StreamFile) -> bool:
        read = self._writes.positions()
        return any(
            read.get((topic, number), 0) < end for topic in self._kinds for number, end in enumerate(file.ends(topic))
        )

    def _ends(self) -> dict[int, int]:
        with StreamFile(self._path) as file:
            return dict(enumerate(file.ends(self._topics.transactions)))

    def _run(self) -> None:
        try:
            self._sink.run()
        except BaseException as err:  # noqa: BLE001 raised again by `end`
            log.error("The ledger is not kept any more: %s", err)  # noqa: TRY400 `end` raises it whole
            self._failure = err
            self._failed()


def _bury(file: StreamFile, topic: str, now: Callable[[], datetime], bad: Sequence[BadReceived]) -> None:
    """Dead letters of the inbox, at least once."""
    letters = []
    for each in bad:
        message = each.message
        letter = dead_letter(
            message.key(), message.value(), message.headers(), source=each.place, error=each.error, at=now()
        )
        letters.append(Output.of(topic, None, letter))
    file.append(letters)
