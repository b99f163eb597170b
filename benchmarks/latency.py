"""From a payment produced to its decision readable: `python -m benchmarks.latency [--rate 1000] [--seconds 20] [--json]`.

The scorer and a bare transactional loop (no work in between) in turns, on one broker and the same cores, fed alike; the clock
runs from the moment a payment is handed to the producer to the moment a read_committed consumer has its decision.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from benchmarks import bare_loop
from benchmarks.serving_home import say, traffic_of, trained_home
from benchmarks.stream import PREFIX, scorers
from fraud_pipeline.adapters.kafka.connection import producer_config
from fraud_pipeline.adapters.kafka.messages import HEADERS
from fraud_pipeline.adapters.kafka.partitions import partition_of
from fraud_pipeline.adapters.kafka.topic_admin import create
from fraud_pipeline.adapters.kafka.topics import Topics
from fraud_pipeline.settings import Settings

CLONES: Final = 400
"""Customers made of each of the world's: at 1,000/s a customer then pays every ten minutes, not every second."""
WARM_S: Final = 5.0
"""Of each turn, not counted: the group forms, kernels and caches fill."""
PARTITIONS: Final = 4
BATCH: Final = 2_000
DRAIN_S: Final = 20.0
PEER_WAIT_S: Final = 0.2
TURNS: Final = 2


def main() -> None:
    """Both in turns; print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each turn, after the first few")
    parser.add_argument("--home", help="a home with a champion, such as `make demo` leaves")
    parser.add_argument("--json", action="store_true", help="print only the JSON object")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        peer(options.peer)
        return
    with trained_home(options.home) as home, bare_loop.broker() as address:
        result = run(home, address, options)
    if not options.json:
        for name, value in result.items():
            print(f"{name:>16}  {value}")
    print(json.dumps(result))


def run(home: Path, address: str, options: argparse.Namespace) -> dict[str, Any]:
    """Everything, with its numbers."""
    settings, topics = Settings(home=home, kafka_bootstrap_servers=address, topic_prefix=PREFIX), Topics(PREFIX)
    create(settings, topics, partitions=PARTITIONS)
    bare_loop.make_topics(address, PARTITIONS, "bare.in", "bare.out")
    ours: list[float] = []
    bare: list[float] = []
    for turn in range(TURNS):
        say(f"turn {turn + 1}: the bare loop")
        with peer_process(address):
            bare += measured(settings, "bare.in", "bare.out", home, options)
        say(f"turn {turn + 1}: the scorer")
        with scorers(home, address, 1):
            ours += measured(settings, topics.transactions, topics.decisions, home, options)
    found = {"p50_ms": percentile(ours, 0.5), "p99_ms": percentile(ours, 0.99)}
    base = {"bare_p50_ms": percentile(bare, 0.5), "bare_p99_ms": percentile(bare, 0.99)}
    return {
        "rate": options.rate, "payments": len(ours), **found, **base,
        "p50_ratio": round(found["p50_ms"] / base["bare_p50_ms"], 2),
        "p99_ratio": round(found["p99_ms"] / base["bare_p99_ms"], 2),
    }  # fmt: skip


def measured(settings: Settings, source: str, target: str, home: Path, options: argparse.Namespace) -> list[float]:
    """Milliseconds of every payment after the first few seconds."""
    sent: dict[str, float] = {}
    found: list[float] = []
    over = threading.Event()
    reader = threading.Thread(target=read, args=(settings, target, sent, found, over))
    reader.start()
    try:
        wait_for_the_first(settings, source, home, sent, found)
        send(settings, source, home, sent, rate=options.rate, seconds=WARM_S)
        first = len(found) + len(sent)
        send(settings, source, home, sent, rate=options.rate, seconds=options.seconds)
        deadline = time.monotonic() + DRAIN_S
        while sent and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        over.set()
        reader.join()
    if sent:
        raise SystemExit(f"{len(sent):,} payments to {source} came to no decision")
    return found[min(first, len(found) - 1) :]


def wait_for_the_first(settings: Settings, source: str, home: Path, sent: dict[str, float], found: list[float]) -> None:
    """Until the other side answers."""
    send(settings, source, home, sent, rate=20, seconds=1)
    deadline = time.monotonic() + bare_loop.ANSWER_S
    while sent:
        if time.monotonic() > deadline:
            raise SystemExit(f"nobody answers to {source}; {len(found)} came")
        time.sleep(0.05)


def send(settings: Settings, topic: str, home: Path, sent: dict[str, float], *, rate: int, seconds: float) -> None:
    """Payments of now, evenly."""
    producer = Producer({**producer_config(settings), "linger.ms": 1})
    traffic, headers = traffic_of(home), list(HEADERS["transaction"])
    started = time.perf_counter()
    for number in range(int(rate * seconds)):
        payment = traffic.payment()
        payment["customer_id"] = f"{payment['customer_id']}-{number * 7 % CLONES}"
        payment["event_time"] = datetime.now(UTC).isoformat()
        key = payment["customer_id"].encode()
        while time.perf_counter() < started + number / rate:
            producer.poll(max(0.0, min(0.002, started + number / rate - time.perf_counter())))
        sent[payment["transaction_id"]] = time.perf_counter()
        producer.produce(topic, orjson.dumps(payment), key, partition_of(key, PARTITIONS), headers=headers)  # type: ignore[arg-type]
    producer.flush(bare_loop.ANSWER_S)


def read(settings: Settings, topic: str, sent: dict[str, float], found: list[float], over: threading.Event) -> None:
    """Take the time of every decision that can be read."""
    consumer = Consumer({
        "bootstrap.servers": settings.kafka_bootstrap_servers, "group.id": "latency", "isolation.level": "read_committed",
        "fetch.wait.max.ms": 5, "enable.auto.commit": False, "auto.offset.reset": "latest",
    })  # fmt: skip
    consumer.assign([TopicPartition(topic, each, end_of(consumer, topic, each)) for each in range(PARTITIONS)])
    while not over.is_set():
        for message in consumer.consume(500, 0.002):
            now = time.perf_counter()
            if message.error() is None:
                began = sent.pop(identity(message.value() or b""), None)
                if began is not None:
                    found.append(1_000 * (now - began))
    consumer.close()


def end_of(consumer: Consumer, topic: str, partition: int) -> int:
    """The place after its last message; a new partition has a leader a moment after it is there."""
    deadline = time.monotonic() + bare_loop.ANSWER_S
    while True:
        try:
            return int(consumer.get_watermark_offsets(TopicPartition(topic, partition))[1])
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def identity(value: bytes) -> str:
    """The payment's id, which stands first in a payment and in a decision."""
    return value.split(b'"', 4)[3].decode()


def peer(address: str) -> None:
    """The bare loop: what comes goes out, in one transaction each."""
    reads, writes = bare_loop.open_loop(
        address, "bare.in", group="bare", transactional_id="bare", producers=2,
        producer={"linger.ms": 1}, consumer={"fetch.wait.max.ms": 20, "auto.offset.reset": "earliest"},
    )  # fmt: skip
    going = [True]
    signal.signal(signal.SIGTERM, lambda *_: going.clear())
    number = 0
    while going:
        messages = reads.consume(1, PEER_WAIT_S)
        if not messages:
            continue
        messages += reads.consume(BATCH, 0.0)
        producer = writes[number % len(writes)]
        number += 1
        producer.begin_transaction()
        for message in messages:
            producer.produce("bare.out", message.value(), message.key(), message.partition() or 0)
        producer.send_offsets_to_transaction(
            reads.position(reads.assignment()), reads.consumer_group_metadata(), bare_loop.ANSWER_S
        )
        producer.commit_transaction(bare_loop.ANSWER_S)
    reads.close()


@contextmanager
def peer_process(address: str) -> Iterator[None]:
    """The bare loop in a process of its own, as the scorer has one; ended by its id."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.latency", "--peer", address])
    try:
        yield
    finally:
        process.terminate()
        process.wait(DRAIN_S)


def percentile(values: list[float], share: float) -> float:
    """Rounded to a hundredth."""
    return round(sorted(values)[int(len(values) * share)], 2)


if __name__ == "__main__":
    main()
