"""`fraud parity --through rest`: the trial of the service on a scratch home, and the judgement on what it left behind."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

from fraud_pipeline.adapters.checkpoint_store import CheckpointStore
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.live_state import LiveStateStore
from fraud_pipeline.adapters.model_slot import local_bundle
from fraud_pipeline.adapters.rest_trial import RestTrial, Supervised, TrialResult, scratch_home
from fraud_pipeline.adapters.served_parity import compare_served
from fraud_pipeline.adapters.simulated_traffic import rows_of
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.parity import Mutation
from fraud_pipeline.domain.promotion import Promotion
from fraud_pipeline.domain.simulation import World, WorldConfig
from fraud_pipeline.errors import NotFound
from fraud_pipeline.settings import Settings

RATE: Final = 1.7
MOST_DAYS: Final = 60
"""Payments may be 90 days old when they come."""
COMPARED_AT_ONCE: Final = 500

Progress = Callable[[int, int], None]


def run_rest_trial(
    settings: Settings, *, rows: int, kills: int, mutate: Mutation | None = None, progress: Progress | None = None
) -> TrialResult:
    """Send `rows` simulated payments of the last weeks to a service of its own, kill it `kills` times, and judge.

    Raises NotFound without a champion whose bundle is in this home.
    """
    promotion = _champion(settings)
    with tempfile.TemporaryDirectory(prefix="fraud-trial-") as folder:
        home = Path(folder) / "home"
        scratch_home(settings.home, home, with_history=False)
        scratch = settings.model_copy(
            update={
                "home": home,
                "ledger_url": f"sqlite:///{home / 'ledger.db'}",
                "checkpoint_url": f"file://{home / 'checkpoints'}",
            }
        )
        with Ledger.open(scratch.ledger_url) as ledger:
            ledger.append_promotion(replace(promotion, promotion_id=1, previous_id=0, previous_version=None))
        payments, frauds = _payments(rows, settings)
        service = Supervised(home, Path(folder) / "service.log")
        trial = RestTrial(service, payments, frauds=frauds, kills=kills, seed=settings.seed)
        asyncio.run(trial.run(progress))
        _judge(trial, scratch, mutate)
        return trial.result


def _champion(settings: Settings) -> Promotion:
    with Ledger.open(settings.ledger_url) as ledger:
        promotion = ledger.current_promotion()
    if promotion is None:
        raise NotFound("There is no champion to serve.", remedy="Train and promote one: `fraud run`.")
    if local_bundle(settings.bundles_dir, promotion.version, promotion.fingerprint) is None:
        raise NotFound(
            f"The bundle of version {promotion.version} is not in {settings.bundles_dir}.",
            remedy="Start the service here once, which fetches it: `fraud serve`.",
        )
    return promotion


def _payments(rows: int, settings: Settings) -> tuple[list[dict[str, Any]], set[str]]:
    """Payments of a simulated world's last days in their order, as JSON values, and the ids of its frauds."""
    today = datetime.now(UTC).date()
    days = min(MOST_DAYS, max(3, rows // 2_000))
    customers = max(50, round(1.1 * rows / (RATE * days)))
    config = WorldConfig(
        end=today, days=days, customers=customers, merchants=max(20, customers // 4), rate=RATE, seed=settings.seed,
        currency=settings.currency,
    )  # fmt: skip
    world = World(config)
    found: list[dict[str, Any]] = []
    frauds: set[str] = set()
    for number in range(days):
        simulated = world.day(config.start + timedelta(days=number))
        ids = simulated.transactions["transaction_id"].astype(str).tolist()
        found += [
            {"transaction_id": identity, "event_time": moment.isoformat(), **payment}
            for identity, (moment, payment) in zip(ids, rows_of(simulated.transactions), strict=True)
        ]
        frauds.update(simulated.truth["transaction_id"].astype(str).tolist())
        if len(found) >= rows:
            break
    return found[:rows], frauds


def _judge(trial: RestTrial, scratch: Settings, mutate: Mutation | None) -> None:
    """Hold what was answered against the ledger, the state against a replay, the vectors against batch."""
    result = trial.result
    with Ledger.open(scratch.ledger_url) as ledger:
        for ids in _portions(list(trial.answers)):
            kept = {record.transaction_id: json.loads(record.payload) for record in ledger.decided(ids)}
            result.lost += sum(identity not in kept for identity in ids)
            result.changed += sum(kept[i] != trial.answers[i] for i in ids if i in kept)
        result.missing = result.payments - len(trial.answers)
        checkpoints = CheckpointStore(scratch.checkpoint_url)
        states = LiveStateStore(scratch.home, checkpoints, ledger, time_zone=scratch.time_zone)
        live = states.base()
        end = ledger.last_sequence()
        report = compare_served(ledger, live, _bundles(scratch, ledger), time_zone=scratch.time_zone, mutate=mutate)
        result.parity = report.to_json()
        kept_at = states.newest()
        result.states_equal = kept_at is not None and kept_at.sequence == end
        if kept_at is not None and mutate != "ulp":  # that one is no state's
            result.states_equal &= kept_at.state.snapshot() == live.state.snapshot()


def _bundles(scratch: Settings, ledger: Ledger) -> Callable[[str], ModelBundle]:
    fingerprints = {str(each.version): each.fingerprint for each in ledger.promotions()}

    @cache
    def bundle_of(version: str) -> ModelBundle:
        path = local_bundle(scratch.bundles_dir, int(version), fingerprints[version])
        assert path is not None  # it was served from here
        return ModelBundle.load(path, version=version)

    return bundle_of


def _portions(ids: list[str]) -> Iterator[list[str]]:
    return (ids[start : start + COMPARED_AT_ONCE] for start in range(0, len(ids), COMPARED_AT_ONCE))
