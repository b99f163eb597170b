"""The drift report on many payments: `python -m benchmarks.drift_report [--rows 1000000] [--served 100000] [--json]`.

A simulated week of so many payments, in a home of its own, with a champion trained on a part of them; `--served` of them were
served live and have their decisions in the ledger. Then, each in a process of its own, what the daily reports do: the sample,
the verdict, the page with Evidently; the estimate; the logged vectors against batch. Verdict and page are of a sample of at
most 10,000 payments that is drawn from all of them. Seconds, peak memory, and the CPU that monitoring costs per decision.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fraud_pipeline.adapters.bundle_export import build_bundle
from fraud_pipeline.adapters.champion_watch import current_week, expect_of, judge_drift, recent_days
from fraud_pipeline.adapters.dataset_schemas import days_between
from fraud_pipeline.adapters.dataset_store import DatasetStore, SourceStore
from fraud_pipeline.adapters.drift_report import render
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import DecisionRecord
from fraud_pipeline.adapters.sampled_days import stored_vectors
from fraud_pipeline.adapters.served_skew import compare_days
from fraud_pipeline.adapters.world_source import land_world
from fraud_pipeline.commands.opening import open_builder
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.bundle_facts import Lineage
from fraud_pipeline.domain.calibration import Platt
from fraud_pipeline.domain.decision import decide_on
from fraud_pipeline.domain.feature_spec import FEATURE_NAMES
from fraud_pipeline.domain.model_input import ModelInput
from fraud_pipeline.domain.sampling import training_medians
from fraud_pipeline.domain.simulation_config import WorldConfig
from fraud_pipeline.domain.thresholds import thresholds_at
from fraud_pipeline.domain.training import Recipe, TrainedClassifier, TrainedDetector
from fraud_pipeline.settings import Settings

END: Final = date(2026, 3, 2)
DAYS: Final = 14
"""A week for the reference and a week to judge."""
RATE: Final = 1.7
COPIES: Final = 10
"""Each payment of the judged week is there so many times, from as many customers: what is measured is reading, not simulating."""
TRAINED_ON: Final = 100_000
_MIB: Final = 1024.0


def main() -> None:
    """Make the home, measure each step, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="payments of the judged week")
    parser.add_argument(
        "--served", type=int, default=100_000, help="of its last day, those with decisions in the ledger"
    )
    parser.add_argument("--json", action="store_true", help="print only the JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fraud-drift-report-") as folder:
        home = Path(folder)
        bundle, decisions = apart(prepare, home, options.rows, options.served)["result"]
        steps = {step.__name__: apart(step, home, bundle) for step in (drift, estimate, skew)}
    cpu = sum(step["cpu_s"] for step in steps.values())
    result = {
        "rows": options.rows,
        "decisions_in_ledger": decisions,
        "steps": steps,
        "seconds": round(sum(step["seconds"] for step in steps.values()), 1),
        "peak_mib": max(step["peak_mib"] for step in steps.values()),
        "cpu_us_per_decision": round(cpu * 1e6 / (options.rows / 7), 1),
    }
    if not options.json:
        for name, step in steps.items():
            print(f"{name}: {step['seconds']} s, {step['cpu_s']} s of CPU, {step['peak_mib']} MiB; {step['result']}")
        print(f"{result['cpu_us_per_decision']} us of CPU for each decision of a day, for a daily report")
    print(json.dumps(result))


def apart(work: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Run a step in a process of its own: its result, seconds, CPU seconds and peak memory."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (work, arguments))


def _measured(work: Callable[..., Any], arguments: tuple[Any, ...]) -> dict[str, Any]:
    started, cpu = time.perf_counter(), time.process_time()
    result = work(*arguments)
    return {
        "result": result,
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MIB),
    }


def prepare(home: Path, rows: int, served: int) -> tuple[Path, int]:
    """Two weeks of payments with features, a champion's bundle, and the decisions on payments of the last day."""
    customers = max(100, round(rows / 7 / RATE / COPIES))
    config = WorldConfig(
        end=END, days=DAYS, customers=customers, merchants=max(100, customers // 20), rate=RATE, fraud_rate=0.01
    )
    land_world(config, home=home)
    store, source, days = DatasetStore(home), SourceStore(home), days_between(config.start, config.end)
    for day in days:
        for dataset in ("transactions", "labels"):
            table = source.read_day(dataset, day)
            if dataset == "transactions" and day >= days[7]:
                table = copied(table)
            if dataset == "transactions" and day == days[-1]:
                writers = ["local"] * min(served, table.num_rows) + [None] * max(0, table.num_rows - served)
                table = table.set_column(table.schema.get_field_index("writer"), "writer", [writers])
            store.write_day(dataset, day, table, verdict="passed")
    for _ in open_builder(Settings(home=home)).feature_store.materialize(days):
        pass
    path = champion_of(home, store, source, days[:7])
    bundle = ModelBundle.load(path, version="1")
    return path, decide(store, bundle, days[-1], Settings(home=home), served)


def copied(table: pa.Table) -> pa.Table:
    """The payments COPIES times, in the order of time, each copy with ids and customers of its own."""
    copies = []
    for number in range(COPIES):
        copy = table
        for name in ("transaction_id", "customer_id"):
            ids = pc.binary_join_element_wise(table[name], f"{number}", "-")
            copy = copy.set_column(copy.schema.get_field_index(name), name, ids)
        copies.append(copy)
    return pa.concat_tables(copies).sort_by([("event_time", "ascending"), ("transaction_id", "ascending")])


def champion_of(home: Path, store: DatasetStore, source: SourceStore, days: list[date]) -> Path:
    """A bundle of small models on payments of the first week."""
    import xgboost
    from sklearn.ensemble import IsolationForest

    tables = [store.read_day("features", day, list(FEATURE_NAMES)) for day in days]
    values = np.concatenate([np.stack([t[name].to_numpy() for name in FEATURE_NAMES], axis=1) for t in tables])
    frauds = {each for day in days for each in source.read_day("truth", day)["transaction_id"].to_pylist()}
    ids = [
        each
        for day in days
        for each in store.read_day("transactions", day, ["transaction_id"])["transaction_id"].to_pylist()
    ]
    fraud = np.array([each in frauds for each in ids])
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.permutation(len(values))[:TRAINED_ON])
    x, y = values[chosen], fraud[chosen]
    medians = training_medians(x)
    booster = xgboost.train(
        {"objective": "binary:logistic", "max_depth": 4, "eta": 0.1, "base_score": 0.5}, xgboost.DMatrix(x, y), 200
    )
    filled = np.where(np.isnan(x), medians, x)
    model_input = ModelInput.of()
    calibrator = Platt(1.0, 0.0)
    reference = chosen[:10_000]
    lineage = Lineage(
        data_fingerprint="benchmark", code_version="benchmark", as_of=datetime.combine(days[-1], datetime.min.time(), UTC),
        seed=0, rows=len(x), frauds=int(y.sum()), periods={"training": (str(days[0]), str(days[-1]))}, params={"kind": "xgboost"},
    )  # fmt: skip
    return build_bundle(
        TrainedClassifier(Recipe("xgboost"), booster, 200, model_input.names, None),
        TrainedDetector(IsolationForest(n_estimators=50, random_state=0).fit(filled[:20_000]), model_input.names, medians),
        model_input=model_input, calibrator=calibrator, thresholds=thresholds_at(calibrator, review=0.2, block=0.6),
        reference_values=values[reference], reference_is_fraud=fraud[reference], lineage=lineage, metrics={},
        created_at=datetime.now(UTC), root=home / "bundles",
    )  # fmt: skip


def decide(store: DatasetStore, bundle: ModelBundle, day: date, settings: Settings, served: int) -> int:
    """Decisions on the first payments of the day, as the service gives them, in the ledger."""
    rows = min(served, store.manifest("transactions", day).rows)
    payments, vectors = stored_vectors(store, bundle, day, np.arange(rows))
    ids, moments = payments["transaction_id"].to_pylist(), payments["event_time"].to_pylist()
    with Ledger.open(settings.ledger_url) as ledger:
        for start in range(0, rows, 5_000):
            part = range(start, min(rows, start + 5_000))
            given = [
                decide_on(
                    vectors[row], bundle, transaction_id=ids[row], event_time=moments[row], decided_at=moments[row]
                )
                for row in part
            ]
            ledger.record_decisions([DecisionRecord.of(each) for each in given])
    return rows


def drift(home: Path, bundle: Path) -> dict[str, Any]:
    """The sample of the week, the verdict, the page."""
    champion, settings = ModelBundle.load(bundle, version="1"), Settings(home=home)
    with Ledger.open(settings.ledger_url) as ledger:
        current = current_week(open_builder(settings), champion, as_of=END, ledger=ledger)
    verdict, samples = judge_drift(champion, current, mature=None)
    render(
        verdict, home / "page.html", reference=samples["reference"], current=samples["current"], title="Drift"
    )  # fmt: skip
    return {
        "status": verdict.status,
        "compared": verdict.current_rows,
        "page_kib": (home / "page.html").stat().st_size // 1024,
    }


def estimate(home: Path, bundle: Path) -> dict[str, Any]:
    """What the performance report expects of the week."""
    champion, settings = ModelBundle.load(bundle, version="1"), Settings(home=home)
    week = [END - timedelta(days=back) for back in range(7, 0, -1)]
    with Ledger.open(settings.ledger_url) as ledger:
        recent = recent_days(open_builder(settings), champion, week, as_of=END, ledger=ledger)
    if recent is None:
        raise SystemExit("The week holds no payment.")
    found = expect_of(champion, recent, seed=0)
    return {"sampled": found.rows, "expected_precision": round(found["precision"].value, 3)}


def skew(home: Path, bundle: Path) -> dict[str, Any]:
    """The logged vectors of the last day against batch."""
    champion, settings = ModelBundle.load(bundle, version="1"), Settings(home=home)
    with Ledger.open(settings.ledger_url) as ledger:
        found = compare_days(DatasetStore(home), [END - timedelta(days=1)], lambda _: champion, ledger=ledger)
    return {"compared": found.rows, "differing_values": found.differing_values}


if __name__ == "__main__":
    main()
