from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.adapters.feature_store import CHECKPOINTS_KEPT, FeatureStore
from fraud_pipeline.domain.feature_batch import compute_features
from fraud_pipeline.domain.feature_columns import EventColumns, LabelColumns
from fraud_pipeline.domain.feature_spec import FEATURE_NAMES
from fraud_pipeline.domain.feature_state import FeatureState
from fraud_pipeline.errors import DatasetError, StateError
from fraud_pipeline_tests.worlds import feature_store, stored_world


def values(features: FeatureStore, day: date) -> np.ndarray:
    table = features.store.read_day("features", day, FEATURE_NAMES)
    return np.column_stack([column.to_numpy() for column in table.columns])


def test_a_range_gives_the_same_bits_as_one_day_after_another(tmp_path: Path) -> None:
    store, days = stored_world(tmp_path)
    features = feature_store(tmp_path, store)
    by_day = [each for day in days for each in features.materialize([day])]
    one_by_one = np.concatenate([each.values for each in by_day])
    events = EventColumns.from_table(_all(store, "transactions", days))
    at_once = compute_features(events, LabelColumns.from_table(_all(store, "labels", days)), state=FeatureState.empty())
    assert one_by_one.tobytes() == at_once.values.tobytes()
    assert features.checkpoint(days[-1])[1].snapshot() == at_once.state.snapshot()


def _all(store: DatasetStore, dataset: str, days: list[date]) -> pa.Table:
    return pa.concat_tables([store.read_day(dataset, day) for day in days])


def test_days_that_are_there_are_not_stale_and_a_new_day_is(tmp_path: Path) -> None:
    store, days = stored_world(tmp_path)
    features = feature_store(tmp_path, store)
    list(features.materialize(days[:-1]))
    assert features.stale_days(days) == [days[-1]]


def test_a_failed_day_is_left_out_and_makes_the_later_ones_stale(tmp_path: Path) -> None:
    store, days = stored_world(tmp_path)
    features = feature_store(tmp_path, store)
    list(features.materialize(days))
    store.set_verdict("transactions", days[4], "failed", ["amounts_are_in_range"])
    assert features.usable_days() == [day for day in days if day != days[4]]
    assert features.stale_days(days) == days[5:]
    again = [each.day for each in features.materialize(days[3:])]
    assert again == [days[3], *days[5:]]
    assert features.stale_days(days) == []


def test_an_old_day_is_recomputed_without_a_checkpoint_before_it(tmp_path: Path) -> None:
    store, days = stored_world(tmp_path)
    features = feature_store(tmp_path, store)
    list(features.materialize(days))
    before = values(features, days[6])
    assert [each.day for each in features.materialize([days[6]])] == [days[6]]
    assert values(features, days[6]).tobytes() == before.tobytes()


def test_features_lost_with_a_kill_are_stale(tmp_path: Path) -> None:
    store, days = stored_world(tmp_path)
    features = feature_store(tmp_path, store)
    list(features.materialize(days))
    (tmp_path / "data" / "features" / f"day={days[2]}" / "history.json").unlink()
    assert features.stale_days(days) == [days[2]]


def test_only_a_week_of_checkpoints_stays(tmp_path: Path) -> None:
    store, days = stored_world(tmp_path)
    features = feature_store(tmp_path, store)
    for day in days:
        list(features.materialize([day]))
    kept = list((tmp_path / "checkpoints").rglob("*.state"))
    assert len(kept) == CHECKPOINTS_KEPT
    assert max(path.name[:10] for path in kept) == days[-1].isoformat()


def test_a_damaged_checkpoint_stops_rather_than_giving_other_features(tmp_path: Path) -> None:
    store, days = stored_world(tmp_path)
    features = feature_store(tmp_path, store)
    list(features.materialize(days[:6]))
    (path,) = (tmp_path / "checkpoints").rglob("*.state")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StateError, match="damaged"):
        list(features.materialize(days[6:]))


def test_a_range_without_a_usable_day_is_an_error_that_names_it(tmp_path: Path) -> None:
    store, days = stored_world(tmp_path)
    for day in days:
        store.set_verdict("transactions", day, "failed", ["x"])
    with pytest.raises(DatasetError, match=f"No day from {days[0]} to {days[-1]}"):
        list(feature_store(tmp_path, store).materialize(days))


def test_a_day_without_payments_has_features_of_no_rows(tmp_path: Path) -> None:
    store, days = stored_world(tmp_path)
    empty = store.read_day("transactions", days[5]).slice(0, 0)
    store.write_day("transactions", days[5], empty, verdict="passed", replace=True)
    rows = {each.day: each.manifest.rows for each in feature_store(tmp_path, store).materialize(days)}
    assert rows[days[5]] == 0
    assert all(rows[day] > 0 for day in days if day != days[5])
