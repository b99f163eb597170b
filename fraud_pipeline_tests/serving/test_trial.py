"""The promise of the live route, on real processes: killed under load, nothing is lost, nothing differs, and harm is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from fraud_pipeline.errors import NotFound
from fraud_pipeline.served_trial import run_rest_trial
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.serving.home import empty_home

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_killed_under_load_it_loses_nothing_and_its_vectors_equal_batch(tmp_path: Path) -> None:
    result = run_rest_trial(empty_home(tmp_path / "home"), rows=4_000, kills=2)
    assert result.passed, result.to_json()
    assert (result.answered, result.kills, result.parity["rows"]) == (4_000, 2, 4_000)
    assert result.resent > 0, "a kill that meets nobody's request proves nothing"
    assert result.parity["compared_values"] == 4_000 * 65, "62 features, an attribute and two codes"


@pytest.mark.parametrize(("mutate", "finds"), [("ulp", 1), ("drop_event", None)])
def test_harm_on_the_batch_side_is_found(tmp_path: Path, mutate: str, finds: int | None) -> None:
    result = run_rest_trial(empty_home(tmp_path / "home"), rows=800, kills=0, mutate=mutate)  # type: ignore[arg-type]
    assert not result.passed
    assert result.parity["differing_values"] == finds if finds else result.parity["differing_values"] > 0
    assert result.parity["first_difference"] is not None


def test_without_a_champion_there_is_nothing_to_try(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no champion"):
        run_rest_trial(Settings(home=tmp_path / "home"), rows=10, kills=0)
