"""Payments of a stream decided again from what its sink kept: the same vectors, whatever was waited for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fraud_pipeline.adapters.checkpoint_store import CheckpointStore
from fraud_pipeline.adapters.decision_check import check_decision
from fraud_pipeline.adapters.kafka.topics import Topics
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.model_slot import ModelSlot, fetcher
from fraud_pipeline.adapters.replay import LOGGED, Replay, ReplayPlan, ReplayReport
from fraud_pipeline.adapters.stream import past_run
from fraud_pipeline.adapters.stream.stream_checkpoints import StreamCheckpoints
from fraud_pipeline.adapters.stream.stream_past import StreamPast
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.thresholds import Costs
from fraud_pipeline.errors import StateError
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.memory_stream import Base, MemoryBroker, MemoryScorer, payments, sink
from fraud_pipeline_tests.serving.home import empty_home, made_bundle

START = datetime(2026, 3, 2, 10, tzinfo=UTC)
COUNT = 600
STEP = timedelta(seconds=7)
END = START + COUNT * STEP


def bundle(version: str) -> ModelBundle:
    assert version == "1"
    return ModelBundle.load(made_bundle(), version=version)


def moment(number: int) -> datetime:
    return START + number * STEP


@contextmanager
def models_of(settings: Settings) -> Iterator[tuple[Ledger, ModelSlot]]:
    with Ledger.open(settings.ledger_url) as ledger:
        fetch = fetcher(settings.bundles_dir, settings.mlflow_tracking_uri, settings.artifacts_dir)
        models = ModelSlot(ledger, fetch, now=lambda: datetime.now(UTC))
        models.refresh()
        yield ledger, models


def filled(*, step: timedelta = STEP) -> MemoryBroker:
    broker = MemoryBroker(Topics(), 3)
    for number, payment in enumerate(payments(COUNT, start=START, step=step)):
        broker.pay([payment])
        if number % 13 == 5:
            broker.label(payment, payment.event_time + timedelta(minutes=1))
        if number % 40 == 9:
            broker.pay([payment])
    return broker


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return empty_home(tmp_path / "home")


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    """What one scorer decided, and then two of which one was away."""
    broker = filled()
    with models_of(settings) as (opened, models):
        MemoryScorer(broker, models, settings.home / "a").work()
        sink(broker, opened)
        yield opened


def past(ledger: Ledger) -> StreamPast:
    return StreamPast(ledger.database, "transactions", kept)


def kept(partitions: int) -> StreamCheckpoints:
    return StreamCheckpoints(
        CheckpointStore("memory://none"), "transactions", Base(), partitions=partitions, time_zone="UTC"
    )


def replayed(ledger: Ledger, out: Path, *, since: datetime = START, until: datetime = END) -> ReplayReport:
    plan = ReplayPlan(bundle=LOGGED, now=moment(COUNT), control_share=0.01, costs=Costs(), maturity=timedelta(days=7))
    return Replay(ledger, plan, bundle, labels={}, out=out).run(past(ledger).payments(since, until))


@pytest.mark.parametrize("window", [20, 5_000])
def test_what_a_scorer_decided_comes_out_the_same(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    monkeypatch.setattr(past_run, "WINDOW", window)
    report = replayed(ledger, tmp_path / "out")
    assert (report.payments, report.again, report.identical, report.degraded) == (COUNT, COUNT, COUNT, 0)
    assert report.equal
    part = replayed(ledger, tmp_path / "part", since=moment(300), until=moment(350))
    assert (part.payments, part.identical) == (50, 50)


def test_one_decision_is_verified_from_the_streams_log(ledger: Ledger) -> None:
    checked = check_decision(ledger, [past(ledger)], bundle, "t423", control_share=0.01)
    assert checked.equal
    assert checked.place is not None
    assert checked.place.startswith("transactions[")
    with ledger.database.writing() as connection:
        connection.exec_driver_sql(
            "UPDATE transactions SET amount_minor = amount_minor + 100 WHERE transaction_id = 't383'"
        )
    checked = check_decision(ledger, [past(ledger)], bundle, "t423", control_share=0.01)  # the same customer's next
    assert not checked.equal
    assert checked.features
    assert not checked.lagging


def test_decisions_without_others_minutes_are_told_apart(settings: Settings, tmp_path: Path) -> None:
    broker = filled()
    with models_of(settings) as (ledger, models):
        impatient = MemoryScorer(broker, models, tmp_path / "a", own=[0], wait_s=0.0)
        impatient.work()
        MemoryScorer(broker, models, tmp_path / "b", own=[1, 2]).work()
        sink(broker, ledger)
        report = replayed(ledger, tmp_path / "out")
        assert 0 < report.degraded_identical < report.degraded_again == report.degraded
        assert report.again == report.identical == COUNT - report.degraded
        assert report.equal
        degraded = impatient.metrics.degraded["shared_state_lag"]
        assert report.degraded == degraded
        found = [
            check_decision(ledger, [past(ledger)], bundle, record.transaction_id, control_share=0.01)
            for record in ledger.decided([f"t{number}" for number in range(560, COUNT)])
            if b"shared_state_lag" in record.payload.encode()
        ]
        assert any(each.lagging for each in found)
        assert all(each.equal for each in found)


def test_a_ledger_whose_payments_are_behind_its_closed_minutes_is_refused(settings: Settings, tmp_path: Path) -> None:
    broker = filled()
    with models_of(settings) as (ledger, models):
        MemoryScorer(broker, models, tmp_path / "a").work()
        sink(broker, ledger, through={1: 20})
        with pytest.raises(
            StateError, match=r"transactions\[1\] closed minute \d+ at offset \d+, and the ledger has it up to 19"
        ):
            replayed(ledger, tmp_path / "out")
        early = replayed(ledger, tmp_path / "early", until=moment(30))
        assert (early.payments, early.identical) == (30, 30)


def test_a_ledger_that_no_sink_filled_has_no_such_payments(settings: Settings) -> None:
    with Ledger.open(settings.ledger_url) as ledger:
        assert past(ledger).payment("t1") is None
        assert list(past(ledger).payments(START, moment(9))) == []
