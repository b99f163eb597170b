"""A bare exactly-once loop: consume, produce, commit the offsets in the same transaction, and no work in between.

    python -m benchmarks.bare_loop --messages 100000 --batch 500 --json

The peer of `benchmarks.stream` and `benchmarks.latency`: same broker, same payload and batch sizes, so what is slower than
this is ours. Kafka is started for the run, on the same cores, unless FRAUD_KAFKA_BOOTSTRAP_SERVERS names one.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from fraud_pipeline.adapters.local_services.kafka_server import KafkaServer

ANSWER_S: Final = 60.0
"""Longest wait for the broker in any one step."""
IDLE_S: Final = 30.0
"""Without a message for so long the loop gives up: the group has not formed, or messages are missing."""
PAYMENT_BYTES: Final = 450
DECISION_BYTES: Final = 1_300
"""What a payment and its decision with vector and reasons take as JSON."""
PRODUCER: Final[dict[str, Any]] = {"compression.type": "lz4", "linger.ms": 5, "transaction.timeout.ms": 10_000}
CONSUMER: Final[dict[str, Any]] = {
    "auto.offset.reset": "earliest",
    "enable.auto.commit": False,
    "isolation.level": "read_committed",
    "partition.assignment.strategy": "range",
    "fetch.wait.max.ms": 100,
}


@dataclass(frozen=True, slots=True)
class Throughput:
    """What a run took."""

    messages: int
    batch: int
    producers: int
    transactions: int
    seconds: float
    rows_per_s: float
    commit_p50_ms: float
    commit_p99_ms: float


def open_loop(
    address: str,
    source: str,
    *,
    group: str,
    transactional_id: str,
    producers: int = 1,
    producer: Mapping[str, Any] | None = None,
    consumer: Mapping[str, Any] | None = None,
) -> tuple[Consumer, list[Producer]]:
    """A member of the group, and the producers whose transactions it uses in turn.

    A producer that begins again right after its commit meets its own markers still being written, is refused
    (CONCURRENT_TRANSACTIONS), and librdkafka waits 20 ms; with a second one in turn it does not.
    """
    where = {"bootstrap.servers": address}
    own = {**where, **PRODUCER, **(producer or {})}
    writes = [Producer({**own, "transactional.id": f"{transactional_id}-{number}"}) for number in range(producers)]
    for each in writes:
        each.init_transactions(ANSWER_S)
    reads = Consumer({**where, **CONSUMER, "group.id": group, **(consumer or {})})
    reads.subscribe([source])
    return reads, writes


def one_transaction(
    reads: Consumer, writes: Producer, target: str, value: bytes, *, batch: int, wait_s: float
) -> tuple[int, float]:
    """Messages of one transaction (0: none came), and how long its commit took."""
    messages = reads.consume(batch, wait_s)
    if not messages:
        return 0, 0.0
    writes.begin_transaction()
    for message in messages:
        writes.produce(target, value, message.key(), partition=message.partition() or 0)
    writes.send_offsets_to_transaction(reads.position(reads.assignment()), reads.consumer_group_metadata(), ANSWER_S)
    started = time.perf_counter()
    writes.commit_transaction(ANSWER_S)
    return len(messages), time.perf_counter() - started


def run(
    address: str,
    source: str,
    target: str,
    *,
    messages: int,
    batch: int,
    value: bytes,
    wait_s: float = 0.2,
    **options: Any,
) -> Throughput:
    """Move so many messages; the clock starts after the first transaction, when the group has formed."""
    reads, writes = open_loop(
        address, source, group=f"bare-{uuid4().hex[:8]}", transactional_id=f"bare-{uuid4().hex[:8]}", **options
    )
    commits: list[float] = []
    moved, started, heard = 0, 0.0, time.perf_counter()
    try:
        while moved < messages or not started:
            count, commit_s = one_transaction(
                reads, writes[len(commits) % len(writes)], target, value, batch=batch, wait_s=wait_s
            )
            now = time.perf_counter()
            if not count:
                if now - heard > IDLE_S:
                    raise TimeoutError(f"{moved:,} of {messages:,} messages of {source} came")
                continue
            heard = now
            if not started:
                started = now
                messages -= count
                continue
            moved += count
            commits.append(commit_s)
        seconds = time.perf_counter() - started
    finally:
        reads.close()
    ordered = sorted(commits)
    return Throughput(
        moved, batch, len(writes), len(commits), seconds, moved / seconds,
        1_000 * ordered[len(ordered) // 2], 1_000 * ordered[int(len(ordered) * 0.99)],
    )  # fmt: skip


@contextmanager
def broker() -> Iterator[str]:
    """The address of the broker that the settings name, or of one that is started for the run."""
    named = os.environ.get("FRAUD_KAFKA_BOOTSTRAP_SERVERS")
    if named:
        yield named
        return
    with tempfile.TemporaryDirectory(prefix="bare-loop-") as folder:
        server = KafkaServer(Path(folder), ends_with_parent=True)
        try:
            server.start()
            yield server.address
        finally:
            server.kill()


def make_topics(address: str, partitions: int, *names: str) -> None:
    """New topics, seen by every client."""
    client = AdminClient({"bootstrap.servers": address})
    for future in client.create_topics([NewTopic(name, partitions, 1) for name in names]).values():
        future.result(ANSWER_S)
    deadline = time.monotonic() + ANSWER_S
    while not set(names) <= set(client.list_topics(timeout=ANSWER_S).topics):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the topics {', '.join(names)} did not appear")


def fill(address: str, topic: str, messages: int, value: bytes, *, partitions: int) -> None:
    """Messages in every partition, in turn."""
    producer = Producer({"bootstrap.servers": address, "compression.type": "lz4", "linger.ms": 20})
    for number in range(messages):
        while True:
            try:
                producer.produce(topic, value, str(number).encode(), partition=number % partitions)
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(ANSWER_S):
        raise TimeoutError(f"{topic} was not filled")


def payload(size: int) -> bytes:
    """Text that compresses about as JSON of payments does: half of it is noise."""
    noise = os.urandom(size // 4).hex().encode()
    return (noise + b'{"transaction_id":"","amount":12.5,"currency":"EUR"}' * size)[:size]


def measured(address: str, arguments: argparse.Namespace, **options: Any) -> Throughput:
    """One run over new topics."""
    name = uuid4().hex[:8]
    make_topics(address, arguments.partitions, f"{name}.in", f"{name}.out")
    fill(address, f"{name}.in", arguments.messages, payload(PAYMENT_BYTES), partitions=arguments.partitions)
    return run(
        address, f"{name}.in", f"{name}.out",
        messages=arguments.messages, batch=arguments.batch, value=payload(arguments.value_bytes),
        producers=arguments.producers, **options,
    )  # fmt: skip


def main(line: Sequence[str] | None = None, say: Callable[[str], None] = print) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--producers", type=int, default=1, help="used in turn, each with its own transactional id")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--value-bytes", type=int, default=DECISION_BYTES)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(line)
    with broker() as address:
        result = measured(address, arguments)
    if arguments.json:
        say(json.dumps(asdict(result)))
        return
    say(f"{result.rows_per_s:,.0f} messages/s in transactions of {result.batch}, {result.producers} producers in turn")
    say(f"commit {result.commit_p50_ms:.1f} ms at p50, {result.commit_p99_ms:.1f} ms at p99")


if __name__ == "__main__":
    main()
