from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.source_store import SourceStore
from fraud_pipeline.adapters.training_rows import TrainingRowReader
from fraud_pipeline.adapters.training_set_builder import TrainingSetBuilder
from fraud_pipeline.adapters.training_store import TrainingStore, shuffled_labels
from fraud_pipeline.domain.feature_spec import FEATURES
from fraud_pipeline.domain.model_input import InputAssembler, ModelInput
from fraud_pipeline.domain.splits import midnight_us
from fraud_pipeline.errors import DatasetError, IntegrityError, NotFound, TrainingDataError
from fraud_pipeline_tests.worlds import WORLD_END, feature_store, stored_world

LIMITS = {"maturity_days": 1, "shortest_days": 2, "longest_days": 4, "frauds_needed": 3}


def no_ledger() -> Ledger:
    raise AssertionError("a history has no decisions")


def built(home: Path, *, days: int = 24) -> tuple[TrainingSetBuilder, Sequence[date]]:
    store, between = stored_world(home, days=days)
    features = feature_store(home, store)
    list(features.materialize(between))
    reader = TrainingRowReader(store, SourceStore(home), no_ledger)
    return TrainingSetBuilder(store, features, reader, TrainingStore(home)), between


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingSetBuilder, Sequence[date]]:
    return built(tmp_path_factory.mktemp("world"))


def test_rows_are_the_payments_in_order_with_their_stored_features(
    world: tuple[TrainingSetBuilder, Sequence[date]],
) -> None:
    builder, days = world
    rows = builder.rows(days[:3], as_of=WORLD_END)
    tables = [builder.store.read_day("transactions", day) for day in days[:3]]
    payments = [identifier for table in tables for identifier in table["transaction_id"].to_pylist()]
    assert rows.data.transaction_id.tolist() == payments
    stored = builder.store.read_day("features", days[1])
    start = builder.store.manifest("transactions", days[0]).rows
    at = list(rows.data.feature_names).index("customer_count_24h")
    np.testing.assert_array_equal(
        rows.data.features[start : start + stored.num_rows, at], stored["customer_count_24h"].to_numpy()
    )


def test_codes_are_those_that_serving_gives(world: tuple[TrainingSetBuilder, Sequence[date]]) -> None:
    builder, days = world
    known = ModelInput.of(codes={"channel": ("pos", "online"), "country": ("FR",), "merchant_category": ("grocery",)})
    rows = builder.rows(days[:2], as_of=WORLD_END, model_input=known)
    payments = [builder.store.read_day("transactions", day) for day in days[:2]]
    fields = {
        name: [value for table in payments for value in table[name].to_pylist()]
        for name in ("channel", "country", "merchant_category")
    }
    served = InputAssembler(known).matrix(np.ascontiguousarray(rows.data.features[:, : len(FEATURES)]), fields=fields)
    np.testing.assert_array_equal(rows.data.features, served)


def test_only_labels_known_by_the_moment_count(world: tuple[TrainingSetBuilder, Sequence[date]]) -> None:
    builder, days = world
    early, late = (builder.rows(days, as_of=as_of).data for as_of in (days[10], WORLD_END))
    assert early.label_known_at[early.is_fraud].max() < midnight_us(days[10])
    assert 0 < early.is_fraud.sum() < late.is_fraud.sum()
    assert not (early.is_fraud & ~late.is_fraud).any()


def test_campaign_kinds_are_there_for_analysis_and_not_among_the_inputs(
    world: tuple[TrainingSetBuilder, Sequence[date]],
) -> None:
    builder, days = world
    data = builder.rows(days, as_of=WORLD_END).data
    assert data.kind is not None
    assert set(np.unique(data.kind)) <= set(range(len(data.kind_names) + 1))
    assert (data.kind[data.is_fraud] > 0).all()
    assert not [name for name in data.feature_names if "kind" in name or "fraud_id" in name or "campaign" in name]


def test_a_training_set_is_found_again_by_what_it_depends_on(tmp_path: Path) -> None:
    builder, days = built(tmp_path)
    made = builder.build(WORLD_END, limits=LIMITS)
    again = builder.build(WORLD_END, limits=LIMITS)
    assert again.fingerprint == made.fingerprint == builder.training_sets.newest()
    np.testing.assert_array_equal(again.data.features, builder.rows(days, as_of=WORLD_END).data.features)
    assert again.split == made.split
    assert again.data.transaction_id.tolist() == made.data.transaction_id.tolist()
    assert builder.fingerprint(WORLD_END, limits={**LIMITS, "frauds_needed": 4}) != made.fingerprint
    assert builder.fingerprint(WORLD_END - timedelta(days=1), limits=LIMITS) != made.fingerprint
    builder.store.set_verdict("features", days[3], "failed", ["x"])
    assert builder.fingerprint(WORLD_END, limits=LIMITS) != made.fingerprint


def test_stale_features_are_refused(tmp_path: Path) -> None:
    builder, days = built(tmp_path, days=6)
    builder.store.set_verdict("transactions", days[2], "failed", ["x"])
    with pytest.raises(
        DatasetError, match=f"3 days from {days[3]} on have no features, or features of another history"
    ):
        builder.fingerprint(WORLD_END, limits=LIMITS)


def test_a_history_too_short_says_how_many_days_are_missing(tmp_path: Path) -> None:
    builder, _ = built(tmp_path, days=6)
    with pytest.raises(TrainingDataError, match=r"\d+ more days? of history"):
        builder.build(WORLD_END, limits=LIMITS)


def test_shuffled_labels_leave_the_test_period_alone(tmp_path: Path) -> None:
    builder, _ = built(tmp_path)
    made = builder.build(WORLD_END, limits=LIMITS)
    drill = builder.build(WORLD_END, limits=LIMITS, shuffle_seed=3)
    late = made.split.test.mask(made.data.event_time)
    before = ~late & (made.data.event_time < midnight_us(made.split.test.start))
    assert drill.fingerprint != made.fingerprint
    assert drill.lineage["shuffled_labels"] is True
    assert (drill.data.is_fraud[late] == made.data.is_fraud[late]).all()
    assert drill.data.is_fraud.sum() == made.data.is_fraud.sum()
    assert (drill.data.is_fraud[before] & made.data.is_fraud[before]).sum() < 0.5 * made.data.is_fraud[before].sum()
    assert shuffled_labels(made.data, before=made.split.test, seed=3).is_fraud.tolist() == drill.data.is_fraud.tolist()


def test_a_damaged_or_missing_training_set_names_itself(tmp_path: Path) -> None:
    builder, _ = built(tmp_path)
    with pytest.raises(NotFound, match="There is no training set yet"):
        builder.training_sets.newest()
    made = builder.build(WORLD_END, limits=LIMITS)
    with pytest.raises(NotFound, match="no training set abc"):
        builder.training_sets.read("abc")
    (builder.training_sets.folder / made.fingerprint / "amount.npy").unlink()
    with pytest.raises(IntegrityError, match="damaged"):
        builder.training_sets.read(made.fingerprint)


def test_a_blocked_payment_is_marked(tmp_path: Path) -> None:
    from fraud_pipeline.adapters.ledger_records import DecisionRecord, LedgerEntry
    from fraud_pipeline.domain.transaction import Transaction

    store, days = stored_world(tmp_path, days=4)
    table = store.read_day("transactions", days[-1])
    live = table.set_column(table.schema.get_field_index("writer"), "writer", [["local"] * table.num_rows])
    store.write_day("transactions", days[-1], live, replace=True, verdict="passed")
    list(feature_store(tmp_path, store).materialize(days))
    ids = live["transaction_id"].to_pylist()
    moment = datetime.combine(days[-1], datetime.min.time(), UTC) + timedelta(hours=1)
    url = f"sqlite:///{tmp_path / 'ledger.db'}"

    def entry(identifier: str, decision: str, payload: str) -> LedgerEntry:
        record = DecisionRecord(identifier, moment, decision, 0.9, "1", payload, b"")
        return LedgerEntry(Transaction(identifier, moment, "c", "m", 100), moment, decision=record)

    with Ledger.open(url) as ledger:
        ledger.append([entry(ids[0], "BLOCK", '{"control":false}'), entry(ids[1], "REVIEW", '{"control":true}')])
    reader = TrainingRowReader(store, SourceStore(tmp_path), lambda: Ledger.open(url))
    data = reader.read(days, as_of=WORLD_END).data
    assert data.transaction_id[data.blocked].tolist() == [ids[0]]
    assert data.transaction_id[data.control].tolist() == [ids[1]]
