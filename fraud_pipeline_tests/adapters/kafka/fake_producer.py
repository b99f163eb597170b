"""A producer without a broker: it keeps what it was given, and confirms it when it is polled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Produced:
    topic: str
    value: bytes
    key: bytes
    headers: tuple[tuple[str, bytes], ...]

    def partition(self) -> int:
        return self.key[-1] % 4


class FakeProducer:
    """`room` messages wait at most; those whose key is in `refused` are never confirmed; without `answers` none is."""

    def __init__(self, *, room: int = 1_000, refused: frozenset[bytes] = frozenset(), answers: bool = True) -> None:
        self.produced: list[Produced] = []
        self.answers = answers
        self._room = room
        self._refused = refused
        self._waiting: list[tuple[Produced, Callable[[Any, Any], None]]] = []
        self.when_polled: Callable[[], None] = lambda: None

    def produce(
        self, topic: str, value: bytes, key: bytes, *, headers: Any, on_delivery: Callable[[Any, Any], None]
    ) -> None:
        if len(self._waiting) >= self._room:
            raise BufferError
        message = Produced(topic, value, key, tuple(headers))
        self.produced.append(message)
        self._waiting.append((message, on_delivery))

    def poll(self, timeout: float) -> int:
        self.when_polled()
        waiting, self._waiting = (self._waiting, []) if self.answers else ([], self._waiting)
        for message, report in waiting:
            report("refused" if message.key in self._refused else None, message)
        return len(waiting)

    def flush(self, timeout: float) -> int:
        self.poll(timeout)
        return len(self._waiting)

    def purge(self) -> None:
        waiting, self._waiting = self._waiting, []
        for message, report in waiting:
            report("purged", message)

    def __len__(self) -> int:
        return len(self._waiting)
