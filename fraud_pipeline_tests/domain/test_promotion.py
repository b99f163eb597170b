from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from fraud_pipeline.domain.gates import GateResult
from fraud_pipeline.domain.promotion import (
    GateEvidence,
    Promotion,
    challenge_refusals,
    refusals,
    rollback_target,
    rolled_back_versions,
)

FINGERPRINT = "f" * 64
REQUIRED = ("pr_auc", "recall")
PASSED = tuple(GateResult(name, True, "error", 0.5, ">= 0.3", "fine") for name in REQUIRED)
EVIDENCE = GateEvidence(FINGERPRINT, None, PASSED)


def against(evidence: GateEvidence | None, *, champion: int | None = None, **changes: object) -> tuple[str, ...]:
    return refusals(
        fingerprint=FINGERPRINT,
        evidence=evidence,
        required=REQUIRED,
        champion_version=champion,
        **changes,  # type: ignore[arg-type]
    )


def test_a_version_that_passed_every_required_gate_may_be_promoted():
    assert against(EVIDENCE) == ()


def test_a_version_that_was_never_judged_may_not():
    assert against(None) == ("its gates were never judged",)


def test_each_missing_required_gate_is_named():
    assert against(GateEvidence(FINGERPRINT, None, ())) == ("gate pr_auc was not judged", "gate recall was not judged")


def test_a_failed_gate_is_named_with_its_explanation_even_if_not_required():
    failed = GateResult("net_value", False, "error", -3.0, ">= 0", "worse than the champion")
    assert against(replace(EVIDENCE, results=(*PASSED, failed))) == ("gate net_value failed: worse than the champion",)


def test_a_failed_warning_does_not_stop_it():
    slow = GateResult("recall", False, "warn", 3.0, "<= 1", "slow")
    assert against(replace(EVIDENCE, results=(PASSED[0], slow))) == ()


def test_results_of_other_content_do_not_count():
    (reason,) = against(replace(EVIDENCE, fingerprint="e" * 64))
    assert reason == "its gate results are of other content (eeeeeeeeeeee, not ffffffffffff)"


def test_results_against_another_champion_do_not_count():
    assert against(EVIDENCE, champion=4) == ("it was judged against none, but the champion is version 4",)
    assert against(replace(EVIDENCE, against_version=3), champion=4) == (
        "it was judged against version 3, but the champion is version 4",
    )
    assert against(replace(EVIDENCE, against_version=4), champion=4) == ()


def test_a_version_that_was_rolled_back_stays_so():
    assert against(EVIDENCE, was_rolled_back=True) == ("it was rolled back",)


def test_evidence_survives_json_with_numpy_values_and_nan_as_null():
    evidence = GateEvidence.of(
        [
            GateResult("a", np.bool_(True), "error", np.float64(0.1), ">= 0", "x"),  # type: ignore[arg-type]
            GateResult("b", np.bool_(False), "warn", np.nan, "<= 1", "y"),  # type: ignore[arg-type]
        ],
        fingerprint=FINGERPRINT,
        against_version=3,
    )
    assert evidence.results == (
        GateResult("a", True, "error", 0.1, ">= 0", "x"),
        GateResult("b", False, "warn", None, "<= 1", "y"),
    )
    assert evidence.failures == ()
    assert GateEvidence.from_json(evidence.to_json()) == evidence


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"fingerprint":"a","against_version":1,"results":[{"x":1}]}'])
def test_what_is_no_evidence_is_said_to_be_none(text: str):
    with pytest.raises(ValueError):
        GateEvidence.from_json(text)


def history(*steps: tuple[str, int]) -> list[Promotion]:
    made: list[Promotion] = []
    for number, (kind, version) in enumerate(steps, start=1):
        previous = made[-1].version if made else None
        moment = datetime(2026, 1, number, tzinfo=UTC)
        made.append(Promotion(number, number - 1, kind, version, f"{version}", previous, "test", "", moment))  # type: ignore[arg-type]
    return made


@pytest.mark.parametrize(
    ("steps", "target"),
    [
        ([], None),
        ([("promotion", 1)], None),
        ([("promotion", 1), ("promotion", 2)], 1),
        ([("promotion", 1), ("promotion", 2), ("rollback", 1)], None),
        ([("promotion", 1), ("promotion", 2), ("promotion", 3), ("rollback", 2)], 1),
        ([("promotion", 1), ("promotion", 2), ("rollback", 1), ("promotion", 3)], 1),
        ([("promotion", 1), ("promotion", 2), ("rollback", 1), ("forced", 2)], 1),
    ],
)
def test_rolling_back_goes_down_the_stack_of_champions(steps: list[tuple[str, int]], target: int | None):
    found = rollback_target(history(*steps))
    assert (None if found is None else found.version) == target


def test_what_was_rolled_back_is_known_until_it_is_put_back():
    steps = [("promotion", 1), ("promotion", 2), ("rollback", 1)]
    assert rolled_back_versions(history(*steps)) == {2}
    assert rolled_back_versions(history(*steps, ("promotion", 3))) == {2}
    assert rolled_back_versions(history(*steps, ("forced", 2))) == set()
    assert rolled_back_versions([]) == set()


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, ()),
        ({"champion_version": None}, ("there is no champion to challenge",)),
        ({"champion_version": 4}, ("it is the champion",)),
        ({"evidence": None}, ("its gates were never judged",)),
        ({"evidence": GateEvidence(FINGERPRINT, 2, PASSED[:1])}, ("gate recall was not judged",)),
        ({"fingerprint": "e" * 64}, ("its gate results are of other content (ffffffffffff, not eeeeeeeeeeee)",)),
        ({"was_rolled_back": True}, ("it was rolled back",)),
    ],
)
def test_who_may_challenge(changes: dict[str, object], reasons: tuple[str, ...]):
    """Gates that passed against an earlier champion will do: the challenger is to be seen beside the present one."""
    given: dict[str, object] = {
        "version": 4,
        "fingerprint": FINGERPRINT,
        "evidence": replace(EVIDENCE, against_version=2),
        "required": REQUIRED,
        "champion_version": 3,
        **changes,
    }
    assert challenge_refusals(**given) == reasons  # type: ignore[arg-type]
