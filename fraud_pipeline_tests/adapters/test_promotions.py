from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.model_registry import CHALLENGER, CHAMPION, ModelRegistry
from fraud_pipeline.adapters.promotions import (
    appoint_challenger,
    current_challenger,
    current_champion,
    dismiss_challenger,
    promote,
    repair_alias,
    rollback,
)
from fraud_pipeline.domain.bundle_files import write_directory
from fraud_pipeline.domain.gates import GateResult
from fraud_pipeline.domain.promotion import Challenger, GateEvidence, Promotion
from fraud_pipeline.errors import DependencyError, NotFound, PromotionRefused

NOW = datetime(2026, 5, 1, tzinfo=UTC)
REQUIRED = ("pr_auc", "recall")


class Place:
    """A ledger, a registry, and candidates that were judged."""

    def __init__(self, home: Path, ledger: Ledger) -> None:
        uri = f"sqlite:///{home / 'mlflow.db'}"
        self.home = home
        self.ledger = ledger
        self.registry = ModelRegistry.open(uri, artifact_root=home / "mlartifacts", cache_dir=home / "models")

    def candidate(self, number: int, *, passed: bool = True, against: int | None = None, judged: bool = True) -> int:
        lineage = {"as_of": "", "data_fingerprint": "", "periods": {}}
        facts = {"kind": "xgboost", "feature_schema": "", "lineage": lineage, "metrics": {}, "number": number}
        path = write_directory(self.home / "bundles", {"bundle.json": json.dumps(facts).encode()})
        version = self.registry.register(path)
        if judged:
            results = (
                GateResult("pr_auc", True, "error", 0.5, ">= 0.15", "fine"),
                GateResult("recall", passed, "error", 0.2, ">= 0.3", "0.20 is below 0.30"),
            )
            self.registry.record_gates(version.version, GateEvidence(version.fingerprint, against, results))
        return version.version

    def promote(self, version: int, **changes: object) -> Promotion:
        arguments = {"who": "test", "required_gates": REQUIRED, "now": NOW, **changes}
        return promote(self.ledger, self.registry, version, **arguments)  # type: ignore[arg-type]

    def rollback(self, **changes: object) -> Promotion:
        arguments = {"who": "ann", "reason": "too many false alarms", "now": NOW, **changes}
        return rollback(self.ledger, self.registry, **arguments)  # type: ignore[arg-type]

    def appoint(self, version: int, **changes: object) -> Challenger:
        arguments = {"who": "ann", "reason": "a trial", "required_gates": REQUIRED, "now": NOW, **changes}
        return appoint_challenger(self.ledger, self.registry, version, **arguments)  # type: ignore[arg-type]

    def dismiss(self) -> Challenger | None:
        return dismiss_challenger(self.ledger, self.registry, who="bob", reason="enough", now=NOW)

    @property
    def aliased(self) -> int | None:
        champion = self.registry.champion()
        return None if champion is None else champion.version


@pytest.fixture
def place(registry_home: Path) -> Iterator[Place]:
    with Ledger.open(f"sqlite:///{registry_home / 'ledger.db'}") as ledger:
        yield Place(registry_home, ledger)


def test_a_candidate_that_passed_becomes_champion_with_its_evidence(place: Place):
    version = place.candidate(1)
    promotion = place.promote(version, reason="weekly")
    assert (promotion.kind, promotion.version, promotion.previous_version) == ("promotion", 1, None)
    assert (promotion.who, promotion.reason, promotion.promoted_at) == ("test", "weekly", NOW)
    assert [r["name"] for r in promotion.evidence["gates"]["results"]] == ["pr_auc", "recall"]  # type: ignore[index]
    assert current_champion(place.ledger) == promotion
    assert place.aliased == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"passed": False}, "gate recall failed: 0.20 is below 0.30"),
        ({"judged": False}, "its gates were never judged"),
        ({"against": 9}, "it was judged against version 9, but the champion is none"),
    ],
)
def test_a_candidate_that_was_stopped_cannot_be_promoted(place: Place, changes: dict[str, object], reason: str):
    version = place.candidate(1, **changes)  # type: ignore[arg-type]
    with pytest.raises(PromotionRefused, match=reason):
        place.promote(version)
    assert current_champion(place.ledger) is None
    assert place.aliased is None


def test_a_required_gate_that_nobody_judged_stops_it(place: Place):
    with pytest.raises(PromotionRefused, match="gate parity was not judged"):
        place.promote(place.candidate(1), required_gates=(*REQUIRED, "parity"))


def test_a_stopped_candidate_leaves_the_old_champion_serving(place: Place):
    place.promote(place.candidate(1))
    bad = place.candidate(2, passed=False, against=1)
    with pytest.raises(PromotionRefused):
        place.promote(bad)
    champion = current_champion(place.ledger)
    assert champion is not None
    assert (champion.version, place.aliased, place.registry.version(bad).verdict) == (1, 1, "failed")


def test_an_unknown_version_is_not_found(place: Place):
    with pytest.raises(NotFound, match="version 5"):
        place.promote(5)


def test_promoting_the_champion_again_changes_nothing(place: Place):
    version = place.candidate(1)
    first = place.promote(version)
    assert place.promote(version) == first
    assert place.ledger.promotions() == [first]


def test_a_person_can_force_a_promotion_with_a_reason_and_it_is_recorded(place: Place):
    version = place.candidate(1, passed=False)
    with pytest.raises(PromotionRefused, match="without a reason"):
        place.promote(version, force=True)
    forced = place.promote(version, force=True, reason="the old one is broken", who="ann")
    assert (forced.kind, forced.who, forced.reason) == ("forced", "ann", "the old one is broken")
    assert forced.evidence["passed_over"] == ["gate recall failed: 0.20 is below 0.30"]


def test_rollback_makes_the_previous_champion_champion_again(place: Place):
    place.promote(place.candidate(1))
    second = place.candidate(2, against=1)
    place.promote(second)
    back = place.rollback()
    assert (back.kind, back.version, back.previous_version, back.promotion_id) == ("rollback", 1, 2, 3)
    assert (back.evidence["of_promotion"], back.evidence["rolled_back_version"]) == (1, 2)
    assert place.aliased == 1
    with pytest.raises(PromotionRefused, match="it was rolled back"):
        place.promote(second)
    with pytest.raises(PromotionRefused, match="no earlier champion to go back to"):
        place.rollback()


def test_rollback_to_a_named_version_wants_one_that_was_champion(place: Place):
    place.promote(place.candidate(1))
    place.promote(place.candidate(2, against=1))
    place.promote(place.candidate(3, against=2))
    place.candidate(4, against=3)
    with pytest.raises(PromotionRefused, match="no earlier champion of version 4"):
        place.rollback(to_version=4)
    assert place.rollback(to_version=1).version == 1
    assert place.aliased == 1


def test_of_two_promotions_at_once_one_wins_and_the_other_is_refused(place: Place):
    place.promote(place.candidate(1))
    versions = [place.candidate(n, against=1) for n in (2, 3)]
    start = threading.Barrier(2)
    won: list[int] = []
    refused: list[str] = []

    def run(version: int) -> None:
        start.wait()
        try:
            won.append(place.promote(version).version)
        except PromotionRefused as err:
            refused.append(err.message)

    threads = [threading.Thread(target=run, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert (len(won), len(refused)) == (1, 1)
    champion = current_champion(place.ledger)
    assert champion is not None
    assert (champion.version, place.aliased, len(place.ledger.promotions())) == (won[0], won[0], 2)


def test_a_loser_that_had_already_looked_is_refused_by_the_database(place: Place):
    """The moment between looking and writing, made long: another promotion lands in it."""
    place.promote(place.candidate(1))
    second, third = place.candidate(2, against=1), place.candidate(3, against=1)

    class SlowLedger(Ledger):
        def append_promotion(self, promotion: Promotion) -> None:
            if promotion.version == second:
                place.promote(third)
            super().append_promotion(promotion)

    slow = SlowLedger(place.ledger._database)
    with pytest.raises(PromotionRefused, match="Version 2 was not promoted: another promotion came first"):
        promote(slow, place.registry, second, who="test", required_gates=REQUIRED)
    assert place.aliased == third


def test_an_alias_left_behind_by_a_crash_is_repaired(place: Place):
    place.promote(place.candidate(1))
    place.promote(place.candidate(2, against=1))
    assert not repair_alias(place.ledger, place.registry)
    place.registry.set_alias(CHAMPION, 1)
    assert repair_alias(place.ledger, place.registry)
    assert place.aliased == 2
    place.registry.delete_alias(CHAMPION)
    assert repair_alias(place.ledger, place.registry)
    assert place.aliased == 2


def test_an_alias_set_by_hand_before_any_promotion_is_taken_away(place: Place):
    place.registry.set_alias(CHAMPION, place.candidate(1))
    assert repair_alias(place.ledger, place.registry)
    assert place.aliased is None
    assert not repair_alias(place.ledger, place.registry)


def test_a_version_that_passed_its_gates_can_challenge_and_be_dismissed(place: Place):
    place.promote(place.candidate(1))
    version = place.candidate(2, against=None)  # judged before there was a champion
    appointed = place.appoint(version)
    assert (appointed.version, appointed.who, appointed.reason, appointed.appointed_at) == (2, "ann", "a trial", NOW)
    assert appointed.fingerprint == place.registry.version(version).fingerprint
    assert current_challenger(place.ledger) == appointed
    assert place.registry.aliased(CHALLENGER) == 2
    assert place.appoint(version) == appointed
    assert place.dismiss() == appointed
    assert current_challenger(place.ledger) is None
    assert place.registry.aliased(CHALLENGER) is None
    assert place.dismiss() is None
    assert [(row.version, row.who) for row in place.ledger.challengers()] == [(2, "ann"), (None, "bob")]


def test_another_challenger_takes_the_place_of_the_first(place: Place):
    place.promote(place.candidate(1))
    for number in (2, 3):
        place.appoint(place.candidate(number, against=1))
    challenger = current_challenger(place.ledger)
    assert challenger is not None
    assert (challenger.version, place.registry.aliased(CHALLENGER)) == (3, 3)


@pytest.mark.parametrize(
    ("number", "changes", "reason"),
    [
        (2, {"passed": False}, "gate recall failed: 0.20 is below 0.30"),
        (2, {"judged": False}, "its gates were never judged"),
        (1, {}, "it is the champion"),
    ],
)
def test_who_cannot_challenge(place: Place, number: int, changes: dict[str, object], reason: str):
    place.promote(place.candidate(1))
    version = place.candidate(number, **changes)  # type: ignore[arg-type]  # the same content again is the same version
    with pytest.raises(PromotionRefused, match=f"cannot be challenger: {reason}"):
        place.appoint(version)
    assert place.ledger.challengers() == []
    assert place.registry.aliased(CHALLENGER) is None


def test_without_a_champion_nobody_challenges(place: Place):
    with pytest.raises(PromotionRefused, match="there is no champion to challenge"):
        place.appoint(place.candidate(1))


def test_a_version_that_was_rolled_back_cannot_challenge(place: Place):
    place.promote(place.candidate(1))
    place.promote(place.candidate(2, against=1))
    place.rollback()
    with pytest.raises(PromotionRefused, match="it was rolled back"):
        place.appoint(2)


def test_a_challenger_that_is_promoted_is_no_challenger_any_more(place: Place):
    place.promote(place.candidate(1))
    place.appoint(place.candidate(2, against=1))
    place.promote(2)
    assert current_challenger(place.ledger) is None
    assert place.registry.challenger() is None
    assert [row.reason for row in place.ledger.challengers()] == ["a trial", "it is champion now"]


def test_another_promotion_leaves_the_challenger_where_it_is(place: Place):
    place.promote(place.candidate(1))
    place.appoint(place.candidate(2, against=1))
    place.promote(place.candidate(3, against=1))
    challenger = current_challenger(place.ledger)
    assert challenger is not None
    assert (challenger.version, place.registry.aliased(CHALLENGER)) == (2, 2)


def test_a_challengers_alias_left_behind_by_a_crash_is_repaired(place: Place):
    place.promote(place.candidate(1))
    place.appoint(place.candidate(2, against=1))
    place.candidate(3, against=1)
    for wrong in (3, None):
        if wrong is None:
            place.registry.delete_alias(CHALLENGER)
        else:
            place.registry.set_alias(CHALLENGER, wrong)
        assert repair_alias(place.ledger, place.registry)
        assert place.registry.aliased(CHALLENGER) == 2
    assert not repair_alias(place.ledger, place.registry)
    place.dismiss()
    place.registry.set_alias(CHALLENGER, 3)
    assert repair_alias(place.ledger, place.registry)
    assert place.registry.aliased(CHALLENGER) is None


class AwayAfter:
    """A registry whose MLflow goes away after so many calls."""

    def __init__(self, registry: ModelRegistry, calls: int) -> None:
        self._registry, self._left = registry, calls

    def __getattr__(self, name: str) -> object:
        def call(*arguments: object) -> object:
            self._left -= 1
            if self._left < 0:
                raise DependencyError("MLflow does not answer.")
            return getattr(self._registry, name)(*arguments)

        return call


def test_a_promotion_holds_where_mlflow_goes_away_after_its_row_and_the_alias_is_set_later(place: Place):
    place.promote(place.candidate(1))
    second = place.candidate(2, against=1)
    going: ModelRegistry = AwayAfter(place.registry, 1)  # type: ignore[assignment]
    promotion = promote(place.ledger, going, second, who="test", required_gates=REQUIRED, now=NOW)
    assert current_champion(place.ledger) == promotion
    assert (promotion.version, place.aliased) == (2, 1)
    assert repair_alias(place.ledger, place.registry)
    assert place.aliased == 2


def test_a_promotion_that_cannot_read_its_evidence_changes_nothing(place: Place):
    version = place.candidate(1)
    away: ModelRegistry = AwayAfter(place.registry, 0)  # type: ignore[assignment]
    with pytest.raises(DependencyError):
        promote(place.ledger, away, version, who="test", required_gates=REQUIRED, now=NOW)
    assert current_champion(place.ledger) is None


@pytest.mark.parametrize("registry", ["none", "away"])
def test_a_rollback_works_while_mlflow_is_away_on_the_ledgers_own_evidence(place: Place, registry: str):
    place.promote(place.candidate(1))
    place.promote(place.candidate(2, against=1))
    away: ModelRegistry = AwayAfter(place.registry, 0)  # type: ignore[assignment]
    back = rollback(place.ledger, None if registry == "none" else away, who="ann", reason="now", now=NOW)
    assert (back.version, back.evidence["rolled_back_version"], place.aliased) == (1, 2, 2)
    assert back.evidence["gates"] == place.ledger.promotions()[0].evidence["gates"]
    assert repair_alias(place.ledger, place.registry)
    assert place.aliased == 1


def test_a_promotion_keeps_what_else_it_rests_on(place: Place):
    promotion = place.promote(place.candidate(1), evidence={"trial": {"payments": 500}})
    assert promotion.evidence["trial"] == {"payments": 500}
    assert promotion.evidence["gates"] is not None


def test_of_two_promotions_at_once_one_wins_on_either_database(ledger_url: str):
    first = Promotion(1, 0, "promotion", 1, "f1", None, "test", "", NOW)
    with Ledger.open(ledger_url) as ledger:
        ledger.append_promotion(first)
        start = threading.Barrier(2)
        refused: list[str] = []

        def run(version: int) -> None:
            start.wait()
            try:
                ledger.append_promotion(replace(first, promotion_id=2, previous_id=1, version=version))
            except PromotionRefused as err:
                refused.append(err.message)

        threads = [threading.Thread(target=run, args=(version,)) for version in (2, 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        champion = ledger.current_promotion()
        assert champion is not None
        assert (len(ledger.promotions()), champion.version in (2, 3)) == (2, True)
        assert refused == [f"Version {5 - champion.version} was not promoted: another promotion came first."]
