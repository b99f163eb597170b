"""Producers into a log in one file, with the face of a broker's client: what `fraud produce` and the relay of labels write with."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from fraud_pipeline.adapters.embedded.stream_file import Appended, StreamFile
from fraud_pipeline.adapters.stream.event_log import Output

APPEND: Final = 2_000
"""Messages of one transaction at most: some 10 ms, in which the scorer cannot write."""
LINGER_S: Final = 0.01
"""How long a message waits for others at most while many come: a transaction costs as much as ten messages."""
Delivered = Callable[[Any, Any], None]


class Delivery:
    """What a delivery report names."""

    def __init__(self, place: Appended) -> None:
        self._place = place

    def partition(self) -> int:
        return self._place.partition

    def offset(self) -> int:
        return self._place.offset


class EmbeddedProducer:
    """Gathers messages and appends them together; every one is reported once."""

    def __init__(self, file: StreamFile) -> None:
        self._file = file
        self._waiting: list[tuple[Output, Delivered]] = []
        self._since = 0.0

    def produce(self, topic: str, value: bytes, key: bytes, *, headers: Any, on_delivery: Delivered) -> None:
        """Takes one; appends those that wait where there are enough."""
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.append((Output(topic, None, key, value, headers), on_delivery))
        if len(self._waiting) >= APPEND:
            self._append()

    def poll(self, timeout: float) -> int:
        """Append what has waited long enough; `timeout` is waited in any case, as a client's poll without news does."""
        if self._waiting and (timeout > 0 or time.monotonic() - self._since >= LINGER_S):
            self._append()
        if timeout > 0:
            time.sleep(timeout)
        return 0

    def flush(self, timeout: float) -> int:  # noqa: ARG002 a file answers or fails
        self._append()
        return 0

    def purge(self) -> None:
        """Give up what waits."""
        given_up, self._waiting = self._waiting, []
        for _, report in given_up:
            report("given up", None)

    def __len__(self) -> int:
        return len(self._waiting)

    def _append(self) -> None:
        """An error leaves them waiting: nothing was appended."""
        if not self._waiting:
            return
        places = self._file.append([output for output, _ in self._waiting])
        taken, self._waiting = self._waiting, []
        for (_, report), place in zip(taken, places, strict=True):
            report(None, Delivery(place))


class EmbeddedTransactions:
    """A transactional producer (`sink_relay.LabelProducer`): what is produced appears at the commit, all of it."""

    def __init__(self, file: StreamFile) -> None:
        self._file = file
        self._outputs: list[Output] = []

    def init_transactions(self, timeout: float) -> None:
        """Nobody can have left one open: there is one relay, in the scorer's own process."""

    def begin_transaction(self) -> None:
        self._outputs = []

    def produce(self, topic: str, *, partition: int, key: bytes, value: bytes, headers: Sequence[Any]) -> None:
        self._outputs.append(Output(topic, partition, key, value, list(headers)))

    def commit_transaction(self, timeout: float) -> None:  # noqa: ARG002 a file answers or fails
        self._file.append(self._outputs)
        self._outputs = []
