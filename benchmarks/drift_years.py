"""False retrainings a year and days until a drift is noticed: `python -m benchmarks.drift_years [--seeds 42 7] [--json]`.

Simulated worlds go through the real verdict and the real episode rules. A champion is trained once per seed; then a year
without drift gets a verdict each day, and so does each kind of drift for the days after it. Whenever an episode asks for a
run, the run is taken to end in a promotion, and the champion is kept all the same: so what raised one false alarm may raise
the next one a cool-down later, and the years are counted on the careful side. All limits of the verdict are then multiplied
by common factors, and what each factor costs and gains is drawn.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import pyarrow as pa

from benchmarks.drift_years_plot import draw_trade_off
from fraud_pipeline.adapters.dataset_schemas import LABEL_SCHEMA, TRANSACTION_SCHEMA
from fraud_pipeline.adapters.world_source import arrow_table
from fraud_pipeline.domain.drift import (
    Comparison,
    DriftLimits,
    DriftVerdict,
    Outcomes,
    Window,
    compare,
    judge_comparison,
)
from fraud_pipeline.domain.drift_episode import DriftAttempt, DriftEpisode, DriftObservation, next_action
from fraud_pipeline.domain.evaluation import EvaluationSettings
from fraud_pipeline.domain.experiment import ExperimentSettings, judge_classifier, period_rows, train_classifiers
from fraud_pipeline.domain.feature_batch import compute_features
from fraud_pipeline.domain.feature_columns import EventColumns, LabelColumns
from fraud_pipeline.domain.feature_spec import FEATURE_NAMES
from fraud_pipeline.domain.learning_data import NEVER_KNOWN, LearningData
from fraud_pipeline.domain.new_labels import NewLabels, label_shortage
from fraud_pipeline.domain.simulation import SimulatedDay, World
from fraud_pipeline.domain.simulation_config import DRIFT_KINDS, Drift, WorldConfig
from fraud_pipeline.domain.splits import midnight_us, split_data
from fraud_pipeline.domain.thresholds import Thresholds
from fraud_pipeline.domain.training import TrainedClassifier

START: Final = date(2026, 1, 1)
TRAINING_DAYS: Final = 100
CALM_DAYS: Final = 21
"""Between the training and the drift: champions are not always young when the world changes."""
WATCHED_DAYS: Final = 70
"""After the drift. What is not noticed by then counts as not noticed."""
CURRENT_DAYS: Final = 7
MATURITY_DAYS: Final = 7
MATURE_DAYS: Final = 28
MAX_ROWS: Final = 5_000
LEAST_FRAUDS: Final = 10
LABELS_WANTED: Final = 30
"""New frauds before a retraining, as FRAUD_RETRAIN_MIN_FRAUDS has it."""
FACTORS: Final = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)
PICTURE: Final = Path("docs/images/drift-trade-off.png")
_EPOCH: Final = date(1970, 1, 1)


@dataclass(frozen=True)
class Champion:
    """The served model of a seed's world, and what its bundle would hold for the watch."""

    model: TrainedClassifier
    thresholds: Thresholds
    reference: dict[str, Any]
    reference_raw: Any
    outcomes: Outcomes
    learned_through: date
    as_of: date


@dataclass(frozen=True)
class Scored:
    """A world's payments with the champion's scores, sorted by time; `known_at` of frauds that become known."""

    features: Any
    raw: Any
    day: Any
    customer: Any
    alert: Any
    known_at: Any


def main() -> None:
    """Simulate, judge, count, draw; the JSON object comes last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 7, 11])
    parser.add_argument("--customers", type=int, default=400)
    parser.add_argument("--rate", type=float, default=2.0, help="payments per customer and day")
    parser.add_argument("--fraud-rate", type=float, default=0.01)
    parser.add_argument("--year", type=int, default=365, help="days of the stable world after the training")
    parser.add_argument("--every", type=int, default=1, help="days between two verdicts")
    parser.add_argument("--drift-every", type=int, default=1, help="the same after a drift")
    parser.add_argument("--workers", type=int, default=2, help="seeds at a time")
    parser.add_argument("--kinds", nargs="*", default=list(DRIFT_KINDS), choices=DRIFT_KINDS)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--json", action="store_true", help="print only the JSON object")
    options = parser.parse_args()
    started = time.perf_counter()
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        seeds = list(pool.map(one_seed, options.seeds, [options] * len(options.seeds)))
    result = sum_up(seeds, options) | {"seconds": round(time.perf_counter() - started, 1)}
    draw_trade_off(result, options.picture)
    if not options.json:
        for factor, row in result["by_factor"].items():
            print(
                f"limits x {factor}: {row['false_retrains_per_year']:.2f} false retrainings a year; {row['days_to_detect']}"
            )
    print(json.dumps(result))


def one_seed(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One champion through a stable year and through each kind of drift."""
    stable = config_of(options, seed, days=TRAINING_DAYS + options.year)
    table, labels = simulated(stable)
    champion = train(table, labels, stable)
    scored = score(champion, table, labels)
    found: dict[str, Any] = {
        "seed": seed,
        "stable": watch(champion, scored, champion.as_of, days=options.year, every=options.every),
    }
    del table, labels, scored
    on = champion.as_of + timedelta(days=CALM_DAYS)
    for kind in options.kinds:
        drifting = config_of(options, seed, days=TRAINING_DAYS + CALM_DAYS + WATCHED_DAYS, drift=Drift(kind, on))
        scored = score(champion, *simulated(drifting))
        found[kind] = watch(champion, scored, on, days=WATCHED_DAYS, every=options.drift_every)
    return found


def config_of(options: argparse.Namespace, seed: int, *, days: int, drift: Drift | None = None) -> WorldConfig:
    """A world of the wanted size that begins on START."""
    return WorldConfig(
        end=START + timedelta(days=days), days=days, customers=options.customers, merchants=options.customers * 2 // 5,
        rate=options.rate, fraud_rate=options.fraud_rate, seed=seed, drifts=() if drift is None else (drift,),
    )  # fmt: skip


def simulated(config: WorldConfig) -> tuple[pa.Table, pa.Table]:
    """All payments, and the labels in the order in which they become known until the world's end."""
    days: list[SimulatedDay] = list(World(config).days())
    payments = pa.concat_tables([arrow_table(d.transactions, TRANSACTION_SCHEMA) for d in days]).combine_chunks()
    labels = pa.concat_tables([arrow_table(d.labels, LABEL_SCHEMA) for d in days])
    known = labels["known_at"].to_numpy() < np.datetime64(config.end, "us")
    return payments, labels.filter(pa.array(known)).sort_by("known_at")


def learning_data(payments: pa.Table, labels: pa.Table) -> LearningData:
    """Payments with all computed features and every label with the moment at which it becomes known."""
    features = compute_features(EventColumns.from_table(payments), LabelColumns.from_table(labels)).values
    rows, zeros = payments.num_rows, np.zeros(payments.num_rows, np.int32)
    place = {each: row for row, each in enumerate(payments["transaction_id"].to_pylist())}
    known_at = np.full(rows, NEVER_KNOWN)
    told = labels["known_at"].cast(pa.int64()).to_numpy()
    known_at[[place[each] for each in labels["transaction_id"].to_pylist()]] = told
    is_fraud = known_at != NEVER_KNOWN
    return LearningData(
        transaction_id=np.arange(rows), event_time=payments["event_time"].cast(pa.int64()).to_numpy(),
        customer=np.unique(payments["customer_id"].to_numpy(), return_inverse=True)[1].astype(np.int32),
        amount=payments["amount_minor"].to_numpy() / 100.0, channel=zeros, country=zeros, category=zeros,
        channel_names=("all",), country_names=("all",), category_names=("all",), features=features,
        feature_names=FEATURE_NAMES, is_fraud=is_fraud, label_known_at=known_at, labelled=is_fraud.copy(),
        blocked=np.zeros(rows, bool), control=np.zeros(rows, bool), weight=np.ones(rows, np.float32),
    )  # fmt: skip


def train(payments: pa.Table, labels: pa.Table, config: WorldConfig) -> Champion:
    """The champion as of TRAINING_DAYS after the world's start, with its reference and its test period's outcomes."""
    as_of = config.start + timedelta(days=TRAINING_DAYS)
    data = learning_data(payments, labels)
    data = data.rows(data.event_time < midnight_us(as_of))
    split = split_data(data, as_of=as_of, frauds_needed=50)
    settings = ExperimentSettings(evaluation=EvaluationSettings(replicates=20, slice_replicates=20), seed=config.seed)
    pair = train_classifiers(data, split, settings=settings)
    judged = judge_classifier(data, split, pair.evaluation, settings=settings)
    rows = period_rows(data, split, split.reference, control_share=settings.control_share)
    rows = rows.rows(np.linspace(0, len(rows), min(len(rows), MAX_ROWS), endpoint=False).astype(int))
    alert = judged.evaluation_thresholds.decide(judged.raw)[0]
    return Champion(
        model=pair.served, thresholds=judged.served_thresholds, reference=columns(rows.features),
        reference_raw=pair.served.raw_score(rows.features),
        outcomes=counted(alert, judged.test.is_fraud), learned_through=as_of - timedelta(days=MATURITY_DAYS), as_of=as_of,
    )  # fmt: skip


def score(champion: Champion, payments: pa.Table, labels: pa.Table) -> Scored:
    """The champion's scores of a whole world."""
    data = learning_data(payments, labels)
    raw = champion.model.raw_score(data.features).astype(np.float64)
    alert = champion.thresholds.decide(raw)[0]
    return Scored(data.features, raw, data.day, data.customer, alert, data.label_known_at)


def watch(champion: Champion, world: Scored, first: date, *, days: int, every: int) -> dict[str, Any]:
    """A verdict for each day after `first`, by each factor: the days (after `first`) on which a run was asked for, and so on."""
    moments = [first + timedelta(days=back) for back in range(every, days + 1, every)]
    episodes = {factor: Episodes(champion) for factor in FACTORS}
    for as_of in moments:
        held, outcomes, frauds = compared(champion, world, as_of)
        for factor, seen in episodes.items():
            seen.judge(judge_comparison(held, limits=scaled(factor), outcomes=outcomes), as_of, frauds)
    return {
        str(factor): {
            "asked": [(day - first).days for day in seen.asked],
            "opened": [(day - first).days for day in seen.opened],
            "broken": [(day - first).days for day in seen.broken][:1],
            "verdicts": seen.verdicts,
        }
        for factor, seen in episodes.items()
    }


def compared(
    champion: Champion, world: Scored, as_of: date
) -> tuple[Comparison, tuple[Outcomes, Outcomes] | None, NewLabels]:
    """The week before `as_of` beside the reference, mature outcomes, and the new frauds known by then."""
    today = (as_of - _EPOCH).days
    rows = np.arange(*np.searchsorted(world.day, [today - CURRENT_DAYS, today]))
    if len(rows) > MAX_ROWS:
        rows = rows[np.linspace(0, len(rows), MAX_ROWS, endpoint=False).astype(int)]
    held = compare(
        champion.reference, columns(world.features[rows]), predictions=(champion.reference_raw, world.raw[rows]),
        window=Window(world.day[rows], world.customer[rows]),
    )  # fmt: skip
    learned = (champion.learned_through - _EPOCH).days
    old = slice(*np.searchsorted(world.day, [max(learned, today - MATURITY_DAYS - MATURE_DAYS), today - MATURITY_DAYS]))
    known = world.known_at[old] < midnight_us(as_of)
    outcomes = (champion.outcomes, counted(world.alert[old], known)) if known.sum() >= LEAST_FRAUDS else None
    since = slice(*np.searchsorted(world.day, [learned, today - MATURITY_DAYS]))
    frauds = int((world.known_at[since] < midnight_us(as_of)).sum())
    mature = max(0, today - MATURITY_DAYS - learned - 1)
    return held, outcomes, NewLabels(frauds, mature, champion.learned_through)


class Episodes:
    """The episode rules over the days: what the drift sensor would do, with every run ending in a promotion."""

    def __init__(self, champion: Champion) -> None:
        self.learned_through = champion.learned_through
        self.version = 1
        self.last: DriftEpisode | None = None
        self.asked: list[date] = []
        self.opened: list[date] = []
        self.broken: list[date] = []
        self.verdicts: dict[str, int] = {}

    def judge(self, verdict: DriftVerdict, as_of: date, new: NewLabels) -> None:
        """One verdict, and what follows until the sensor waits."""
        self.verdicts[verdict.status] = self.verdicts.get(verdict.status, 0) + 1
        if verdict.status == "broken_input":
            self.broken.append(as_of)
        now = datetime.combine(as_of, datetime.min.time(), UTC)
        seen = DriftObservation(
            now, self.version, drifted=verdict.drifted, reason="; ".join(verdict.reasons),
            broken_input=verdict.status == "broken_input",
        )  # fmt: skip
        shortage = label_shortage(new, wanted=LABELS_WANTED)
        action = next_action(self.last, seen, champion_version=self.version, now=now, shortage=shortage)
        if action.kind == "open":
            self.opened.append(as_of)
            self.last = DriftEpisode(action.episode_id, now, self.version)
        if action.starts_run and self.last is not None:
            attempt = DriftAttempt(action.attempt, action.run_key, now, now, "succeeded")
            self.last = replace(self.last, attempts=(attempt,))
            self.asked.append(as_of)
            self.version += 1
            action = next_action(self.last, seen, champion_version=self.version, now=now)
        if action.kind == "close" and self.last is not None:
            self.last = replace(self.last, closed_at=now, close_reason=action.reason)


def scaled(factor: float) -> DriftLimits:
    """All limits of drift times a factor, p-values as powers of ten; those of a broken input stay."""
    base = DriftLimits()
    names = ("wasserstein", "jensen_shannon", "missing_rise", "share", "prediction", "precision_drop")
    return replace(
        base,
        **{name: getattr(base, name) * factor for name in names},
        missed_ratio=1 + (base.missed_ratio - 1) * factor,
        significance=base.significance**factor,
        fraud_rate_ratio=1 + (base.fraud_rate_ratio - 1) * factor,
    )


def columns(features: Any) -> dict[str, Any]:
    """A matrix by feature names."""
    return {name: features[:, place] for place, name in enumerate(FEATURE_NAMES)}


def counted(alert: Any, fraud: Any) -> Outcomes:
    """What alerts came to."""
    return Outcomes(len(fraud), int(fraud.sum()), int(alert.sum()), int((alert & fraud).sum()))


def sum_up(found: Sequence[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """By factor: false retrainings a year, and the days from each drift to its episode (or alarm)."""
    years = len(found) * options.year / 365
    rows = {}
    for factor in map(str, FACTORS):
        stable = [seed["stable"][factor] for seed in found]
        detected = {kind: [_first(seed[kind][factor], kind) for seed in found] for kind in options.kinds}
        asked = {kind: [next(iter(seed[kind][factor]["asked"]), None) for seed in found] for kind in options.kinds}
        rows[factor] = {
            "false_retrains_per_year": sum(len(each["asked"]) for each in stable) / years,
            "false_broken_inputs": sum(each["verdicts"].get("broken_input", 0) for each in stable),
            "stable_verdicts": _added(each["verdicts"] for each in stable),
            "days_to_detect": {kind: _median(days) for kind, days in detected.items()},
            "each": detected,
            "days_to_retraining": {kind: _median(days) for kind, days in asked.items() if kind != "sensor_fault"},
            "retrains_asked_by_sensor_fault": [
                len(s["sensor_fault"][factor]["asked"]) for s in found if "sensor_fault" in s
            ],
        }
    settings = {
        name: getattr(options, name)
        for name in ("seeds", "customers", "rate", "fraud_rate", "year", "every", "drift_every")
    }
    return {**settings, "training_days": TRAINING_DAYS, "watched_days": WATCHED_DAYS, "by_factor": rows}


def _first(seen: dict[str, Any], kind: str) -> int | None:
    """Days until the drift opens an episode; until the alarm where the source is broken."""
    days = seen["broken"] if kind == "sensor_fault" else seen["opened"]
    return days[0] if days else None


def _median(days: Sequence[int | None]) -> float | None:
    """The median where what was not noticed counts as later than everything; None where that is the median."""
    middle = median([WATCHED_DAYS + 1 if day is None else day for day in days])
    return middle if middle <= WATCHED_DAYS else None


def _added(counts: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in counts:
        for status, count in each.items():
            total[status] = total.get(status, 0) + count
    return total


if __name__ == "__main__":
    main()
