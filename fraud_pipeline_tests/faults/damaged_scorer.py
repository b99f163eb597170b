"""Scorers with one safeguard taken out, as negative controls: the comparison must find what each of them does.

`python -m fraud_pipeline_tests.faults.damaged_scorer DAMAGE`; `nothing` is a whole scorer on a log that takes every few batches back.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import TopicPartition

from fraud_pipeline.adapters.kafka import kafka_log as product
from fraud_pipeline.adapters.kafka.kafka_log import KafkaLog
from fraud_pipeline.adapters.kafka.topics import Topics
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.stream.checkpoint_keeper import CheckpointKeeper
from fraud_pipeline.adapters.stream.event_log import EventLog, LogRecord, Output, TransactionAborted
from fraud_pipeline.adapters.stream.scorer_loop import ScorerLoop
from fraud_pipeline.settings import Settings, load_settings
from fraud_pipeline.stream_runtime import StreamRuntime

ABORTED: Final = 5
"""Every so many batches one is taken back."""
DIES_AT: Final = 4
"""The batch at which a scorer dies between its decisions and its offsets, once in the life of its home: a slow machine makes few."""


class UnsteadyLog(KafkaLog):
    """Takes every fifth transaction back, after all of it was sent."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._batches = 0

    def _commit(self, outputs: Sequence[Output], positions: Mapping[int, int], membership: object) -> None:
        self._batches += 1
        if self._batches % ABORTED:
            super()._commit(outputs, positions, membership)
            return
        producer = self._producers[0]
        producer.begin_transaction()
        self._send(producer, outputs)
        producer.flush(product.REQUEST_TIMEOUT_S)
        producer.abort_transaction(product.COMMIT_TIMEOUT_S)
        raise TransactionAborted("One of a few is taken back.")

    def _send(self, producer: Any, outputs: Sequence[Output]) -> None:
        for output in outputs:
            where = {} if output.partition is None else {"partition": output.partition}
            producer.produce(output.topic, output.value, output.key, headers=output.headers, **where)


class OffsetsOutside(UnsteadyLog):
    """Commits the offsets after the transaction, and dies once between the two."""

    def _commit(self, outputs: Sequence[Output], positions: Mapping[int, int], membership: object) -> None:
        self._batches += 1
        producer = self._producers[0]
        producer.begin_transaction()
        self._send(producer, outputs)
        producer.commit_transaction(product.COMMIT_TIMEOUT_S)
        died = load_settings().home / "died"
        if self._batches >= DIES_AT and positions and outputs and not died.exists():
            died.touch()
            os._exit(9)
        offsets = [TopicPartition(self.topic, partition, offset) for partition, offset in positions.items()]
        self._consumer.commit(offsets=offsets, asynchronous=False)


class WithoutReplay(KafkaLog):
    """A recovery that does not read what came after the checkpoint."""

    def replay(self, partition: int, first: int, until: int) -> Iterator[Sequence[LogRecord]]:
        return iter(())


class WithoutOverlay(ScorerLoop):
    """A batch that is taken back leaves what it did to the states."""

    def _roll_back(self, batches: Any) -> None:
        for partition, owned in self._owned.items():
            owned.state.commit()
            for batch in reversed(batches):
                owned.waiting.give_back(batch.items.get(partition, []))
        assert self.merged is not None
        self.merged.commit()


class DamagedRuntime(StreamRuntime):
    """`loop`: what takes the loop's place; it writes in the loop's own thread, which a consumer's commit needs."""

    def __init__(self, settings: Settings, log: type[KafkaLog], loop: type[ScorerLoop]) -> None:
        super().__init__(settings, _opener(log))
        self._kind = loop

    def _work(self, loop: ScorerLoop, keeper: CheckpointKeeper, ledger: Ledger) -> None:
        damaged = object.__new__(self._kind)
        damaged.__dict__ = loop.__dict__ | {"_executor": None}
        self.loop = damaged
        super()._work(damaged, keeper, ledger)


DAMAGES: Final[dict[str, tuple[type[KafkaLog], type[ScorerLoop]]]] = {
    "nothing": (UnsteadyLog, ScorerLoop),
    "offsets_outside": (OffsetsOutside, ScorerLoop),
    "no_overlay": (UnsteadyLog, WithoutOverlay),
    "no_replay": (WithoutReplay, ScorerLoop),
}


def _opener(kind: type[KafkaLog]) -> Any:
    def open_log(settings: Settings, topics: Topics, group: str, instance: str) -> EventLog:
        shared = topics.shared_state
        return kind(settings, topic=topics.transactions, shared_topic=shared, group=group, instance=instance)

    return open_log


def main(damage: str) -> None:
    """Run until SIGTERM."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    runtime = DamagedRuntime(load_settings(), *DAMAGES[damage])
    signal.signal(signal.SIGTERM, lambda *_: runtime.stop())
    runtime.run()


if __name__ == "__main__":
    main(sys.argv[1])
