from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from fraud_pipeline.domain.drift_episode import DriftAttempt, DriftEpisode
from fraud_pipeline.domain.model_story import WatchOutcome, standing, story
from fraud_pipeline.domain.promotion import Challenger, Promotion

START = datetime(2026, 3, 1, tzinfo=UTC)


def row(number: int, kind: Any, version: int, before: int | None, **changes: Any) -> Promotion:
    moment = START + timedelta(days=number)
    known: dict[str, Any] = {"who": "a run", "reason": "gates passed", "evidence": {"gates": {}}, **changes}
    return Promotion(number, number - 1, kind, version, f"f{version}", before, promoted_at=moment, **known)


HISTORY = [
    row(1, "promotion", 1, None),
    row(2, "forced", 2, 1, who="ann", reason="a hunch"),
    row(3, "rollback", 1, 2, who="promotion watch", reason="9 % alerts"),
    row(4, "promotion", 3, 1),
]


def test_each_version_that_was_champion_says_what_became_of_it():
    assert standing(HISTORY) == {
        1: "champion until 2026-03-05 00:00 by a run",
        2: "rolled back 2026-03-04 00:00 by promotion watch",
        3: "champion since 2026-03-05 00:00 (promotion)",
    }
    assert standing([]) == {}


def test_a_version_that_a_person_put_back_is_champion_again():
    again = [*HISTORY[:3], row(4, "forced", 2, 1, who="ann")]
    assert standing(again)[2] == "champion since 2026-03-05 00:00 (forced)"
    assert standing(again)[1] == "champion until 2026-03-05 00:00 by ann"


def test_the_story_has_everything_the_newest_first_with_its_evidence():
    watch = WatchOutcome(2, "breached", START + timedelta(days=2.9), {"reason": "9 % alerts", "checks": []})
    challenger = Challenger(1, 3, "f3", "a run", "shadow trial of 1 days", START + timedelta(days=3.5))
    attempt = DriftAttempt(1, "1:1", START, START + timedelta(days=3.2), "succeeded", "run-7")
    told = story(HISTORY, [watch], [challenger], [DriftEpisode(1, START, 1, (attempt,))])
    assert [(event.what, event.version) for event in told] == [
        ("promotion instead of 1", 3),
        ("challenger", 3),
        ("retraining asked for", 1),
        ("rollback instead of 2", 1),
        ("watch breached", 2),
        ("forced instead of 1", 2),
        ("promotion", 1),
    ]
    forced = told[5]
    assert (forced.who, forced.why, forced.evidence) == ("ann", "a hunch", {"gates": {}})
    assert told[2].why == "drift as of 2026-03-01; the run succeeded"
