"""A simulated world lands in a home whole or not at all, once."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from fraud_pipeline.adapters.dataset_schemas import LABEL_SCHEMA, TRANSACTION_SCHEMA, TRUTH_SCHEMA
from fraud_pipeline.adapters.source_store import SourceStore
from fraud_pipeline.adapters.world_source import arrow_table, land_world, settled_config, world_fingerprint
from fraud_pipeline.domain.simulation import Drift, WorldConfig, simulate
from fraud_pipeline.errors import DatasetError

CONFIG = WorldConfig(end=date(2026, 3, 1), customers=80, merchants=40, days=8, rate=2, fraud_rate=0.05)
NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)


def test_what_lands_is_what_was_simulated(tmp_path):
    seen = []
    world = land_world(CONFIG, home=tmp_path, created_at=NOW, progress=lambda done, total: seen.append((done, total)))
    store, days = SourceStore(tmp_path), list(simulate(CONFIG))
    assert seen == [(i, 8) for i in range(1, 9)]
    assert world == store.manifest()
    assert (world.start, world.end, world.created_at) == (date(2026, 2, 21), date(2026, 3, 1), NOW)
    assert world.rows == sum(len(day) for day in days)
    assert world.frauds == sum(len(day.truth["kind"]) for day in days) > 20
    for day in days:
        assert store.read_day("transactions", day.day).equals(arrow_table(day.transactions, TRANSACTION_SCHEMA))
        assert store.read_day("truth", day.day).equals(arrow_table(day.truth, TRUTH_SCHEMA))


def test_a_label_lands_on_the_day_it_becomes_known_even_past_the_end(tmp_path):
    world = land_world(CONFIG, home=tmp_path)
    store = SourceStore(tmp_path)
    landed = store.days("labels")
    tables = {day: store.read_day("labels", day) for day in landed}
    assert sum(table.num_rows for table in tables.values()) == world.labels
    for day, table in tables.items():
        known = table["known_at"].to_numpy()
        assert (known.astype("datetime64[D]") == np.datetime64(day)).all()
        assert (np.diff(known) >= np.timedelta64(0)).all()
    assert landed[-1] >= CONFIG.end
    expected = pa.concat_tables([arrow_table(day.labels, LABEL_SCHEMA) for day in simulate(CONFIG)])
    written = pa.concat_tables(list(tables.values()))
    assert written.sort_by("transaction_id").equals(expected.sort_by("transaction_id").combine_chunks())


def test_the_same_world_again_changes_nothing(tmp_path):
    first = land_world(CONFIG, home=tmp_path, created_at=NOW)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert land_world(CONFIG, home=tmp_path, created_at=NOW + timedelta(days=1)) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_another_world_is_refused_with_the_remedy(tmp_path):
    land_world(CONFIG, home=tmp_path)
    with pytest.raises(DatasetError, match="already holds another world") as raised:
        land_world(replace(CONFIG, seed=1), home=tmp_path)
    assert "FRAUD_HOME" in raised.value.remedy
    assert SourceStore(tmp_path).manifest().fingerprint == world_fingerprint(CONFIG)


def test_a_run_that_breaks_off_leaves_no_world(tmp_path):
    def stop(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        land_world(CONFIG, home=tmp_path, progress=stop)
    assert not SourceStore(tmp_path).exists()
    assert not (tmp_path / "source.staging").exists()
    assert land_world(CONFIG, home=tmp_path).rows > 0


def test_yesterdays_world_is_the_same_world_today(tmp_path):
    land_world(CONFIG, home=tmp_path)
    tomorrow = replace(CONFIG, end=CONFIG.end + timedelta(days=1))
    assert settled_config(tomorrow, home=tmp_path) == CONFIG
    other = replace(tomorrow, seed=1)
    assert settled_config(other, home=tmp_path) == other
    assert settled_config(tomorrow, home=tmp_path / "empty") == tomorrow
    late = replace(tomorrow, drifts=(Drift("covid", CONFIG.end),))
    assert settled_config(late, home=tmp_path) == late


def test_missing_strings_and_numbers_are_null():
    columns = {
        "transaction_id": np.array([b"a1", b"a2", b"a3"]),
        "country": np.array([b"US", b"", b"GB"]),
        "merchant_category": np.array([b"home", b"fuel", b"x"]),
        "device_id": np.array([b"", b"", b"longer"]),
        "latitude": np.array([1.5, np.nan, 2.0]),
    }
    schema = pa.schema(
        [*((name, pa.string()) for name in list(columns)[:-1]), ("latitude", pa.float64()), ("writer", pa.string())]
    )
    assert arrow_table(columns, schema).to_pydict() == {
        "transaction_id": ["a1", "a2", "a3"],
        "country": ["US", None, "GB"],
        "merchant_category": ["home", "fuel", "x"],
        "device_id": [None, None, "longer"],
        "latitude": [1.5, None, 2.0],
        "writer": [None, None, None],
    }
    none = {name: values[:0] for name, values in columns.items()}
    assert arrow_table(none, schema).num_rows == 0
