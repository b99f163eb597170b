"""Steps wait for systems that are away, and for nothing else."""

import dagster as dg
import pytest

from fraud_pipeline.defs import patience
from fraud_pipeline.defs.patience import RETRIES, patient
from fraud_pipeline.errors import Busy, DatasetError, DependencyError, FraudError, IntegrityError


class System:
    """Away for the first so many times that it is asked."""

    def __init__(self, failures: list[FraudError]) -> None:
        self.failures = failures
        self.asked = 0

    def ask(self) -> int:
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)
        return 42


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_WAIT_S", 0.0)


@dg.asset
@patient
def answer(context: dg.AssetExecutionContext, system: dg.ResourceParam[System]) -> dg.MaterializeResult[None]:
    """What the system says."""
    return dg.MaterializeResult(metadata={"answer": system.ask(), "tries": context.retry_number + 1})


def run(*failures: FraudError) -> tuple[dg.ExecuteInProcessResult, System]:
    system = System(list(failures))
    return dg.materialize([answer], resources={"system": system}, raise_on_error=False), system


def test_a_system_that_is_away_twice_and_then_back_is_asked_until_it_answers() -> None:
    result, system = run(DependencyError("The ledger does not answer."), Busy("Another process holds it."))
    assert result.success
    assert system.asked == 3
    metadata = result.asset_materializations_for_node("answer")[0].metadata
    assert metadata["tries"].value == 3
    assert len([event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]) == 2


def test_a_system_that_stays_away_fails_the_run_after_some_tries() -> None:
    result, system = run(*(DependencyError("The ledger does not answer.") for _ in range(20)))
    assert not result.success
    assert system.asked == RETRIES + 1


@pytest.mark.parametrize("error", [DatasetError("bad"), IntegrityError("damaged")])
def test_bad_data_fails_at_once(error: FraudError) -> None:
    result, system = run(error)
    assert not result.success
    assert system.asked == 1


def test_it_waits_twice_as_long_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_WAIT_S", 0.01)
    result, _ = run(*(DependencyError("away") for _ in range(3)))
    retries = [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]
    assert [event.step_retry_data.seconds_to_wait for event in retries] == [0.01, 0.02, 0.04]


def test_where_a_person_waits_it_is_told_at_once() -> None:
    system = System([DependencyError("away")])
    tags = {patience.AT_A_TERMINAL: "yes"}
    result = dg.materialize([answer], resources={"system": system}, tags=tags, raise_on_error=False)
    assert not result.success
    assert system.asked == 1
