"""Load: what is sent and when, what is counted, and that no stall of the service hides."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from typing import Any

import orjson
import pytest

from fraud_pipeline.adapters.load_generator import NO_ANSWER, LoadPlan, Tally, run_load
from fraud_pipeline.adapters.simulated_traffic import SimulatedTraffic
from fraud_pipeline.domain.simulation_config import WorldConfig
from fraud_pipeline.domain.transaction import parse_transaction
from fraud_pipeline_tests.fake_service import FakeService
from fraud_pipeline_tests.service_process import free_port

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TODAY = NOW.date()


def traffic(*, seed: int = 42, end: date = TODAY, **changes: Any) -> SimulatedTraffic:
    return SimulatedTraffic(WorldConfig(end=end, days=1, customers=40, merchants=20, seed=seed), **changes)


def test_an_open_loop_keeps_its_schedule() -> None:
    with FakeService().running() as service:
        plan = LoadPlan(url=f"{service.url}/score", duration_s=0.5, rate=100, connections=4)
        tally = run_load(plan, traffic().body)
    assert tally.sent == tally.answered == len(service.payments) == 50
    assert (tally.failed, dict(tally.statuses), dict(tally.decisions)) == (0, {"200": 50}, {"APPROVE": 50})


def test_a_stall_counts_for_every_request_that_it_held_up() -> None:
    with FakeService(stall_s=0.5).running() as service:
        plan = LoadPlan(url=f"{service.url}/score", duration_s=1, rate=100, connections=1)
        tally = run_load(plan, traffic().body)
    assert tally.answered == 100
    assert tally.quantile_s(0.99) > 0.4
    held_up = sum(tally.quantile_s(share / 100) > 0.1 for share in range(1, 100))
    assert held_up >= 30, "one request took half a second, and those behind it waited for it"


def test_a_closed_loop_sends_as_many_as_it_is_told() -> None:
    with FakeService().running() as service:
        plan = LoadPlan(url=f"{service.url}/score", duration_s=60, requests=30, connections=3)
        tally = run_load(plan, traffic().body)
    assert tally.answered == 30
    assert len({payment["transaction_id"] for payment in service.payments}) == 30


def test_refusals_and_broken_items_are_failures() -> None:
    with FakeService(refuse_every=5).running() as service:
        single = run_load(LoadPlan(url=f"{service.url}/score", duration_s=60, requests=20), traffic().body)
        several = run_load(
            LoadPlan(url=f"{service.url}/score_batch", duration_s=60, requests=2), lambda: traffic().batch(10)
        )
    assert (single.failed, dict(single.statuses)) == (4, {"200": 16, "503": 4})
    assert "503" in single.problems[0]
    assert (several.failed, several.item_errors, several.decisions["APPROVE"]) == (2, 2, 18)


def test_a_service_that_is_not_there_is_a_failure_and_no_crash() -> None:
    plan = LoadPlan(url=f"http://127.0.0.1:{free_port()}/score", duration_s=60, requests=3, connections=1)
    tally = run_load(plan, traffic().body)
    assert (tally.failed, dict(tally.statuses)) == (3, {NO_ANSWER: 3})


def test_the_key_is_sent() -> None:
    with FakeService().running() as service:
        run_load(LoadPlan(url=f"{service.url}/score", duration_s=60, requests=1, key="secret"), traffic().body)
    assert service.keys == ["Bearer secret"]


def test_an_answer_that_is_no_json_is_a_failure() -> None:
    tally = Tally()
    tally.answer(0.001, 200, b"<html>")
    assert tally.failed == 1


def test_quantiles_are_exact_to_half_a_percent() -> None:
    tally = Tally()
    assert math.isnan(tally.quantile_s(0.5))
    for milliseconds in range(1, 1_001):
        tally.answer(milliseconds / 1e3, 503, b"")
    assert tally.quantile_s(0.5) == pytest.approx(0.5, rel=0.0051)
    assert tally.quantile_s(0.99) == pytest.approx(0.99, rel=0.0051)
    assert tally.quantile_s(1.0) == tally.slowest_s == 1.0
    assert tally.as_dict()["latency_ms"]["max"] == 1000.0


def test_payments_are_valid_and_of_now() -> None:
    source = traffic(now=lambda: NOW)
    payments = [parse_transaction(orjson.loads(source.body()), received_at=NOW) for _ in range(500)]
    assert len({p.transaction_id for p in payments}) == 500
    assert {p.event_time for p in payments} == {NOW}
    assert len({p.customer_id for p in payments}) > 20
    assert {p.latitude is None for p in payments} == {True, False}


def test_payments_at_their_times_go_on_from_the_end_of_the_world_and_stop_at_the_clock() -> None:
    source = traffic(now=lambda: NOW, end=date(2026, 2, 27), at_their_times=True)
    times = [datetime.fromisoformat(source.payment()["event_time"]) for _ in range(300)]
    assert times == sorted(times)
    assert times[0].date() == date(2026, 2, 27)
    assert times[-1] == NOW


def test_the_seed_makes_the_payments_and_not_their_ids() -> None:
    one, other, third = (traffic(now=lambda: NOW, seed=seed) for seed in (1, 1, 2))

    def without_id(source: SimulatedTraffic) -> list[dict[str, Any]]:
        return [{**source.payment(), "transaction_id": ""} for _ in range(50)]

    assert one.run != other.run
    first = without_id(one)
    assert first == without_id(other) != without_id(third)


def test_a_batch_holds_as_many_as_asked() -> None:
    batch = orjson.loads(traffic().batch(12))
    assert len({payment["transaction_id"] for payment in batch["transactions"]}) == 12
