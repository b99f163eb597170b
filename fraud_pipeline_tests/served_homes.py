"""Homes whose ledger has a champion, made in seconds: a small bundle and a promotion, without MLflow and without a history."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.domain.bundle_files import read_directory
from fraud_pipeline.domain.promotion import Promotion
from fraud_pipeline_tests.bundles import write_bundle

PROMOTED_AT = datetime(2026, 3, 1, tzinfo=UTC)


def make_served_home(home: Path) -> Path:
    """A home with version 1 as champion."""
    fingerprint = read_directory(write_bundle(home / "bundles"))[1]
    promotion = Promotion(
        promotion_id=1, previous_id=0, kind="forced", version=1, fingerprint=fingerprint, previous_version=None,
        who="test", reason="the first one", promoted_at=PROMOTED_AT,
    )  # fmt: skip
    with Ledger.open(f"sqlite:///{home / 'ledger.db'}") as ledger:
        ledger.append_promotion(promotion)
    return home
