"""The card says what a person asks of a model: what for, from what, how good, from which score on, and where it fails."""

from __future__ import annotations

import dataclasses

from fraud_pipeline.domain.model_card import model_card
from fraud_pipeline.domain.thresholds import NEVER
from fraud_pipeline_tests.bundles import loaded_bundle


def test_the_card_states_the_bundles_facts() -> None:
    bundle = loaded_bundle()
    card = bundle.model_card()
    assert card == (bundle.path / "model_card.md").read_text()
    for line in (
        "A classifier of 60 trees, gradient-boosted trees (XGBoost), with an Isolation Forest for the anomaly score and a calibrator",
        "(platt). Made 2026-03-01T00:00:00+00:00, as of 2026-02-25T00:00:00+00:00.",
        f"Input schema `{bundle.feature_schema}`.",
        "| payments learned from | 4,000, of them 120 frauds |",
        "| training days | 2025-11-01 to 2026-02-18 |",
        "| data fingerprint | `dddddddddddddddd` |",
        "| params.eta | `0.2` |",
        "1,000 payments, 31 frauds. Intervals are 95 %, by customer.",
        "| pr_auc | 0.71 | 0.6 | 0.8 |",
        "| recall_at_budget | 0.5 | - | - |",
        "| pos | 700 | 9 | 0.66 |",
        "| pr_auc | 0.73 | 0.62 | 0.81 |",
        "62 computed features, 1 attributes of the payment,",
    ):
        assert line in card.splitlines(), line
    headings = [line for line in card.splitlines() if line.startswith("#")]
    assert headings == [
        "# Fraud detector", "## Use", "## Training", "## Performance: evaluation", "## Performance: served", "## Thresholds",
        "## Inputs", "## Limits",
    ]  # fmt: skip


def test_the_strongest_inputs_come_first_with_what_is_usual() -> None:
    facts = dataclasses.replace(loaded_bundle().facts, importance={"hour": 0.25, "amount": 0.75})
    place = facts.model_input.names.index("hour")
    usual = ", ".join(f"{q[place]:,.4g}" for q in (facts.usual.low, facts.usual.middle, facts.usual.high))
    lines = model_card(facts).splitlines()
    assert (
        lines.index(f"| hour | 25.0% | {usual} |")
        == lines.index(next(x for x in lines if x.startswith("| amount | 75.0%"))) + 1
    )


def test_a_threshold_that_no_score_reaches_is_called_never() -> None:
    facts = loaded_bundle().facts
    never = dataclasses.replace(facts.thresholds, block=NEVER)
    assert "| BLOCK from | never |  |" in model_card(dataclasses.replace(facts, thresholds=never))


def test_a_bundle_without_numbers_has_no_performance_section() -> None:
    assert "## Performance" not in model_card(dataclasses.replace(loaded_bundle().facts, metrics={}))
