"""A shadow period from appointment to promotion or dismissal, on both ledgers and a real registry; killed in between, it goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import DecisionRecord
from fraud_pipeline.adapters.promotions import current_challenger, current_champion
from fraud_pipeline.adapters.shadow_trial import TRIAL_TAG, TrialEnd, end_trial, trial_progress
from fraud_pipeline.domain.shadow_trial import TRIAL, TrialLimits
from fraud_pipeline.domain.transaction import Label
from fraud_pipeline_tests.adapters.test_promotions import NOW, REQUIRED, Place

LIMITS = TrialLimits(days=2, budget=0.05)
FIRST_EVENT = datetime(2026, 2, 1, tzinfo=UTC)
"""The data's clock lies behind the machine's."""


@pytest.fixture
def place(registry_home: Path, ledger_url: str) -> Iterator[Place]:
    with Ledger.open(ledger_url) as ledger:
        made = Place(registry_home, ledger)
        made.promote(made.candidate(1))
        made.appoint(made.candidate(2, against=1), reason=f"{TRIAL} of 2 days: all gates passed")
        yield made


def decided(place: Place, count: int, *, days: float, alerts: tuple[int, int] = (20, 20), shadow: bool = True) -> None:
    """So many payments over so many days of data: version 1 answered, 2 in shadow; the first of them are `alerts` (1's, 2's)."""
    records = []
    for number in range(count):
        for role, version, alerting in (("decided", "1", alerts[0]), ("shadow", "2", alerts[1])):
            event_time = FIRST_EVENT + timedelta(days=days) * number / (count - 1)
            payload = {"raw_score": 1.0, "event_time": event_time.isoformat(), "control": False}
            at = NOW + timedelta(seconds=number + 1)
            said = "REVIEW" if number < alerting else "APPROVE"
            if role == "decided" or shadow:
                row: dict[str, Any] = {"decided_at": at, "decision": said, "model_version": version, "role": role}
                records.append(
                    DecisionRecord(
                        f"t{number}", fraud_probability=0.5, payload=json.dumps(payload), features=b"", **row
                    )
                )
    place.ledger.record_decisions(records)


def end(place: Place, **changes: Any) -> TrialEnd:
    arguments: dict[str, Any] = {
        "limits": LIMITS, "required_gates": REQUIRED, "maturity": timedelta(days=1), "control_share": 0.01, "who": "a run",
        "now": NOW + timedelta(hours=1), **changes,
    }  # fmt: skip
    return end_trial(place.ledger, place.registry, **arguments)


def champion(place: Place) -> int:
    found = current_champion(place.ledger)
    assert found is not None
    return found.version


def test_a_sound_challenger_is_promoted_with_the_evidence_of_its_trial(place: Place):
    decided(place, 600, days=2.5)
    ended = end(place)
    assert ended.promotion is not None
    assert (champion(place), current_challenger(place.ledger), place.aliased) == (2, None, 2)
    trial: Any = ended.promotion.evidence["trial"]
    assert (trial["compared"]["payments"], trial["promoted"], trial["against"]) == (600, True, 1)
    assert json.loads(place.registry.version(2).tags[TRIAL_TAG])["promoted"] is True
    assert "no challenger in a shadow period" in end(place).said


def test_a_challenger_that_floods_is_dismissed_and_the_champion_stays(place: Place):
    decided(place, 600, days=2.5, alerts=(20, 400))
    ended = end(place)
    assert (ended.promotion, champion(place), current_challenger(place.ledger)) == (None, 1, None)
    last = place.ledger.challengers()[-1]
    assert last.reason.startswith(
        "shadow period ended: It would have alerted 66.67% of 600 payments, the champion 3.33%"
    )
    assert json.loads(place.registry.version(2).tags[TRIAL_TAG])["promoted"] is False


def test_a_challenger_that_misses_what_the_champion_catches_is_dismissed(place: Place):
    decided(place, 600, days=2.5, alerts=(60, 20))
    place.ledger.record_labels([Label(f"t{n}", True, "chargeback", "bank", FIRST_EVENT) for n in range(60)])
    ended = end(place)
    assert ended.promotion is None
    assert "Of 60 known frauds it would have caught 20, the champion 60" in ended.said


def test_one_that_nobody_scored_is_dismissed_with_that_reason(place: Place):
    decided(place, 600, days=5, shadow=False)
    assert "only 0 of 500 payments were scored in shadow" in end(place).said
    assert (champion(place), current_challenger(place.ledger)) == (1, None)


def test_where_the_champion_has_changed_meanwhile_it_is_dismissed_to_be_judged_anew(place: Place):
    decided(place, 600, days=2.5)
    place.promote(place.candidate(3, against=1))
    ended = end(place, limits=TrialLimits(days=2, budget=0.05, least=0))
    assert ended.promotion is None
    assert champion(place) == 3
    assert current_challenger(place.ledger) is None


def test_killed_after_the_promotion_it_closes_the_trial_when_it_goes_on(place: Place):
    class Killed(Ledger):
        def append_challenger(self, challenger: Any) -> None:
            raise KeyboardInterrupt

    decided(place, 600, days=2.5)
    whole, place.ledger = place.ledger, Killed(place.ledger.database)
    with pytest.raises(KeyboardInterrupt):
        end(place)
    place.ledger = whole
    assert champion(place) == 2
    assert current_challenger(place.ledger) is not None
    assert "is champion already" in end(place).said
    assert current_challenger(place.ledger) is None
    assert len(place.ledger.promotions()) == 2


def test_a_challenger_that_a_person_appointed_is_left_to_them(place: Place):
    place.appoint(place.candidate(3, against=1), reason="a trial of mine")
    decided(place, 600, days=2.5)
    assert end(place).promotion is None
    challenger = current_challenger(place.ledger)
    assert challenger is not None
    assert challenger.version == 3


def test_progress_is_counted_in_the_datas_days(place: Place):
    challenger = current_challenger(place.ledger)
    assert challenger is not None
    now = NOW + timedelta(hours=1)
    assert trial_progress(place.ledger.database, challenger, enough=500, now=now).days == 0
    decided(place, 600, days=2.5)
    found = trial_progress(place.ledger.database, challenger, enough=500, now=now)
    assert found.payments == 500
    assert found.days == pytest.approx(2.5)
