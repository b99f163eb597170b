from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.domain.promotion import Challenger
from fraud_pipeline.errors import IntegrityError, PromotionRefused

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
FIRST = Challenger(1, 4, "f" * 64, "ann", "looks better", NOW)
DISMISSED = Challenger(2, None, None, "bob", "it was not", NOW)


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with Ledger.open(ledger_url) as opened:
        yield opened


def test_the_newest_row_holds_and_every_row_stays(ledger: Ledger):
    assert ledger.current_challenger() is None
    ledger.append_challenger(FIRST)
    assert ledger.current_challenger() == FIRST
    ledger.append_challenger(DISMISSED)
    assert ledger.current_challenger() == DISMISSED
    assert ledger.challengers() == [FIRST, DISMISSED]


def test_of_two_appointments_at_once_one_wins(ledger: Ledger):
    ledger.append_challenger(FIRST)
    with pytest.raises(PromotionRefused, match="somebody else has just changed it"):
        ledger.append_challenger(replace(FIRST, version=5))
    assert ledger.challengers() == [FIRST]


def test_a_version_without_its_fingerprint_is_no_row(ledger: Ledger):
    with pytest.raises((IntegrityError, PromotionRefused)):
        ledger.append_challenger(replace(FIRST, fingerprint=None))
    assert ledger.challengers() == []
