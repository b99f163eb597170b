"""A scorer whose log goes away in the middle opens it anew; one that never had it says so at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fraud_pipeline.adapters.stream.event_log import Fenced, LogLost
from fraud_pipeline.errors import DependencyError, FraudError
from fraud_pipeline.settings import Settings
from fraud_pipeline.stream_runtime import StreamRuntime


class Life:
    """How one opening of the log goes: so many commits, then what it ends with."""

    def __init__(self, commits: int, ends: FraudError | None = None) -> None:
        self.commits, self.ends = commits, ends


class Scripted(StreamRuntime):
    """Lives one life after the other; one that ends with nothing is told to stop."""

    def __init__(self, home: Path, lives: Sequence[Life], **options: Any) -> None:
        super().__init__(Settings(home=home), unopened, first_pause_s=0.001, **options)
        self.lives = list(lives)

    def _run_once(self) -> None:
        life = self.lives.pop(0)
        for _ in range(life.commits):
            self.metrics.stages["commit"].observe(0.001)
        if life.ends is not None:
            raise life.ends
        self.stop()


def unopened(*_: Any) -> Any:
    raise AssertionError("no life opens a log")


AWAY = DependencyError("The broker does not answer.")
LOST = LogLost("The transaction failed, and could not be taken back.")


@pytest.mark.parametrize("lost", [AWAY, LOST])
def test_a_log_that_goes_away_is_opened_anew_until_it_is_back(tmp_path: Path, lost: FraudError) -> None:
    runtime = Scripted(tmp_path, [Life(3, lost), Life(0, AWAY), Life(0, AWAY), Life(2, lost), Life(1)])
    runtime.run()
    assert runtime.lives == []


def test_a_log_that_was_never_there_is_told_at_once(tmp_path: Path) -> None:
    runtime = Scripted(tmp_path, [Life(0, AWAY), Life(1)])
    with pytest.raises(DependencyError):
        runtime.run()
    assert len(runtime.lives) == 1


def test_an_outage_ends_the_scorer_when_it_lasts_too_long(tmp_path: Path) -> None:
    runtime = Scripted(tmp_path, [Life(1, LOST), Life(0, AWAY), Life(1)], outage_s=-1.0)
    with pytest.raises(LogLost):
        runtime.run()


def test_one_who_was_fenced_stops_at_once(tmp_path: Path) -> None:
    runtime = Scripted(tmp_path, [Life(5, Fenced("Another process is this scorer now.")), Life(1)])
    with pytest.raises(Fenced):
        runtime.run()
    assert len(runtime.lives) == 1
