from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from fraud_pipeline.domain.drift import DriftLimits, Outcomes, judge
from fraud_pipeline.domain.feature_spec import FEATURE_NAMES
from fraud_pipeline.errors import InputError

Sample = dict[str, np.ndarray]
GOOD = Outcomes(payments=35_000, frauds=400, alerts=170, caught=150)


def sample(rows: int = 3_000, seed: int = 0, change: Callable[[Sample], None] | None = None) -> Sample:
    """Twenty inputs: sizes, counts, flags, some of them often missing; `change` bends some in place."""
    rng = np.random.default_rng(seed)
    made = {f"size_{i}": rng.lognormal(i / 4, 0.8, rows) for i in range(10)}
    made |= {f"count_{i}": rng.poisson(i + 1, rows).astype(float) for i in range(6)}
    made |= {f"flag_{i}": (rng.random(rows) < 0.1 * (i + 1)).astype(float) for i in range(3)}
    made["sparse"] = np.where(rng.random(rows) < 0.6, np.nan, rng.normal(size=rows))
    made["merchant_fraud_share_7d"] = rng.choice([0.01, 0.012, 0.03], rows)
    if change is not None:
        change(made)
    return made


def dearer(made: Sample) -> None:
    for i in range(4):
        made[f"size_{i}"] *= 1.4


def emptied(share: float) -> Callable[[Sample], None]:
    def change(made: Sample) -> None:
        made["count_3"][: int(share * len(made["count_3"]))] = np.nan

    return change


def test_two_samples_of_one_world_are_stable():
    for seed in range(1, 21):
        verdict = judge(sample(), sample(seed=seed))
        assert (verdict.status, verdict.drifted_features) == ("stable", ()), seed


def test_a_changed_world_is_a_drift_that_names_its_features():
    verdict = judge(sample(), sample(seed=1, change=dearer))
    assert verdict.status == "drift"
    assert verdict.drifted
    assert sorted(verdict.drifted_features) == ["size_0", "size_1", "size_2", "size_3"]
    assert verdict.share == pytest.approx(4 / 20)
    (reason,) = verdict.reasons
    assert reason.startswith("4 of 20 features drifted: size_")


def test_one_feature_alone_is_watched():
    def one(made: Sample) -> None:
        made["size_5"] *= 1.5

    verdict = judge(sample(), sample(seed=1, change=one))
    assert (verdict.status, verdict.drifted_features) == ("watch", ("size_5",))
    assert judge(sample(), sample(seed=1, change=one), limits=DriftLimits(share=0.05)).drifted


def test_features_made_from_labels_are_shown_and_do_not_count():
    def campaign(made: Sample) -> None:
        made["merchant_fraud_share_7d"] += 0.5

    verdict = judge(sample(), sample(seed=1, change=campaign))
    assert (verdict.status, verdict.checked, verdict.drifted_features) == ("stable", 20, ())
    detail = verdict.to_dict()["feature_details"][-1]
    assert (detail["feature"], detail["drift_detected"], detail["counted"], detail["broken"]) == (
        "merchant_fraud_share_7d",
        True,
        False,
        False,
    )


def test_the_real_features_made_from_labels_are_known_by_their_names():
    from fraud_pipeline.domain.drift import follows_labels

    families = {name for name in FEATURE_NAMES if follows_labels(name)}
    assert {"merchant_fraud_share_7d", "merchant_seconds_since_last_fraud", "channel_fraud_share_30d"} <= families
    assert not any(follows_labels(name) for name in ("amount", "customer_count_7d", "merchant_count_7d", "hour"))


def test_a_field_that_goes_missing_is_broken_not_drifted():
    verdict = judge(sample(), sample(seed=1, change=emptied(0.4)))
    assert (verdict.status, verdict.drifted, verdict.broken_features) == ("broken_input", False, ("count_3",))
    assert verdict.reasons[0] == "count_3 is missing in 40%, it was in 0%"


def test_a_field_that_goes_missing_a_little_has_drifted():
    verdict = judge(sample(), sample(seed=1, change=emptied(0.15)))
    assert (verdict.status, verdict.drifted_features, verdict.broken_features) == ("watch", ("count_3",), ())


def test_a_field_that_is_filled_more_often_has_drifted():
    def filled(made: Sample) -> None:
        made["sparse"] = np.random.default_rng(3).normal(size=len(made["sparse"]))

    assert judge(sample(), sample(seed=1, change=filled)).drifted_features == ("sparse",)


def test_a_unit_that_changes_is_a_broken_input():
    def cents(made: Sample) -> None:
        made["size_2"] *= 100

    verdict = judge(sample(), sample(seed=1, change=cents))
    assert (verdict.status, verdict.broken_features) == ("broken_input", ("size_2",))
    assert "more than any habit does" in verdict.reasons[0]


def test_a_column_that_vanishes_altogether_is_broken_and_one_that_never_was_is_not():
    def vanished(made: Sample) -> None:
        made["size_1"][:] = np.nan

    def never(made: Sample) -> None:
        made["flag_0"][:] = np.nan

    assert judge(sample(), sample(seed=1, change=vanished)).broken_features == ("size_1",)
    assert judge(sample(change=never), sample(seed=1, change=never)).status == "stable"


def test_few_customers_with_many_payments_each_are_not_taken_for_many():
    """Sixty customers with habits of their own: two samples of one world differ by who was drawn."""

    def world(seed: int) -> Sample:
        rng = np.random.default_rng(seed)
        return {f"habit_{i}": np.repeat(rng.normal(size=60), 50) + rng.normal(0, 0.1, 3_000) for i in range(20)}

    assert judge(world(1), world(2)).status == "drift"
    assert judge(world(1), world(2), customers=60).status == "stable"


def test_scores_that_move_are_a_drift():
    rng = np.random.default_rng(0)
    before, now = rng.normal(-6, 1, 3_000), rng.normal(-6, 1, 3_000)
    assert judge(sample(), sample(seed=1), predictions=(before, now)).status == "stable"
    moved = judge(sample(), sample(seed=1), predictions=(before, now + 0.3))
    assert moved.status == "drift"
    assert moved.reasons[0].startswith("the scores moved by 0.3")
    assert moved.prediction is not None
    assert moved.prediction.drift_detected


def outcomes(now: Outcomes, before: Outcomes = GOOD) -> tuple[str, tuple[str, ...]]:
    verdict = judge(sample(), sample(seed=1), outcomes=(before, now))
    return verdict.status, verdict.reasons


def test_alerts_that_miss_more_frauds_are_a_drift():
    status, (reason,) = outcomes(Outcomes(payments=17_000, frauds=245, alerts=60, caught=52))
    assert status == "drift"
    assert reason == ("the alerts miss 11.4 frauds in 1,000 payments, they missed 7.1 (recall 21%, it was 38%)")


def test_a_few_more_missed_frauds_are_one_campaign_not_a_drift():
    assert outcomes(Outcomes(payments=17_000, frauds=210, alerts=75, caught=60))[0] == "stable"


def test_a_fraud_rate_that_doubles_is_a_drift_even_where_all_are_caught():
    status, (reason,) = outcomes(Outcomes(payments=17_000, frauds=430, alerts=420, caught=400))
    assert (status, reason) == ("drift", "the fraud rate is 2.53%, it was 1.14%")


def test_a_fraud_rate_that_falls_is_no_reason_to_retrain():
    status, reasons = outcomes(Outcomes(payments=17_000, frauds=60, alerts=60, caught=50))
    assert (status, reasons) == ("stable", ("0 of 20 features drifted",))


def test_alerts_that_are_mostly_false_are_a_drift():
    status, (reason,) = outcomes(Outcomes(payments=17_000, frauds=190, alerts=200, caught=80))
    assert (status, reason) == ("drift", "40% of the alerts are fraud, it was 88%")


@pytest.mark.parametrize(
    ("before", "now"),
    [(GOOD, Outcomes(0, 0, 0, 0)), (Outcomes(0, 0, 0, 0), GOOD), (GOOD, Outcomes(300, 0, 0, 0)), (GOOD, GOOD)],
)
def test_outcomes_that_say_nothing_say_nothing(before: Outcomes, now: Outcomes):
    assert outcomes(now, before)[0] == "stable"


def test_the_verdict_has_the_names_that_users_of_other_systems_know_and_is_json():
    rng = np.random.default_rng(0)
    scores = (rng.normal(size=3_000), rng.normal(size=3_000))
    verdict = judge(
        sample(), sample(seed=1, change=dearer), predictions=scores, outcomes=(GOOD, Outcomes(500, 0, 0, 0))
    )
    told = json.loads(json.dumps(verdict.to_dict(), allow_nan=False))
    assert (told["dataset_drift_detected"], told["dataset_drift_share"]) == (True, 0.2)
    assert (told["num_features_checked"], told["num_features_drifted"]) == (20, 4)
    assert (told["reference_rows"], told["current_rows"]) == (3_000, 3_000)
    assert len(told["drifted_features"]) == 4
    first = told["feature_details"][0]
    assert first["feature"] == "size_0"
    assert first["drift_detected"] is True
    assert first["stattest"] == "wasserstein"
    assert first["drift_score"] == first["wasserstein"] > 0.1
    assert first["current_mean"] > first["reference_mean"] > 0
    assert told["current_outcomes"]["recall"] is None
    assert told["limits"]["wasserstein"] == 0.1


def test_bad_samples_are_named():
    with pytest.raises(InputError, match="The current sample has 0 payments"):
        judge(sample(), sample(rows=0))
    with pytest.raises(InputError, match="reference sample has 100 payments, and fewer than 200 say nothing"):
        judge(sample(rows=100), sample())
    with pytest.raises(InputError, match="The current sample lacks flag_1, sparse"):
        judge(sample(), {k: v for k, v in sample().items() if k not in ("sparse", "flag_1")})
    with pytest.raises(InputError, match="columns of the current sample have lengths"):
        judge(sample(), {**sample(), "sparse": np.zeros(5)})
    with pytest.raises(InputError, match="lengths"):
        judge({}, {})
    with pytest.raises(InputError, match="too few predictions"):
        judge(sample(), sample(), predictions=(np.zeros(3_000), np.zeros(0)))
