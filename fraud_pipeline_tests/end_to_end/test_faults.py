"""The stream under faults: a short run of every day, and scorers without one of their safeguards, which the comparison must find."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fraud_pipeline_tests.faults.damaged_scorer import DAMAGES
from fraud_pipeline_tests.faults.rig import Plan
from fraud_pipeline_tests.faults.run import Report, run
from fraud_pipeline_tests.servers import server_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SEED = 20_260


@pytest.fixture
def folder() -> Iterator[Path]:
    with server_folder() as path:
        yield path


def test_fifteen_faults_change_nothing(folder: Path) -> None:
    report = run(folder, Plan(seed=SEED), 15)
    assert report.equal, report.to_json()
    assert report.judgement is not None
    parity = report.judgement.parity
    assert len(report.happened) == 15
    assert parity.payments > 5_000
    assert parity.labels > 0
    assert parity.repeats_and_conflicts > 0
    assert min(report.judgement.rows.values()) > 0


def test_batches_that_are_taken_back_change_nothing(folder: Path) -> None:
    """The other half of the controls: the same log and the same schedule, with all safeguards."""
    report = damaged(folder, "nothing", "scorer_killed")
    assert report.equal, report.to_json()


def test_offsets_outside_the_transaction_are_found(folder: Path) -> None:
    report = damaged(folder, "offsets_outside", "partition_quiet")
    assert report.judgement is not None
    assert report.judgement.parity.doubled > 0, report.to_json()


def test_states_that_keep_what_was_taken_back_are_found(folder: Path) -> None:
    report = damaged(folder, "no_overlay", "scorer_killed")
    assert report.judgement is not None
    assert report.judgement.parity.lost > 0, report.to_json()


def test_a_recovery_without_the_replay_is_found(folder: Path) -> None:
    report = damaged(folder, "no_replay", "scorer_killed")
    assert report.judgement is not None
    assert report.judgement.parity.differing_customer_values > 0, report.to_json()


def damaged(folder: Path, damage: str, *kinds: str) -> Report:
    """A short run with one scorer that lacks something."""
    assert damage in DAMAGES
    scorer = (sys.executable, "-m", "fraud_pipeline_tests.faults.damaged_scorer", damage)
    report = run(folder, Plan(seed=SEED, scorers=1, scorer=scorer), [*kinds, "input_repeated"])
    assert not report.failure, report.to_json()
    return report
