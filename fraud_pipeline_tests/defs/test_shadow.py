"""The sensor that ends a challenger's shadow period: it waits for the data's days, asks once, and leaves a person's challenger alone."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import DecisionRecord
from fraud_pipeline.defs.shadow import TRIAL_RUN_TAG, end_shadow_trial, shadow_period
from fraud_pipeline.domain.promotion import Challenger
from fraud_pipeline.domain.shadow_trial import TRIAL
from fraud_pipeline.settings import Settings

FIRST_EVENT = datetime(2026, 2, 1, tzinfo=UTC)


def appoint(ledger: Ledger, reason: str = f"{TRIAL} of 2 days: all gates passed") -> None:
    at = datetime.now(UTC) - timedelta(hours=1)
    ledger.append_challenger(Challenger(1, 2, "f2", "dagster run x", reason, at))


def decide(ledger: Ledger, *, days: float, count: int = 500) -> None:
    now = datetime.now(UTC)
    records = []
    for number in range(count):
        event_time = FIRST_EVENT + timedelta(days=days) * number / (count - 1)
        told = json.dumps({"event_time": event_time.isoformat(), "raw_score": 0.0, "control": False})
        at = now - timedelta(minutes=30) + timedelta(seconds=number)
        records += [
            DecisionRecord(f"t{number}", at, "APPROVE", 0.1, "1", told, b""),
            DecisionRecord(f"t{number}", at, "APPROVE", 0.1, "2", told, b"", role="shadow"),
        ]
    ledger.record_decisions(records)


def tick(instance: dg.DagsterInstance, ledger: Ledger) -> Any:
    resources = {"ledger": ledger, "settings": Settings(shadow_days=2)}
    with dg.build_sensor_context(instance=instance, resources=resources) as context:
        return shadow_period(context)


def test_it_waits_for_the_datas_days_and_says_how_far_it_is(instance: dg.DagsterInstance, ledger: Ledger) -> None:
    assert "no challenger" in str(tick(instance, ledger).skip_message)
    appoint(ledger)
    decide(ledger, days=1.5)
    said = str(tick(instance, ledger).skip_message)
    assert "Version 2 decides in shadow: 1.5 of 2 days of data and 500 of 500 shadow decisions are over" in said


def test_it_asks_once_and_again_only_some_time_after_a_failure(instance: dg.DagsterInstance, ledger: Ledger) -> None:
    appoint(ledger)
    decide(ledger, days=2.5)
    request = tick(instance, ledger)
    assert (request.run_key, request.tags) == ("trial:1:1", {TRIAL_RUN_TAG: "1"})
    run = instance.add_run(
        dg.DagsterRun(job_name=end_shadow_trial.name, tags=request.tags, status=dg.DagsterRunStatus.STARTED)
    )
    assert "is being judged" in str(tick(instance, ledger).skip_message)
    failed = dg.DagsterEvent(event_type_value="PIPELINE_FAILURE", job_name=run.job_name, message="MLflow is away")
    instance.report_dagster_event(failed, run.run_id)
    assert "has just ended" in str(tick(instance, ledger).skip_message)


def test_a_challenger_that_a_person_appointed_is_left_to_them(instance: dg.DagsterInstance, ledger: Ledger) -> None:
    appoint(ledger, reason="a trial of mine")
    decide(ledger, days=9)
    assert "who ends it too" in str(tick(instance, ledger).skip_message)
