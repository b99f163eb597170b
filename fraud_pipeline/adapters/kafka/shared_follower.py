"""How a REST replica follows `shared-state`: every writer's closed minutes, merged as they come. Reads, and commits nothing.

A thread reads; what it read is merged in the event loop, where it is asked for.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
from confluent_kafka import OFFSET_BEGINNING as BEGINNING
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from fraud_pipeline.domain.feature_merged import MergedState
from fraud_pipeline.domain.minute_closing import Closing, ClosingParts
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.errors import StateError

CONSUMER: Final[dict[str, Any]] = {
    "auto.offset.reset": "error",  # what the log has no more is missing in every sum
    "enable.auto.offset.store": False,
    "fetch.wait.max.ms": 100,
}
POLL_S: Final = 0.2
AT_ONCE: Final = 500
RETRY_S: Final = 1.0
log = logging.getLogger(__name__)


class SharedFollower:
    """`consumer` makes one; `offsets` are the places that `merged` stands at, by partition."""

    def __init__(
        self,
        merged: MergedState,
        topic: str,
        *,
        partitions: int,
        offsets: Mapping[int, int],
        consumer: Callable[[], Consumer],
    ) -> None:
        self.merged = merged
        self.last_error = ""
        self.broken = ""
        """Why no value is exact any more, until a restart."""
        self._topic = topic
        self._partitions = partitions
        self._offsets = dict(offsets)
        self._make_consumer = consumer
        self._parts = ClosingParts()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shared-state", daemon=True)

    @property
    def closed(self) -> Mapping[str, int]:
        """By writer, the newest minute that it has closed."""
        return self.merged.closed

    def features(
        self, transactions: Sequence[Transaction], times: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """[n, F] with the shared columns as of the times (µs), and which rows are exact."""
        rows, exact = self.merged.features(transactions, times)
        return rows, (np.zeros(len(rows), bool) if self.broken else exact)

    def start(self) -> None:
        """Begin to follow; in the event loop that asks."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set() and not self.broken:
            consumer = self._make_consumer()
            try:
                self._follow(consumer)
            except (StateError, ValueError) as err:
                self.broken = f"{self._topic} cannot be followed: {err}"
                log.exception("%s", self.broken)
            except KafkaException as err:
                self.last_error = str(err)
                log.warning("%s waits: %s", self._topic, err)
                self._stop.wait(RETRY_S)
            finally:
                consumer.close()

    def _follow(self, consumer: Consumer) -> None:
        self._parts = ClosingParts()
        places = range(self._partitions)
        consumer.assign([TopicPartition(self._topic, place, self._offsets.get(place, BEGINNING)) for place in places])
        while not self._stop.is_set():
            closings: list[Closing] = []
            for message in consumer.consume(AT_ONCE, POLL_S):
                error = message.error()
                if error is not None:
                    self._judge(error)
                    continue
                self.last_error = ""
                closing = self._parts.add(orjson.loads(message.value() or b""))
                if closing is not None:  # a reader begins where a closing begins
                    self._offsets[int(message.partition() or 0)] = int(message.offset() or 0) + 1
                    closings.append(closing)
            if closings and self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._merge, closings)

    def _judge(self, error: KafkaError) -> None:
        if error.code() in {KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET}:
            raise StateError(
                f"{error.str()}.",
                remedy="A newer checkpoint of the shared state is needed: have the scorers run, then restart.",
            )
        if not error.retriable():
            raise KafkaException(error)
        self.last_error = error.str()

    def _merge(self, closings: Sequence[Closing]) -> None:
        try:
            for closing in closings:
                self.merged.merge(closing)
        except StateError as err:
            self.broken = str(err)
            log.exception("shared state cannot be merged")
