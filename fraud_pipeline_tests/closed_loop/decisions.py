"""What the topic `decisions` says, as any consumer downstream reads it: committed, once, by version and route."""

from __future__ import annotations

import logging
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from fraud_pipeline.adapters.kafka.connection import KafkaSettings, consumer_config
from fraud_pipeline.adapters.kafka.messages import ROLE, header_text

log = logging.getLogger(__name__)
AT_ONCE: Final = 2_000
WAIT_S: Final = 0.2


class DecisionWatch:
    """Reads in a thread of its own from `start` to `stop`. `route_of`: how a payment was sent."""

    def __init__(self, settings: KafkaSettings, topic: str, partitions: int, route_of: Callable[[str], str]) -> None:
        self.count: Counter[str] = Counter()
        """Decisions by transaction id; each must be 1."""
        self.by_kind: Counter[tuple[str, str]] = Counter()
        """(version, decision)."""
        self.degraded: Counter[str] = Counter()
        self._moments: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._blocked: deque[str] = deque()
        self._settings, self._topic, self._partitions, self._route_of = settings, topic, partitions, route_of
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="decisions", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def newly_blocked(self) -> list[str]:
        """The payments that were blocked since it was last asked."""
        return [self._blocked.popleft() for _ in range(len(self._blocked))]

    def first(self, route: str, version: str, *, since: float) -> float | None:
        """When (s since 1970) a payment of this route was first decided by a version, from a moment on."""
        moments = [at for at in tuple(self._moments[route, version]) if at >= since]
        return min(moments, default=None)

    def _run(self) -> None:
        config = consumer_config(self._settings, group="closed-loop")
        reader = Consumer({**config, "isolation.level": "read_committed"}, logger=log)
        try:
            reader.assign([TopicPartition(self._topic, each, OFFSET_BEGINNING) for each in range(self._partitions)])
            while not self._stopping.is_set():
                for message in reader.consume(AT_ONCE, WAIT_S):
                    if message.error() is None:
                        self._take(message)
        except BaseException as err:  # noqa: BLE001 raised again by `stop`
            self._failure = err
        finally:
            reader.close()

    def _take(self, message: Any) -> None:
        if header_text(message.headers(), ROLE) == "shadow":
            return
        found = orjson.loads(message.value())
        identity, version, verdict = found["transaction_id"], str(found["model_version"]), found["decision"]
        self.count[identity] += 1
        self.by_kind[version, verdict] += 1
        self.degraded.update(found.get("degraded") or ())
        if verdict == "BLOCK":
            self._blocked.append(identity)
        self._moments[self._route_of(identity), version].append(datetime.fromisoformat(found["decided_at"]).timestamp())
