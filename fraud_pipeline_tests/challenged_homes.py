"""Homes whose ledger has a champion and versions that may challenge it: small bundles, without MLflow."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.domain.bundle_files import read_directory
from fraud_pipeline.domain.promotion import Challenger, Promotion
from fraud_pipeline.domain.thresholds import thresholds_at
from fraud_pipeline_tests.bundles import PLATT, write_bundle

APPOINTED_AT = datetime(2026, 3, 2, tzinfo=UTC)


def make_version(home: Path, *, review: float) -> str:
    """A bundle of its own threshold among the home's bundles; its fingerprint."""
    thresholds = thresholds_at(PLATT, review=review, block=0.9)
    return read_directory(write_bundle(home / "bundles", thresholds=thresholds))[1]


def promote_version(ledger: Ledger, version: int, fingerprint: str) -> Promotion:
    """Make it champion, whatever it is."""
    before = ledger.current_promotion()
    previous_id = 0 if before is None else before.promotion_id
    promotion = Promotion(
        promotion_id=previous_id + 1, previous_id=previous_id, kind="forced", version=version, fingerprint=fingerprint,
        previous_version=None if before is None else before.version, who="test", reason="a test", promoted_at=APPOINTED_AT,
    )  # fmt: skip
    ledger.append_promotion(promotion)
    return promotion


def appoint_version(ledger: Ledger, version: int | None, fingerprint: str | None) -> Challenger:
    """Make it the challenger, or (None) have none."""
    number = len(ledger.challengers()) + 1
    challenger = Challenger(number, version, fingerprint, "test", "a trial", APPOINTED_AT)
    ledger.append_challenger(challenger)
    return challenger
