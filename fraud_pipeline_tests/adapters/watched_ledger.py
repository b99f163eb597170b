"""A ledger with promoted bundles and what they answered, for tests of the watch: made without MLflow or a service."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import DecisionRecord
from fraud_pipeline.adapters.model_slot import local_bundle
from fraud_pipeline.adapters.promotion_watch import WatchPolicy, WatchStep, watch_step
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.bundle_files import read_directory
from fraud_pipeline.domain.decision_batch import decide_many
from fraud_pipeline.domain.promotion import Promotion
from fraud_pipeline.domain.promotion_watch import WatchLimits
from fraud_pipeline.domain.thresholds import thresholds_at
from fraud_pipeline.domain.transaction import Label, parse_transaction
from fraud_pipeline.errors import BundleError
from fraud_pipeline_tests.bundles import PLATT, payments, write_bundle

PROMOTED_AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
FIRST_DAY = datetime(2026, 3, 2, tzinfo=UTC)
"""The data's clock lies months behind the machine's."""
BUDGET = 0.05
POLICY = WatchPolicy(WatchLimits(), BUDGET, "the watch")


@cache
def made_bundle(review: float, block: float, share: float | None) -> Path:
    """A bundle with these thresholds, made once for all tests."""
    thresholds = replace(thresholds_at(PLATT, review=review, block=block), alert_share=share)
    return write_bundle(Path(tempfile.mkdtemp(prefix="watched-")), thresholds=thresholds)


class WatchedLedger:
    """`promote` versions, `answer` payments as the present champion, and take steps of the watch."""

    def __init__(self, home: Path, ledger: Ledger) -> None:
        self.home = home
        self.ledger = ledger
        self.now = PROMOTED_AT
        self.answered = 0

    def bundle(self, *, review: float = 0.2, block: float = 0.6, share: float | None = BUDGET) -> str:
        """A bundle in this home; its fingerprint."""
        made = made_bundle(review, block, share)
        copy = self.home / "bundles" / made.name
        if not copy.exists():
            shutil.copytree(made, copy)
        return read_directory(copy)[1]

    def promote(self, version: int, fingerprint: str, **changes: Any) -> Promotion:
        before = self.ledger.current_promotion()
        number = 0 if before is None else before.promotion_id
        row: dict[str, Any] = {
            "promotion_id": number + 1, "previous_id": number, "kind": "promotion", "version": version,
            "fingerprint": fingerprint, "previous_version": None if before is None else before.version, "who": "test",
            "reason": "a test", "promoted_at": self.now, "evidence": {"gates": f"of version {version}"}, **changes,
        }  # fmt: skip
        promotion = Promotion(**row)
        self.ledger.append_promotion(promotion)
        return promotion

    def fetch(self, version: int, fingerprint: str) -> Path:
        found = local_bundle(self.home / "bundles", version, fingerprint)
        if found is None:
            raise BundleError(f"The files of version {version} are gone.", remedy="Restore them.")
        return found

    def answer(self, count: int, *, days: float = 1.0, degraded: tuple[str, ...] = ()) -> list[str]:
        """So many payments over so many days of data, decided by the champion within a minute; their ids."""
        champion = self.ledger.current_promotion()
        assert champion is not None
        bundle = ModelBundle.load(self.fetch(champion.version, champion.fingerprint), version=str(champion.version))
        values = payments()[0]
        rows = np.ascontiguousarray(values[np.arange(self.answered, self.answered + count) % len(values)])
        told = [
            parse_transaction(
                {
                    "transaction_id": f"p-{self.answered + n:06d}", "customer_id": "c", "merchant_id": "m", "amount": 1,
                    "event_time": (self.data_time + timedelta(days=days) * (n + 1) / count).isoformat(),
                }
            )
            for n in range(count)
        ]  # fmt: skip
        self.now += timedelta(minutes=1)
        decided = decide_many(rows, bundle, told, decided_at=self.now - timedelta(seconds=30))
        self.ledger.record_decisions([DecisionRecord.of(replace(d, degraded=degraded)) for d in decided])
        self.answered += count
        self.data_time = told[-1].event_time
        return [d.transaction_id for d in decided]

    data_time = FIRST_DAY

    def label(self, ids: list[str], *, is_fraud: bool, at: datetime | None = None) -> None:
        known_at = at or self.data_time
        self.ledger.record_labels([Label(i, is_fraud, "chargeback", "bank", known_at) for i in ids])

    def step(self, **changes: Any) -> WatchStep:
        return watch_step(self.ledger, self.fetch, **{"policy": POLICY, "now": self.now, **changes})

    def steps(self, **changes: Any) -> WatchStep:
        """Steps until nothing more is to be counted, or the model is taken back."""
        step = self.step(**changes)
        while step.behind and step.rolled_back is None and not step.alarm:
            step = self.step(**changes)
        return step
