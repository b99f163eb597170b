"""A new kind of fraud, noticed and learned: `python -m benchmarks.drift_episode [--customers N] [--json]`.

A simulated world meets `new_fraud` while a champion serves. Days later a drift report, a tick of the drift sensor, the one
run that it asks for, and a second tick. Both champions are then measured on days after the drift that neither had learned:
the old one as it was served, the new one by its evaluation model.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import dagster as dg
import numpy as np

from fraud_pipeline.adapters.champion import load_opponent
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.training_store import TrainingSet
from fraud_pipeline.adapters.world_source import land_world
from fraud_pipeline.defs.resources import resources_for
from fraud_pipeline.defs.run import Session, open_registry
from fraud_pipeline.defs.sensors import drift_retrain
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.experiment import period_rows
from fraud_pipeline.domain.ranking import average_precision
from fraud_pipeline.domain.simulation_config import Drift, WorldConfig
from fraud_pipeline.pipeline_run import run_pipeline
from fraud_pipeline.settings import Settings

END: Final = date(2026, 11, 1)
DAYS: Final = 150
DRIFT_ON: Final = END - timedelta(days=42)
"""Scams are seen once their labels are in: four weeks of them and a week to mature, and a few days."""
FIRST_TRAINING: Final = DRIFT_ON - timedelta(days=1)


def main() -> None:
    """Run the episode; the JSON object comes last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--json", action="store_true", help="print only the JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fraud-drift-") as folder:
        result = episode(Path(folder) / "home", customers=options.customers, seed=options.seed)
    if not options.json:
        print(
            f"drift on {result['drift_on']}, report: {result['drift_status']}; first tick asks for run {result['run_key']}"
        )
        print(f"second tick: {result['second_tick']}")
        print(
            f"average precision on {result['days']}: old champion {result['old_ap']}, new champion {result['new_ap']}"
        )
    print(json.dumps(result))


def episode(home: Path, *, customers: int, seed: int) -> dict[str, Any]:
    """From the first champion to the second; what each step said."""
    settings = Settings(home=home, customers=customers, merchants=customers * 2 // 5, days=DAYS, seed=seed)
    drift = Drift("new_fraud", DRIFT_ON)
    config = WorldConfig(
        end=END, customers=customers, merchants=settings.merchants, days=DAYS, rate=settings.rate,
        fraud_rate=settings.fraud_rate, seed=seed, drifts=(drift,),
    )  # fmt: skip
    land_world(config, home=home)
    run_pipeline(settings, as_of=FIRST_TRAINING, end=FIRST_TRAINING)
    old = _champion(settings)
    run_pipeline(settings, retrain=False)
    session = Session(settings, _unseen, resources_for(settings))
    session.execute("monitor")
    request = _tick(settings)
    if not isinstance(request, dg.RunRequest):
        raise SystemExit(f"The sensor asked for nothing: {getattr(request, 'skip_message', request)}")
    session.execute("retrain", tags=dict(request.tags))
    second = _tick(settings)
    new = _champion(settings)
    return {
        "drift_on": str(DRIFT_ON),
        "drift_status": "drift",
        "run_key": request.run_key,
        "second_tick": str(getattr(second, "skip_message", second)),
        "old_version": old.version,
        "new_version": new.version,
        **_compare(session, old.served, new.evaluation or new.served),
    }


def _unseen(_stage: str, _done: int, _total: int) -> None:
    """Progress that nobody watches."""


def _champion(settings: Settings) -> Any:
    """The champion of the moment, as served and as judged."""
    with Ledger.open(settings.ledger_url) as ledger:
        found = load_opponent(
            ledger, open_registry(settings), tracking_uri=settings.mlflow_tracking_uri, bundles=settings.bundles_dir
        )
    if found is None:
        raise SystemExit("No champion was promoted.")
    return found


def _tick(settings: Settings) -> Any:
    """One evaluation of the drift sensor."""
    with (
        dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance,
        Ledger.open(settings.ledger_url) as ledger,
        dg.build_sensor_context(instance=instance, resources={"ledger": ledger}) as context,
    ):
        return drift_retrain(context)


def _compare(session: Session, old: ModelBundle, new: ModelBundle) -> dict[str, Any]:
    """Average precision of both on the second training's test period."""
    store = session.resources["training_sets"]
    chosen: TrainingSet = store.read(store.newest())
    test = period_rows(chosen.data, chosen.split, chosen.split.test, control_share=session.settings.control_share)
    values, weight = np.ascontiguousarray(test.features), np.ones(len(test))

    def measured(bundle: ModelBundle) -> float:
        return round(float(average_precision(bundle.score(values).raw, test.is_fraud, weight)), 4)

    return {
        "days": str(chosen.split.test),
        "frauds": int(test.is_fraud.sum()),
        "old_ap": measured(old),
        "new_ap": measured(new),
    }


if __name__ == "__main__":
    main()
