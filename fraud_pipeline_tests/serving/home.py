"""A home that the scoring service can start in: a small history with its features, and a promoted bundle."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.domain.bundle_files import read_directory
from fraud_pipeline.domain.promotion import Promotion
from fraud_pipeline.domain.thresholds import thresholds_at
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.bundles import PLATT, write_bundle
from fraud_pipeline_tests.worlds import WORLD_END, feature_store, stored_world

HISTORY_END = datetime(WORLD_END.year, WORLD_END.month, WORLD_END.day, tzinfo=UTC)
"""The midnight at which the history ends and live payments begin."""


def serving_home(path: Path, *, days: int = 12) -> Settings:
    """A home of its own at `path`: `days` of history, version 1 promoted. Made once per process, then copied."""
    shutil.copytree(_template(days), path, dirs_exist_ok=True)
    return Settings(home=path)


def empty_home(path: Path) -> Settings:
    """A home without a history, version 1 promoted."""
    path.mkdir(parents=True, exist_ok=True)
    settings = Settings(home=path)
    promote_bundle(settings, made_bundle(), 1)
    return settings


def promote_bundle(settings: Settings, bundle_dir: Path, version: int) -> Promotion:
    """Bring a bundle into the home, where the service looks for it, and promote it as `version`."""
    fingerprint = read_directory(bundle_dir)[1]
    place = settings.bundles_dir / fingerprint[:16]
    if place != bundle_dir:
        shutil.copytree(bundle_dir, place, dirs_exist_ok=True)
    return append_promotion(settings.ledger_url, version, fingerprint)


def append_promotion(ledger_url: str, version: int, fingerprint: str) -> Promotion:
    """Promote a version without asking any gate, whether its bundle is there or not."""
    with Ledger.open(ledger_url) as ledger:
        before = ledger.current_promotion()
        promotion = Promotion(
            promotion_id=1 if before is None else before.promotion_id + 1,
            previous_id=0 if before is None else before.promotion_id,
            kind="forced", version=version, fingerprint=fingerprint,
            previous_version=None if before is None else before.version,
            who="test", reason="for a test", promoted_at=HISTORY_END,
        )  # fmt: skip
        ledger.append_promotion(promotion)
    return promotion


@cache
def made_bundle(review: float = 0.2, block: float = 0.6) -> Path:
    """A small bundle's directory, to be copied and left alone; other thresholds make another bundle."""
    root = Path(tempfile.mkdtemp(prefix="bundle-"))
    return write_bundle(root, thresholds=thresholds_at(PLATT, review=review, block=block))


def live_payments(
    count: int, *, start: datetime = HISTORY_END, customers: int = 7, first: int = 0
) -> list[Transaction]:
    """Payments after the history, one every 20 s, from a few of its kind of customers: `live-0`, `live-1`, ..."""
    return [
        Transaction(
            f"live-{number}", start + timedelta(seconds=20 * number), f"customer-{number % customers}",
            f"merchant-{number % 5}", 500 + 997 * (number % 13),
            merchant_category=("groceries", "travel")[number % 2], channel=("pos", "online")[number % 2],
            country=("DE", "FR", None)[number % 3], device_id=f"device-{number % 4}" if number % 3 else None,
            attributes={"ip_risk": number % 10 / 10} if number % 2 else {},
        )
        for number in range(first, first + count)
    ]  # fmt: skip


def changed(payments: Sequence[Transaction]) -> list[Transaction]:
    """The same ids with other amounts."""
    return [replace(payment, amount_minor=payment.amount_minor + 1) for payment in payments]


@cache
def _template(days: int) -> Path:
    home = Path(tempfile.mkdtemp(prefix="serving-home-"))
    store, stored = stored_world(home, days=days)
    for _ in feature_store(home, store).materialize(stored):
        pass
    empty_home(home)
    return home
