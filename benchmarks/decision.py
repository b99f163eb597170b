"""One decision in process: each stage and the whole, over payments of a simulated world and a model trained on it.

Bar: median 150 us, p99 1 ms. `median_us` and `p99_us` are of decisions that all give their reasons (thresholds so low that
every payment is a REVIEW), which is the dearest path; `as_served` are the same payments at thresholds for the alert budget.

    python -m benchmarks.decision [--decisions 20000] [--trees 400] [--depth 6] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from fraud_pipeline.adapters.bundle_export import build_bundle, served_difference
from fraud_pipeline.adapters.dataset_schemas import LABEL_SCHEMA, TRANSACTION_SCHEMA
from fraud_pipeline.adapters.world_source import arrow_table
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.bundle_facts import Lineage
from fraud_pipeline.domain.calibration import fit_calibrator
from fraud_pipeline.domain.decision import decide
from fraud_pipeline.domain.explanation import strongest_reasons
from fraud_pipeline.domain.feature_batch import compute_features
from fraud_pipeline.domain.feature_columns import EventColumns, LabelColumns
from fraud_pipeline.domain.feature_state import FeatureState
from fraud_pipeline.domain.model_input import ModelInput
from fraud_pipeline.domain.reasons import rising_contributions
from fraud_pipeline.domain.simulation import World, WorldConfig
from fraud_pipeline.domain.thresholds import NEVER, Costs, choose_thresholds
from fraud_pipeline.domain.training import BOOSTING_DEFAULTS, Recipe, TrainedClassifier, TrainedDetector
from fraud_pipeline.domain.transaction import Transaction

END: Final = date(2026, 3, 1)
BUDGET: Final = 0.005
SEED: Final = 42


def main() -> None:
    """Train, decide, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--decisions", type=int, default=20_000)
    parser.add_argument("--customers", type=int, default=1_000)
    parser.add_argument("--days", type=int, default=45)
    parser.add_argument("--trees", type=int, default=400)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = run(options, Path(folder))
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:>24}  {value}")


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything, with its times."""
    world = World(WorldConfig(end=END, customers=options.customers, days=options.days, seed=SEED))
    say(f"simulating {options.days} days, computing features, training {options.trees} trees of depth {options.depth}")
    state, values, is_fraud = history(world)
    bundle, conversion_s, difference = trained(options, folder, values, is_fraud)
    always = everything_reviewed(bundle, folder)
    payments = list(live_payments(world, options.decisions))
    say(f"deciding {len(payments):,} payments")
    served, decisions = timed_decisions(deepcopy(state), bundle, payments)
    explained, _ = timed_decisions(deepcopy(state), always, payments)
    return {
        **summary(explained),
        "as_served": {**summary(served), "alert_share": float(np.mean([d != "APPROVE" for d in decisions]))},
        "stages": stages(state, always, payments),
        "trees": bundle.facts.n_trees,
        "nodes": len(bundle.walk.nodes),
        "inputs": len(bundle.input_names),
        "decisions": len(payments),
        "bundle_written_s": round(conversion_s, 2),
        "served_minus_trained": difference,
    }


def history(world: World) -> tuple[FeatureState, np.ndarray, np.ndarray]:
    """The state after the world's days, features [n, F] and true frauds [n]."""
    days = list(world.days())
    transactions = pa.concat_tables([arrow_table(day.transactions, TRANSACTION_SCHEMA) for day in days])
    labels = pa.concat_tables([arrow_table(day.labels, LABEL_SCHEMA) for day in days])
    known = labels.filter(pa.compute.less(labels["known_at"], datetime(END.year, END.month, END.day, tzinfo=UTC)))
    known = known.sort_by([("known_at", "ascending"), ("transaction_id", "ascending")])
    matrix = compute_features(EventColumns.from_table(transactions), LabelColumns.from_table(known))
    frauds = np.concatenate([day.truth["transaction_id"] for day in days])
    is_fraud = np.isin(np.concatenate([day.transactions["transaction_id"] for day in days]), frauds)
    return matrix.state, matrix.values, is_fraud


def trained(
    options: argparse.Namespace, folder: Path, values: np.ndarray, is_fraud: np.ndarray
) -> tuple[ModelBundle, float, float]:
    """A bundle trained on the first three quarters, seconds to write it, and the largest served - trained difference."""
    import xgboost
    from sklearn.ensemble import IsolationForest

    names, cut = ModelInput.of().names, len(values) * 3 // 4
    params = {name: value for name, value in BOOSTING_DEFAULTS.items() if name not in ("rounds", "patience")}
    matrix = xgboost.QuantileDMatrix(values[:cut], is_fraud[:cut], max_bin=params["max_bin"])
    booster = xgboost.train({**params, "max_depth": options.depth, "seed": SEED}, matrix, options.trees)
    classifier = TrainedClassifier(Recipe(), booster, options.trees, names, None)
    medians = np.nan_to_num(np.nanmedian(values[:cut], axis=0))
    filled = np.where(np.isnan(values[:cut]), medians, values[:cut])
    detector = TrainedDetector(IsolationForest(n_estimators=100, random_state=SEED).fit(filled), names, medians)
    raw, later = classifier.raw_score(values[cut:]), is_fraud[cut:]
    calibrator = fit_calibrator(raw, later)
    amount = values[cut:, 0].astype(np.float64)
    thresholds = choose_thresholds(
        raw, calibrator.apply(raw), is_fraud=later, amount=amount, costs=Costs(), budget=BUDGET
    )
    moment = datetime(END.year, END.month, END.day, tzinfo=UTC)
    started = time.perf_counter()
    path = build_bundle(
        classifier,
        detector,
        model_input=ModelInput.of(),
        calibrator=calibrator,
        thresholds=thresholds,
        reference_values=values[cut:],
        reference_is_fraud=later,
        lineage=Lineage("benchmark", "benchmark", moment, SEED, cut, int(is_fraud[:cut].sum())),
        metrics={},
        created_at=moment,
        root=folder,
    )
    seconds = time.perf_counter() - started
    bundle = ModelBundle.load(path)
    return bundle, seconds, served_difference(classifier, bundle, values[cut:])


def everything_reviewed(bundle: ModelBundle, folder: Path) -> ModelBundle:
    """The same models with thresholds at which every payment is a REVIEW."""
    thresholds = replace(bundle.thresholds, review=-NEVER, block=NEVER)
    return ModelBundle.load(bundle.with_thresholds(thresholds, folder, created_at=bundle.facts.created_at))


def live_payments(world: World, wanted: int) -> Iterable[Transaction]:
    """Payments of the days after the history."""
    day, made = END, 0
    while made < wanted:
        for row in arrow_table(world.day(day).transactions, TRANSACTION_SCHEMA).to_pylist():
            if made == wanted:
                return
            yield Transaction(**{name: row[name] for name in Transaction.__dataclass_fields__ if name in row})
            made += 1
        day += timedelta(days=1)


def timed_decisions(
    state: FeatureState, bundle: ModelBundle, payments: list[Transaction]
) -> tuple[np.ndarray, list[str]]:
    """Nanoseconds of each decision, the state moved on in between, and what was decided."""
    times = np.empty(len(payments), dtype=np.int64)
    verdicts: list[str] = []
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    for place, payment in enumerate(payments):
        started = time.perf_counter_ns()
        decision = decide(state, bundle, payment, decided_at=moment)
        times[place] = time.perf_counter_ns() - started
        verdicts.append(decision.decision)
        state.update(payment)
    return times, verdicts


def stages(state: FeatureState, bundle: ModelBundle, payments: list[Transaction]) -> dict[str, dict[str, float]]:
    """Each stage alone, over the same payments."""
    times: dict[str, list[int]] = {}

    def measured(name: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter_ns()
        result = work()
        times.setdefault(name, []).append(time.perf_counter_ns() - started)
        return result

    moment = datetime(2026, 3, 1, tzinfo=UTC)
    for payment in payments:
        one = _Payment(state, bundle, payment)
        one.computed = measured("state and features", one.read)
        one.vector = measured("input vector", one.assemble)
        measured("models and calibration", one.score)
        one.contributions = measured("contributions", one.contribute)
        measured("reasons and risk factors", one.explain)
        decision = decide(state, bundle, payment, decided_at=moment)
        measured("JSON (not in the whole)", decision.to_json)
        state.update(payment)
    return {name: summary(np.array(each)) for name, each in times.items()}


class _Payment:
    """One payment on its way through the stages."""

    def __init__(self, state: FeatureState, bundle: ModelBundle, payment: Transaction) -> None:
        self.state, self.bundle, self.payment = state, bundle, payment
        self.computed = self.vector = np.empty(0, dtype=np.float32)
        self.contributions = np.empty(0)

    def read(self) -> np.ndarray:
        return self.state.read(self.payment)

    def assemble(self) -> np.ndarray:
        return self.bundle.inputs.vector(self.computed, self.payment)

    def score(self) -> Any:
        return self.bundle.score(self.vector.reshape(1, -1))

    def contribute(self) -> np.ndarray:
        return self.bundle.contributions(self.vector)

    def explain(self) -> Any:
        rising = rising_contributions(self.contributions)
        reasons = strongest_reasons(self.bundle.input_names, self.vector, rising)
        return reasons, self.bundle.risk_table.risk_factors(self.vector, rising, anomaly_score=0.5)


def summary(nanoseconds: np.ndarray) -> dict[str, float]:
    """Median and 99th percentile in microseconds."""
    return {
        "median_us": round(float(np.median(nanoseconds)) / 1e3, 1),
        "p99_us": round(float(np.percentile(nanoseconds, 99)) / 1e3, 1),
    }


def say(text: str) -> None:
    """Progress, beside the result."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
