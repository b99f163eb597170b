"""`fraud state repartition` and `fraud state rebuild --stream` on a real broker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from confluent_kafka import Producer

from fraud_pipeline.adapters.kafka import topic_admin
from fraud_pipeline.adapters.kafka.connection import producer_config
from fraud_pipeline.adapters.kafka.messages import transaction_message
from fraud_pipeline.adapters.kafka.topics import Topics
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.local_services.kafka_server import KafkaServer
from fraud_pipeline.commands.stream_checks import check_written
from fraud_pipeline.commands.stream_states import raise_partitions, rebuild_stream, repartition
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.errors import InputError, StateError
from fraud_pipeline.settings import Settings
from fraud_pipeline.stream_runtime import StreamRuntime, kafka_log
from fraud_pipeline_tests.memory_stream import payments
from fraud_pipeline_tests.serving.home import empty_home
from fraud_pipeline_tests.sink_rig import until

START = datetime.now(UTC) - timedelta(hours=4)


class Site:
    """A home, its topics with two partitions, and payments for them."""

    def __init__(self, kafka: KafkaServer, home: Path, prefix: str) -> None:
        empty_home(home)
        self.settings = Settings(home=home, kafka_bootstrap_servers=kafka.address, topic_prefix=prefix)
        self.topics = Topics(prefix)
        topic_admin.create(self.settings, self.topics, partitions=2)
        self._payments = iter(payments(2_000, start=START, step=timedelta(seconds=9)))

    def pay(self, count: int) -> list[Transaction]:
        """By a producer that knows the topic as it is now."""
        producer, sent = Producer(producer_config(self.settings)), []
        for _ in range(count):
            sent.append(next(self._payments))
            message = transaction_message(sent[-1])
            producer.produce(self.topics.transactions, message.value, message.key, headers=list(message.headers))
        assert producer.flush(60) == 0
        return sent

    @contextmanager
    def scorer(self) -> Iterator[StreamRuntime]:
        runtime = StreamRuntime(self.settings, kafka_log)
        thread = threading.Thread(target=runtime.run, daemon=True)
        thread.start()
        try:
            yield runtime
        finally:
            runtime.stop()
            thread.join(60)

    def decide(self, count: int) -> None:
        with self.scorer() as runtime:
            until(lambda: runtime.metrics.records >= count, f"{count} decisions")


def test_partitions_are_raised_and_every_history_goes_along(kafka: KafkaServer, tmp_path: Path) -> None:
    site = Site(kafka, tmp_path / "home", "grown.")
    site.pay(200)
    with Ledger.open(site.settings.ledger_url) as ledger:
        with pytest.raises(InputError, match="No states are kept"):
            repartition(site.settings, ledger, partitions=4, drain=False)
        site.decide(200)
        with pytest.raises(InputError, match="another number of partitions than 2"):
            repartition(site.settings, ledger, partitions=2, drain=False)
        site.pay(3)
        with pytest.raises(StateError, match=r"grown.transactions\[\d\]@\d+ and what follows is not decided"):
            repartition(site.settings, ledger, partitions=4, drain=False)
        with site.scorer() as runtime:
            until(lambda: runtime.metrics.records >= 3, "3 decisions")
            with pytest.raises(StateError, match="1 scorers are in the group"):
                repartition(site.settings, ledger, partitions=4, drain=False)
        found = repartition(site.settings, ledger, partitions=4, drain=False)
        assert (found["from"], found["to"], found["customers"]) == (2, 4, 40)
        assert 0 < found["moved"] < 40
        with pytest.raises(InputError, match="for 4 partitions are there already"):
            repartition(site.settings, ledger, partitions=4, drain=False)
        site.pay(150)
        site.decide(150)
        report = check_written(site.settings, ledger)
        assert report.equal
        assert (report.payments, report.degraded_decisions) == (150, 0)
        made = rebuild_stream(site.settings, ledger)
        assert (made["records"], made["replaced_others"]) == (150, [])
        site.pay(50)
        site.decide(50)
        assert check_written(site.settings, ledger).equal


def test_what_was_produced_before_the_change_is_drained_in_the_old_layout(kafka: KafkaServer, tmp_path: Path) -> None:
    site = Site(kafka, tmp_path / "home", "drained.")
    site.pay(100)
    site.decide(100)
    site.pay(60)
    raise_partitions(site.settings, site.topics, 4)
    site.pay(40)
    with pytest.raises(StateError, match="has 4 partitions, and its state is that of 2"):
        StreamRuntime(site.settings, kafka_log).run()
    with Ledger.open(site.settings.ledger_url) as ledger:
        with pytest.raises(StateError, match="is a payment from before the change, and is not decided yet") as refused:
            repartition(site.settings, ledger, partitions=4, drain=False)
        assert "--drain" in refused.value.remedy
        found = repartition(site.settings, ledger, partitions=4, drain=True)
        assert found["moved"] > 0
        site.pay(30)
        with site.scorer():
            until(lambda: check_written(site.settings, ledger).payments >= 30, "the others' decisions")
        until(lambda: check_written(site.settings, ledger).equal, "all of them")
