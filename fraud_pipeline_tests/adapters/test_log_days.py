"""Days of a stream's log: their features in batch are the vectors that its scorers decided on, bit for bit."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pytest
import sqlalchemy as sa

from fraud_pipeline.adapters.dataset_schemas import LABEL_SCHEMA, transaction_schema
from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.adapters.day_source import DaySource
from fraud_pipeline.adapters.feature_store import FeatureStore
from fraud_pipeline.adapters.kafka.messages import label_message
from fraud_pipeline.adapters.kafka.partitions import partition_of
from fraud_pipeline.adapters.kafka.topics import Topics
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_outbox import LedgerOutbox
from fraud_pipeline.adapters.ledger_records import LedgerEntry
from fraud_pipeline.adapters.ledger_retention import delete_before
from fraud_pipeline.adapters.ledger_schema import minute_closings, sink_positions
from fraud_pipeline.adapters.log_days import LogDays
from fraud_pipeline.adapters.source_store import SourceStore
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.feature_spec import FEATURE_NAMES
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.errors import DatasetError
from fraud_pipeline_tests.memory_stream import Base, MemoryBroker, MemoryScorer, sink
from fraud_pipeline_tests.scorer_rig import models
from fraud_pipeline_tests.serving.home import made_bundle
from fraud_pipeline_tests.worlds import WORLD_END, feature_store, stored_world

DAYS = [WORLD_END, WORLD_END + timedelta(days=1)]
MIDNIGHT = datetime.combine(WORLD_END, time(), UTC)
PARTITIONS = 3


@dataclass
class StreamHome:
    """A landed world, a stream that continues it for two days and a little, and what a scorer and a sink made of it."""

    home: Path
    store: DatasetStore
    features: FeatureStore
    broker: MemoryBroker
    scorer: MemoryScorer

    def ledger(self) -> Ledger:
        return Ledger.open(f"sqlite:///{self.home / 'ledger.db'}")

    def source(self) -> DaySource:
        return DaySource(SourceStore(self.home), self.ledger)

    def ingest(self) -> None:
        """What `ingest_days` does with both days."""
        source = self.source()
        for day in DAYS:
            self.store.write_day("transactions", day, source.transactions(day), verdict="passed")
            self.store.write_day("labels", day, source.labels(day), verdict="passed")
        assert [each.day for each in self.features.materialize(DAYS)] == DAYS

    def differing(self) -> int:
        """Values of both days' features that are not those of the decisions; all payments must have been decided."""
        found = 0
        for day in DAYS:
            payments = self.store.read_day("transactions", day)
            values = self.store.read_day("features", day, FEATURE_NAMES)
            batch = np.column_stack([column.to_numpy() for column in values.columns])
            found += self._differing(payments, batch)
        return found

    def _differing(self, payments: pa.Table, batch: np.ndarray) -> int:
        ids = payments["transaction_id"].to_pylist()
        with self.ledger() as ledger:
            decided = {record.transaction_id: record for record in ledger.decided(ids)}
        assert set(decided) == set(ids)
        inputs = ModelBundle.load(made_bundle(review=0.03, block=0.06), version="1").inputs
        served = np.stack([np.frombuffer(decided[each].features, "<f4") for each in ids])
        fields = {name: payments[name].to_pylist() for name in ("merchant_category", "channel", "country")}
        matrix = inputs.matrix(batch, attributes={}, fields=fields)
        return int((matrix.view(np.uint32) != served.view(np.uint32)).sum())


def stream(customers: Sequence[str], merchants: Sequence[str]) -> list[Transaction]:
    """Payments until a little after the second midnight, in the order in which they are sent; some are up to an hour late."""
    chance = random.Random(5)
    made = []
    for number in range(1_250):
        sent = MIDNIGHT + timedelta(seconds=150 * number + chance.randrange(100))
        late = timedelta(minutes=chance.choice([1, 3, 14, 61])) if chance.random() < 0.2 else timedelta()
        made.append(
            Transaction(
                f"s{number}", sent - late, chance.choice(customers), chance.choice(merchants), chance.randrange(50, 90_000),
                merchant_category=chance.choice(["food", "travel"]), channel=chance.choice(["pos", "online"]),
                country=chance.choice(["DE", "FR", None]), device_id=chance.choice([None, *"abcdefgh"]),
            )
        )  # fmt: skip
    return made


def feed(
    broker: MemoryBroker, payments: Sequence[Transaction], *, scorer: MemoryScorer, chunk: int | None = None
) -> None:
    """Send the payments, and labels of some of them: in time, hours late, ahead of the stream's clock, and taken back."""
    chance, due = random.Random(6), list[tuple[datetime, Transaction, datetime, int]]()
    for number, payment in enumerate(payments):
        clock = MIDNIGHT + timedelta(seconds=150 * number)
        while due and due[0][0] <= clock:
            _, labelled, known_at, change = due.pop(0)
            broker.label(labelled, known_at, change=change)
        broker.pay([payment])
        if number % 40 == 9:
            broker.pay([payment])  # a repeat
        if chance.random() < 0.1:
            known_at = payment.event_time + timedelta(minutes=chance.choice([5, 90, 400]))
            told = known_at + timedelta(minutes=chance.choice([-200, 0, 0, 2, 130, 700]))
            due.append((max(told, clock), payment, known_at, 1))
            if chance.random() < 0.3:
                due.append((max(told, clock) + timedelta(hours=2), payment, known_at + timedelta(hours=1), -1))
            due.sort(key=lambda each: each[0])
        if chunk is not None and number % chunk == chunk - 1:
            scorer.work()


def settle(broker: MemoryBroker, scorer: MemoryScorer) -> None:
    """Until every writer has closed the minutes that the others' have."""
    scorer.work()
    for _ in range(3):
        scorer.loop.step()


def made_home(home: Path, *, chunk: int | None = None) -> StreamHome:
    store, days = stored_world(home)
    features = feature_store(home, store)
    list(features.materialize(days))
    base = Base(features.checkpoint(days[-1])[1].snapshot(), "base")
    past = SourceStore(home).read_day("transactions", days[-1])
    broker = MemoryBroker(Topics(), PARTITIONS)
    scorer = MemoryScorer(broker, models(), home / "scorer", base=base)
    customers = sorted(set(past["customer_id"].to_pylist()))
    payments = stream([*customers, "new-1", "new-2"], sorted(set(past["merchant_id"].to_pylist()))[:9])
    feed(broker, payments, scorer=scorer, chunk=chunk)
    settle(broker, scorer)
    with Ledger.open(f"sqlite:///{home / 'ledger.db'}") as ledger:
        sink(broker, ledger)
    return StreamHome(home, store, features, broker, scorer)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> StreamHome:
    """Made once: what it is made of takes ten seconds."""
    return made_home(tmp_path_factory.mktemp("stream") / "home")


@pytest.fixture
def home(made: StreamHome, tmp_path: Path) -> StreamHome:
    """A copy that a test may change."""
    copy = tmp_path / "home"
    shutil.copytree(made.home, copy)
    store = DatasetStore(copy)
    return StreamHome(copy, store, feature_store(copy, store), made.broker, made.scorer)


def test_features_of_served_days_are_those_that_were_served(home: StreamHome) -> None:
    home.ingest()
    rows = [home.store.manifest("transactions", day).rows for day in DAYS]
    assert min(rows) > 500
    assert min(home.store.manifest("labels", day).rows for day in DAYS) > 20
    assert home.scorer.metrics.late_events > 20
    assert home.differing() == 0


def test_another_order_of_two_rows_or_one_label_less_is_noticed(home: StreamHome) -> None:
    home.ingest()
    payments = home.store.read_day("transactions", DAYS[0])
    customers = payments["customer_id"].to_pylist()
    first = next(row for row, each in enumerate(customers) if each in customers[row + 1 :])
    second = customers.index(customers[first], first + 1)
    order = list(range(len(payments)))
    order[first], order[second] = second, first
    home.store.write_day("transactions", DAYS[0], payments.take(order), verdict="passed", replace=True)
    list(home.features.materialize(DAYS))
    assert home.differing() > 0
    home.store.write_day("transactions", DAYS[0], payments, verdict="passed", replace=True)
    list(home.features.materialize(DAYS))
    assert home.differing() == 0
    labels = home.store.read_day("labels", DAYS[0])
    home.store.write_day("labels", DAYS[0], labels.slice(1), verdict="passed", replace=True)
    list(home.features.materialize(DAYS))
    assert home.differing() > 0


def test_a_late_payment_after_its_minute_was_closed_by_the_clock_differs_in_shared_features_alone(
    tmp_path: Path,
) -> None:
    """The one case in which one log cannot tell all: an idle partition's minutes end by others' events."""
    home = made_home(tmp_path, chunk=50)
    home.ingest()
    assert 0 < home.differing() < 100


def test_a_writers_day_is_a_range_of_its_log_and_days_leave_nothing_out(home: StreamHome) -> None:
    with home.ledger() as ledger:
        log = LogDays(ledger.database, "transactions", first_day=WORLD_END)
        one, two = ({each.writer: each for each in log.days(day)} for day in DAYS)
        assert log.writers() == list(one) == ["transactions[0]", "transactions[1]", "transactions[2]"]
        for writer, day in one.items():
            assert (day.first, day.end) == (0, two[writer].first)
            assert two[writer].first <= day.closed_at < two[writer].end <= two[writer].closed_at
        table = log.transactions(DAYS[1])
        for writer, day in two.items():
            places = table.filter(pa.compute.equal(table["writer"], writer))["sequence"].to_pylist()
            assert places == sorted(places)
            assert day.first <= places[0]
            assert places[-1] < day.end
        assert table.schema.equals(transaction_schema())
        assert log.labels(DAYS[1]).schema.equals(LABEL_SCHEMA)
        told = [set(log.labels(day)["transaction_id"].to_pylist()) for day in DAYS]
    source = home.source()
    times = source.transactions(DAYS[1])["event_time"].to_pylist()
    assert times != sorted(times)  # late ones stay where they were served
    assert len(told[0]) > 20 < len(told[1])


def test_a_day_ends_when_every_writer_has_closed_its_last_minute_and_the_ledger_has_it(home: StreamHome) -> None:
    source = home.source()
    assert source.ended_through() == DAYS[1]
    with pytest.raises(DatasetError, match=r"2026-03-03 has not ended in transactions\[0\]"):
        source.transactions(DAYS[1] + timedelta(days=1))
    with home.ledger() as ledger:
        first_day = LogDays(ledger.database, "transactions", first_day=WORLD_END).days(DAYS[0])[1]
        behind = (sink_positions.c.topic == "transactions", sink_positions.c.partition == 1)
        with ledger.database.writing() as connection:
            reached = first_day.closed_at + 1  # the sink has not read the second day's last payments
            connection.execute(sa.update(sink_positions).where(*behind).values(next_offset=reached))
    assert source.ended_through() == DAYS[0]
    with home.ledger() as ledger, ledger.database.writing() as connection:
        connection.execute(sa.delete(minute_closings).where(minute_closings.c.writer == "transactions[2]"))
    assert source.ended_through() is None
    assert source.closed_through() == {"transactions[0]": DAYS[1], "transactions[1]": DAYS[0], "transactions[2]": None}


def test_days_without_payments_are_empty_and_a_home_without_a_stream_has_no_log(
    home: StreamHome, tmp_path: Path
) -> None:
    with home.ledger() as ledger, ledger.database.writing() as connection:
        year = 365 * 24 * 60  # every writer's clock goes on by a year
        newest = connection.execute(sa.select(sa.func.max(minute_closings.c.minute))).scalar_one()
        for partition in range(PARTITIONS):
            end = len(home.broker.content["transactions", partition])
            row = {"writer": f"transactions[{partition}]", "minute": newest + year, "sequence": end, "by_clock": True}
            connection.execute(sa.insert(minute_closings).values(row))
    source = home.source()
    assert source.ended_through() == DAYS[1] + timedelta(days=365)
    assert source.transactions(DAYS[1] + timedelta(days=5)).num_rows == 0
    assert source.transactions(DAYS[1] + timedelta(days=1)).num_rows > 0  # what came after the second midnight
    other = f"sqlite:///{tmp_path / 'other.db'}"
    assert DaySource(SourceStore(home.home), lambda: Ledger.open(other)).ended_through() is None


def test_a_home_with_payments_of_the_service_and_of_a_stream_is_refused(home: StreamHome) -> None:
    payment = Transaction("rest", MIDNIGHT + timedelta(hours=3), "c", "m", 100)
    with home.ledger() as ledger:
        ledger.append([LedgerEntry(payment, payment.event_time)])
    with pytest.raises(DatasetError, match="Use one way in for a home"):
        home.source().transactions(DAYS[0])


def test_a_day_whose_beginning_was_deleted_is_refused(home: StreamHome) -> None:
    with home.ledger() as ledger:
        # By receipt, which is the event's own time here.
        list(delete_before(ledger.database, MIDNIGHT + timedelta(hours=30), "transactions"))
    with pytest.raises(DatasetError, match="Its rows were deleted"):
        home.source().transactions(DAYS[1])


def test_labels_of_the_history_that_become_known_after_its_end_are_told_to_the_logs_of_their_customers(
    tmp_path: Path,
) -> None:
    home = made_home(tmp_path)
    source, landed = home.source(), SourceStore(home.home)
    clock, told = source.tell_history(after=None)
    assert clock is not None
    end = MIDNIGHT + timedelta(days=2)
    assert end <= clock < end + timedelta(hours=6)
    expected = [
        row for day in landed.days("labels") for row in landed.read_day("labels", day).to_pylist()
        if MIDNIGHT <= row["known_at"] <= clock
    ]  # fmt: skip
    assert told == len(expected) > 0
    assert source.tell_history(after=None) == (clock, 0)
    assert source.tell_history(after=clock) == (clock, 0)
    with home.ledger() as ledger:
        unsent = LedgerOutbox(ledger.database).unsent(
            LogDays(ledger.database, "transactions", first_day=WORLD_END).writers(), limit=1_000
        )
        assert ledger.last_sequence() == 0
    assert {(each.label.transaction_id, each.label.known_at) for each in unsent} == {
        (row["transaction_id"], row["known_at"]) for row in expected
    }
    for each in unsent:
        assert each.writer == f"transactions[{partition_of(each.change.customer_id.encode(), PARTITIONS)}]"
    # The relay produces them: scorers take them in, and what batch makes of the days is what was served.
    for each in unsent:
        message = label_message(each.change, each.label)
        home.broker.append("transactions", int(each.writer[-2]), message, clock)
    late = [
        Transaction(f"late-{number}", clock + timedelta(minutes=number), f"late-{number % 30}", "m", 100)
        for number in range(24 * 60)
    ]  # fmt: skip
    home.broker.pay(late)
    settle(home.broker, home.scorer)
    with home.ledger() as ledger:
        sink(home.broker, ledger)
    third = DAYS[1] + timedelta(days=1)
    assert home.source().ended_through() == third
    ids = home.source().labels(third)["transaction_id"].to_pylist()
    assert {each.label.transaction_id for each in unsent} <= set(ids)
