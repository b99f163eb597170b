"""The stream's scorer against a bare exactly-once loop: `python -m benchmarks.stream [--rows 200000] [--scorers 1] [--json]`.

A real broker on the same cores, a champion of the usual size, payments produced beforehand; `python -m streaming.scorer` as
a user runs it. The bare loop reads the same topic with the same batches, writes values as large as decisions and does no
work. Bar: 15,000/s of one process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import orjson
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from benchmarks import bare_loop
from benchmarks.serving_home import environment, say, traffic_of, trained_home
from fraud_pipeline.adapters.kafka.connection import producer_config
from fraud_pipeline.adapters.kafka.messages import HEADERS
from fraud_pipeline.adapters.kafka.topic_admin import create
from fraud_pipeline.adapters.kafka.topic_reader import read_topic
from fraud_pipeline.adapters.kafka.topics import Topics
from fraud_pipeline.adapters.local_services.ports import free_port
from fraud_pipeline.adapters.simulated_traffic import SimulatedTraffic
from fraud_pipeline.adapters.stream.scorer_loop import MAX_BATCH
from fraud_pipeline.settings import Settings
from fraud_pipeline.stream_runtime import GROUP

PREFIX: Final = "benchmark."
STARTED_S: Final = 180.0
STOPPED_S: Final = 20.0
LOOK_S: Final = 0.1
WARM_SHARE: Final = 0.1
"""Of the payments, decided before the clock starts: caches fill, the group settles."""


def main() -> None:
    """Make, produce, score, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--scorers", type=int, default=1)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--home", help="a home with a champion, such as `make demo` leaves")
    parser.add_argument("--no-bare", action="store_true", help="leave the bare loop out")
    parser.add_argument("--json", action="store_true", help="print only the JSON object")
    options = parser.parse_args()
    with trained_home(options.home) as home, bare_loop.broker() as address:
        result = run(home, address, options)
    if not options.json:
        for name, value in result.items():
            print(f"{name:>24}  {value:,}" if isinstance(value, int | float) else f"{name:>24}  {value}")
    print(json.dumps(result))


def run(home: Path, address: str, options: argparse.Namespace) -> dict[str, Any]:
    """Everything, with its numbers."""
    settings, topics = Settings(home=home, kafka_bootstrap_servers=address, topic_prefix=PREFIX), Topics(PREFIX)
    create(settings, topics, partitions=options.partitions)
    say(f"producing {options.rows:,} payments")
    fill(settings, topics, traffic_of(home), options.rows)
    with scorers(home, address, options.scorers) as running:
        say("scoring")
        rate = measured_rate(settings, topics, options.partitions, options.rows)
        stages = [stage_times(each.port) for each in running]
    sizes = [len(message.value() or b"") for message in read_topic(settings, topics.decisions, group="benchmark")]
    result: dict[str, Any] = {
        "rows": options.rows,
        "scorers": options.scorers,
        "partitions": options.partitions,
        "rows_per_s": round(rate),
        "decision_bytes": round(sum(sizes) / len(sizes)),
        "decided": len(sizes),
        "us_per_row": stages[0],
    }
    if not options.no_bare:
        say("the bare loop")
        bare_loop.make_topics(address, options.partitions, "bare.out")
        bare = bare_loop.run(
            address, topics.transactions, "bare.out", messages=options.rows, batch=MAX_BATCH, producers=2,
            value=bare_loop.payload(result["decision_bytes"]),
        )  # fmt: skip
        result |= {"bare_rows_per_s": round(bare.rows_per_s), "bare_ratio": round(rate / bare.rows_per_s, 3)}
    return result


def fill(settings: Settings, topics: Topics, traffic: SimulatedTraffic, rows: int) -> None:
    """Payments into the topic."""
    producer = Producer({**producer_config(settings), "linger.ms": 20})
    for _ in range(rows):
        payment = traffic.payment()
        key, value = payment["customer_id"].encode(), orjson.dumps(payment)
        while True:
            try:
                producer.produce(topics.transactions, value, key, headers=list(HEADERS["transaction"]))
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(bare_loop.ANSWER_S):
        raise SystemExit("the broker did not take all payments")


class Scorer:
    """One scorer process on a copy of the home: what it keeps is its own."""

    def __init__(self, home: Path, address: str, folder: Path, number: int) -> None:
        self.port = free_port()
        self.log = folder / f"scorer-{number}.log"
        variables = {
            **environment(home), "FRAUD_KAFKA_BOOTSTRAP_SERVERS": address, "FRAUD_TOPIC_PREFIX": PREFIX,
            "FRAUD_SCORER_METRICS_PORT": str(self.port),
        }  # fmt: skip
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "streaming.scorer", "--log"],
                env={**os.environ, **variables}, stdout=output, stderr=output,
            )  # fmt: skip

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOPPED_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def scorers(home: Path, address: str, count: int) -> Iterator[Sequence[Scorer]]:
    """So many scorers of one group, ended by their process ids."""
    with tempfile.TemporaryDirectory(prefix="fraud-benchmark-") as folder, ExitStack() as ending:
        own = Path(folder) / "home"
        shutil.copytree(home, own)
        running = []
        for number in range(count):
            running.append(Scorer(own, address, Path(folder), number))
            ending.callback(running[-1].stop)
        yield running


def measured_rate(settings: Settings, topics: Topics, partitions: int, rows: int) -> float:
    """Payments a second from WARM_SHARE of them on, by the group's committed offsets."""
    with committed_offsets(settings, topics, partitions) as committed:
        first = reached(committed, int(rows * WARM_SHARE))
        last = reached(committed, rows)
    return (last[1] - first[1]) / (last[0] - first[0])


def reached_rows(settings: Settings, topics: Topics, partitions: int, rows: int) -> float:
    """When so many payments were decided."""
    with committed_offsets(settings, topics, partitions) as committed:
        return reached(committed, rows)[0]


@contextmanager
def committed_offsets(settings: Settings, topics: Topics, partitions: int) -> Iterator[Callable[[], int]]:
    """How many records the group has committed."""
    consumer = Consumer({"bootstrap.servers": settings.kafka_bootstrap_servers, "group.id": f"{PREFIX}{GROUP}"})
    places = [TopicPartition(topics.transactions, each) for each in range(partitions)]

    def committed() -> int:
        try:
            return sum(max(0, each.offset) for each in consumer.committed(places, bare_loop.ANSWER_S))
        except KafkaException:  # a group's coordinator comes up with its first member
            return 0

    try:
        yield committed
    finally:
        consumer.close()


def reached(committed: Callable[[], int], rows: int) -> tuple[float, int]:
    """When so many were decided, and how many then."""
    deadline = time.monotonic() + STARTED_S
    before = -1
    while True:
        found = committed()
        if found >= rows:
            return time.perf_counter(), found
        if found > before:
            before, deadline = found, time.monotonic() + STARTED_S
        if time.monotonic() > deadline:
            raise SystemExit(f"no more than {found:,} of {rows:,} payments were decided")
        time.sleep(LOOK_S)


def stage_times(port: int) -> dict[str, float]:
    """Microseconds of wall time a record, by stage, from the scorer's own metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = [line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if not line.startswith("#")]
    values = {name: float(value) for name, value in lines}
    records = values["fraud_scorer_records_total"]
    sums = {name: value for name, value in values.items() if name.startswith("fraud_scorer_stage_seconds_sum")}
    return {name.split('"')[1]: round(1e6 * value / records, 2) for name, value in sums.items()}


if __name__ == "__main__":
    main()
