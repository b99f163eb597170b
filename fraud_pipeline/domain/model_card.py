"""The model card: a bundle's facts for people, in Markdown (after Mitchell et al., "Model Cards for Model Reporting", 2019)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from fraud_pipeline.domain.bundle_facts import BundleFacts
from fraud_pipeline.domain.thresholds import NEVER

KINDS: Final = {"xgboost": "gradient-boosted trees (XGBoost)", "random_forest": "a random forest (scikit-learn)"}
MODELS: Final = {
    "evaluation": "The evaluation model, on days after those it learned from: what the gates judge",
    "served": "The served model (the same recipe refitted through the as-of date)",
}
TOP_INPUTS: Final = 15
USE: Final = """## Use

Decides single card payments as they come: APPROVE, REVIEW (an analyst looks) or BLOCK. It is meant for the payments of the
company whose history it learned from. It is not meant for judging people, for credit, or for payments of another company,
currency or country without training and gates of their own."""
LIMITS: Final = """## Limits

- Frauds that nobody reported within seven days were learned from as legitimate, except among blocked payments.
- Shared features (merchant, category, country, channel, device) are two to three minutes old by design.
- Country and device take part: look at the slices above before widening its use, and at who is asked to wait.
- Drift is measured against the reference sample in this bundle; after a drift its numbers here no longer hold."""


def model_card(facts: BundleFacts) -> str:
    """The card as Markdown; the same text for the same facts."""
    sections = [
        _head(facts),
        USE,
        _training(facts),
        *(_performance(name, facts.metrics[name]) for name in MODELS if facts.metrics.get(name)),
        _thresholds(facts),
        _inputs(facts),
        LIMITS,
    ]
    return "\n\n".join(sections) + "\n"


def _head(facts: BundleFacts) -> str:
    kind = KINDS.get(facts.kind, facts.kind)
    return "\n".join([
        "# Fraud detector",
        "",
        f"A classifier of {facts.n_trees} trees, {kind}, with an Isolation Forest for the anomaly score and a calibrator",
        f"({facts.calibrator.as_dict()['kind']}). Made {facts.created_at.isoformat()}, as of {facts.lineage.as_of.isoformat()}.",
        f"Input schema `{facts.model_input.schema_hash}`.",
    ])  # fmt: skip


def _training(facts: BundleFacts) -> str:
    lineage = facts.lineage
    rows = [
        ("payments learned from", f"{lineage.rows:,}, of them {lineage.frauds:,} frauds"),
        *((f"{name.replace('_', ' ')} days", f"{first} to {last}") for name, (first, last) in lineage.periods.items()),
        ("data fingerprint", f"`{lineage.data_fingerprint}`"),
        ("code version", f"`{lineage.code_version}`"),
        ("seed", str(lineage.seed)),
        *([("thresholds chosen anew for", f"`{lineage.derived_from}`")] if lineage.derived_from else []),
        *((name, f"`{value}`") for name, value in _flat(lineage.params)),
    ]
    return "\n".join(["## Training", "", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _performance(name: str, evaluation: Mapping[str, Any]) -> str:
    lines = [f"## Performance: {name}", "", f"{MODELS[name]}."]
    if "rows" in evaluation and "frauds" in evaluation:
        lines.append(
            f"{evaluation['rows']:,} payments, {evaluation['frauds']:,} frauds. Intervals are 95 %, by customer."
        )
    lines += ["", "| metric | value | from | to |", "|---|---|---|---|"]
    for metric, value in evaluation.get("metrics", evaluation).items():
        if isinstance(value, Mapping) and "value" in value:
            lines.append(
                f"| {metric} | {_number(value['value'])} | {_number(value.get('low'))} | {_number(value.get('high'))} |"
            )
        elif isinstance(value, int | float):
            lines.append(f"| {metric} | {_number(value)} | | |")
    for dimension, parts in evaluation.get("slices", {}).items():
        lines += ["", *_slices(dimension, parts)]
    return "\n".join(lines)


def _slices(dimension: str, parts: Mapping[str, Any]) -> list[str]:
    """One table a dimension: sizes and the metrics that every part has."""
    shown = list(dict.fromkeys(metric for part in parts.values() for metric in part.get("metrics", {})))[:4]
    lines = [
        f"| {dimension} | payments | frauds |{''.join(f' {metric} |' for metric in shown)}",
        f"|{'---|' * (3 + len(shown))}",
    ]
    for name, part in parts.items():
        metrics = (_number(part.get("metrics", {}).get(metric, {}).get("value")) for metric in shown)
        lines.append(f"| {name} | {part['rows']:,} | {part['frauds']:,} |{''.join(f' {value} |' for value in metrics)}")
    return lines


def _thresholds(facts: BundleFacts) -> str:
    thresholds = facts.thresholds
    lines = ["## Thresholds", "", "| | raw score | probability |", "|---|---|---|"]
    for name, raw, probability in (
        ("REVIEW from", thresholds.review, thresholds.review_probability),
        ("BLOCK from", thresholds.block, thresholds.block_probability),
    ):
        lines.append(
            f"| {name} | {'never' if raw >= NEVER else _number(raw)} | {'' if raw >= NEVER else _number(probability)} |"
        )
    for name, value in thresholds.as_dict().items():
        if name in ("budget", "alert_share", "block_share", "expected_value") and value is not None:
            lines.append(f"| {name.replace('_', ' ')} | {_number(value)} | |")
    return "\n".join(lines)


def _inputs(facts: BundleFacts) -> str:
    names = facts.model_input.names
    lines = [
        "## Inputs",
        "",
        f"{len(facts.model_input.computed)} computed features, {len(facts.model_input.attributes)} attributes of the payment,",
        f"{len(facts.model_input.codes)} codes.",
    ]
    strongest = sorted(facts.importance.items(), key=lambda item: -item[1])[:TOP_INPUTS]
    if strongest:
        place = {name: i for i, name in enumerate(names)}
        lines += ["", "| input | importance | usual (10 %, 50 %, 90 %) |", "|---|---|---|"]
        for name, share in strongest:
            i = place.get(name)
            usual = (
                ""
                if i is None
                else ", ".join(_number(q[i]) for q in (facts.usual.low, facts.usual.middle, facts.usual.high))
            )
            lines.append(f"| {name} | {share:.1%} | {usual} |")
    return "\n".join(lines)


def _flat(params: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in params.items():
        rows += _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(prefix + name, value)]
    return rows


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:,.4g}"
