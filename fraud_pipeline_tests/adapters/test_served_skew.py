"""Logged vectors against the stored batch features of the same payments."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import DecisionRecord
from fraud_pipeline.adapters.served_skew import compare_days, live_days
from fraud_pipeline.domain.feature_spec import FEATURE_NAMES, INDEX
from fraud_pipeline.errors import NotFound
from fraud_pipeline_tests.decided_homes import PAYMENTS, bundle
from fraud_pipeline_tests.served_days import LIVE_DAY, served_home
from fraud_pipeline_tests.worlds import WORLD_END

INPUTS = len(bundle("1").input_names)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return served_home(tmp_path_factory.mktemp("home") / "h").home


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{home / 'ledger.db'}") as held:
        yield held


class Spoilt:
    """A ledger whose decisions come back changed."""

    def __init__(self, real: Ledger, change) -> None:
        self._real, self._change = real, change

    def decided(self, ids: list[str]) -> list[DecisionRecord]:
        return [self._change(record) for record in self._real.decided(ids)]


def test_what_was_served_is_what_batch_computes_to_the_bit(home: Path, ledger: Ledger):
    skew = compare_days(DatasetStore(home), [LIVE_DAY], bundle, ledger=ledger)
    assert (skew.rows, skew.compared_values) == (PAYMENTS, PAYMENTS * INPUTS)
    assert (skew.differing_values, skew.undecided, skew.examples, skew.through) == (0, 0, [], LIVE_DAY.isoformat())


def test_a_changed_bit_is_found_and_told_with_feature_day_and_values(home: Path, ledger: Ledger):
    column = INDEX["amount"]

    def one_ulp(batch: np.ndarray) -> None:
        batch[3, column] = np.nextafter(batch[3, column], np.float32(np.inf))

    skew = compare_days(DatasetStore(home), [LIVE_DAY], bundle, ledger=ledger, harm=one_ulp)
    assert (skew.differing_values, skew.differing_rows) == (2, 2)  # one in each version's payments
    assert dict(skew.by_feature) == {"amount": 2}
    assert dict(skew.by_day) == {LIVE_DAY.isoformat(): 2}
    first = skew.examples[0]
    assert (first["feature"], first["model_version"], first["day"]) == ("amount", "1", LIVE_DAY.isoformat())
    assert first["batch"] == pytest.approx(first["served"], rel=1e-6)
    assert first["batch"] != first["served"]
    json.dumps(skew.to_json(), allow_nan=False)


def test_what_a_decision_says_that_it_lacked_is_counted_apart(home: Path, ledger: Ledger):
    shared, own = INDEX["merchant_count_7d"], INDEX["amount"]

    def lagging(record: DecisionRecord) -> DecisionRecord:
        vector = np.frombuffer(record.features, "<f4").copy()
        vector[shared] += 1
        payload = json.loads(record.payload) | {"degraded": ["shared_state_lag"]}
        return replace(record, features=vector.tobytes(), payload=json.dumps(payload))

    skew = compare_days(DatasetStore(home), [LIVE_DAY], bundle, ledger=Spoilt(ledger, lagging))  # type: ignore[arg-type]
    assert (skew.lagging_rows, skew.lagging_differing_values, skew.differing_values) == (PAYMENTS, PAYMENTS, 0)
    assert 0 < skew.compared_values < PAYMENTS * INPUTS

    def worse(record: DecisionRecord) -> DecisionRecord:
        vector = np.frombuffer(lagging(record).features, "<f4").copy()
        vector[own] += 1  # no lag of shared state changes an amount
        return replace(lagging(record), features=vector.tobytes())

    skew = compare_days(DatasetStore(home), [LIVE_DAY], bundle, ledger=Spoilt(ledger, worse))  # type: ignore[arg-type]
    assert (skew.differing_values, dict(skew.by_feature)) == (PAYMENTS, {"amount": PAYMENTS})


def test_a_vector_of_another_length_differs(home: Path, ledger: Ledger):
    cut = Spoilt(ledger, lambda record: replace(record, features=record.features[:-4]))
    skew = compare_days(DatasetStore(home), [LIVE_DAY], bundle, ledger=cut)  # type: ignore[arg-type]
    assert skew.differing_values == PAYMENTS * INPUTS
    assert skew.examples[0]["served"] is None


def test_a_version_that_is_gone_is_told_and_the_others_are_compared(home: Path, ledger: Ledger):
    def only_the_first(version: str):
        if version != "1":
            raise NotFound(f"There is no version {version}.", remedy="")
        return bundle(version)

    skew = compare_days(DatasetStore(home), [LIVE_DAY], only_the_first, ledger=ledger)
    assert (skew.rows, dict(skew.unreadable)) == (80, {"2": 40})


def test_a_day_without_decisions_says_so(home: Path, ledger: Ledger):
    skew = compare_days(DatasetStore(home), [WORLD_END - timedelta(days=1)], bundle, ledger=ledger)
    assert (skew.rows, skew.differing_values) == (0, 0)
    assert skew.undecided > 50
    empty = compare_days(DatasetStore(home), [LIVE_DAY + timedelta(days=1)], bundle, ledger=ledger)
    assert (empty.rows, empty.undecided, len(empty.days)) == (0, 0, 1)


def test_a_sample_of_a_day_is_compared(home: Path, ledger: Ledger):
    skew = compare_days(DatasetStore(home), [LIVE_DAY], bundle, ledger=ledger, a_day=30)
    assert (skew.rows, skew.differing_values) == (30, 0)
    assert len(FEATURE_NAMES) < INPUTS


def test_days_since_the_last_report_are_asked_for_and_always_the_newest(home: Path):
    store, quiet = DatasetStore(home), LIVE_DAY + timedelta(days=1)
    assert live_days(store, world_end=WORLD_END, after=None) == [LIVE_DAY, quiet]
    assert live_days(store, world_end=WORLD_END, after=LIVE_DAY) == [quiet]
    assert live_days(store, world_end=WORLD_END, after=quiet) == [quiet]
    assert live_days(store, world_end=date(2030, 1, 1), after=None) == []
