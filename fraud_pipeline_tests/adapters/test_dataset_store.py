"""Days on disk: whole or not at all, closed for good, and named when they cannot be used."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_pipeline.adapters.dataset_store import (
    LABEL_SCHEMA,
    TIMESTAMP,
    TRANSACTION_SCHEMA,
    TRUTH_SCHEMA,
    DatasetStore,
    SourceStore,
    SourceWriter,
    WorldManifest,
    conform,
    transaction_schema,
)
from fraud_pipeline.adapters.parquet_files import content_fingerprint, whole_file
from fraud_pipeline.domain.transaction import LABEL_COLUMNS, TRANSACTION_COLUMNS
from fraud_pipeline.errors import Busy, DatasetError, DependencyError, IntegrityError, NotFound

DAY = date(2026, 1, 5)


def transactions(count=3, day=DAY, amount=100, **attributes):
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    table = pa.table(
        {
            "transaction_id": [f"{day}-{i}" for i in range(count)],
            "event_time": pa.array([start + timedelta(minutes=i) for i in range(count)], TIMESTAMP),
            "customer_id": [f"c{i % 2}" for i in range(count)],
            "merchant_id": ["m"] * count,
            "amount_minor": pa.array([amount + i for i in range(count)], pa.int64()),
            "currency": ["USD"] * count,
            "merchant_category": ["food"] * count,
            "channel": ["pos"] * count,
            **{f"attributes.{name}": pa.array([value] * count, pa.float64()) for name, value in attributes.items()},
        }
    )
    return conform("transactions", table)


@pytest.fixture
def store(tmp_path):
    return DatasetStore(tmp_path)


def leftovers(folder):
    return [path.name for path in folder.rglob("*") if path.name.endswith(".tmp")]


class TestSchemas:
    @pytest.mark.parametrize(
        ("schema", "columns"), [(TRANSACTION_SCHEMA, TRANSACTION_COLUMNS), (LABEL_SCHEMA, LABEL_COLUMNS)]
    )
    def test_schemas_are_those_of_the_contract(self, schema, columns):
        assert {f.name: str(f.type) for f in schema} == {n: t.removesuffix("?") for n, t in columns.items()}

    def test_absent_optional_columns_become_nulls(self):
        table = transactions()
        assert table.schema == TRANSACTION_SCHEMA
        assert table.column("device_id").null_count == 3

    def test_a_missing_or_unknown_column_is_named(self):
        with pytest.raises(DatasetError, match="amount_minor"):
            conform("transactions", transactions().drop_columns(["amount_minor"]))
        with pytest.raises(DatasetError, match="surprise"):
            conform("labels", LABEL_SCHEMA.empty_table().append_column("surprise", pa.array([], pa.int8())))

    def test_a_column_of_another_type_is_named(self):
        table = transactions().drop_columns(["amount_minor"]).append_column("amount_minor", pa.array(["a", "b", "c"]))
        with pytest.raises(DatasetError, match="amount_minor is not int64"):
            conform("transactions", table)


class TestFingerprint:
    def test_it_ignores_chunks_slices_and_encoding(self):
        table = transactions(10, score=1.5)
        chunked = pa.concat_tables([table.slice(0, 3), table.slice(3, 0), table.slice(3)])
        encoded = table.set_column(2, "customer_id", table.column("customer_id").dictionary_encode())
        assert content_fingerprint(chunked) == content_fingerprint(table)
        assert content_fingerprint(encoded) == content_fingerprint(table)
        assert content_fingerprint(table.slice(2, 5)) == content_fingerprint(pa.concat_tables([table]).slice(2, 5))

    @given(
        st.lists(
            st.tuples(st.none() | st.text(max_size=3), st.none() | st.floats(width=32), st.none() | st.booleans()),
            max_size=5,
        ),
        st.lists(
            st.tuples(st.none() | st.text(max_size=3), st.none() | st.floats(width=32), st.none() | st.booleans()),
            max_size=5,
        ),
    )
    def test_it_is_equal_exactly_where_the_content_is(self, one, other):
        def table(rows):
            texts, numbers, flags = zip(*rows, strict=True) if rows else ((), (), ())
            columns = [pa.array(texts, pa.string()), pa.array(numbers, pa.float32()), pa.array(flags, pa.bool_())]
            return pa.table(columns, names=["text", "number", "flag"])

        same = repr(one) == repr(other)
        assert (content_fingerprint(table(one)) == content_fingerprint(table(other))) is same

    def test_row_order_and_names_count(self):
        table = transactions(3)
        assert content_fingerprint(table) != content_fingerprint(table.take(pa.array([1, 0, 2])))
        assert content_fingerprint(table) != content_fingerprint(
            table.rename_columns([*table.schema.names[:-1], "order"])
        )

    def test_a_type_without_a_place_is_refused(self):
        with pytest.raises(DatasetError, match="list"):
            content_fingerprint(pa.table({"x": [[1]]}))


class TestDays:
    def test_a_day_comes_back_as_it_was_written(self, store):
        table = transactions(5, risk=0.25)
        manifest = store.write_day("transactions", DAY, table)
        assert (manifest.rows, manifest.verdict, manifest.failures) == (5, "unchecked", ())
        assert store.read_day("transactions", DAY) == table
        assert store.read_day("transactions", DAY).schema == transaction_schema(["risk"])
        assert store.days("transactions") == [DAY]
        assert store.has_day("transactions", DAY)
        store.verify("transactions", DAY)

    def test_features_keep_their_own_columns(self, store):
        table = pa.table({"transaction_id": ["a"], "amount": np.array([np.nan], np.float32)})
        store.write_day("features", DAY, table)
        assert store.read_day("features", DAY).schema == table.schema

    def test_the_same_content_again_changes_nothing(self, store, tmp_path):
        store.write_day("transactions", DAY, transactions())
        store.set_verdict("transactions", DAY, "passed")
        before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
        assert store.write_day("transactions", DAY, transactions()).verdict == "passed"
        assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == before

    def test_a_closed_day_is_not_rewritten_with_other_content(self, store):
        store.write_day("transactions", DAY, transactions(amount=1))
        with pytest.raises(DatasetError, match="2026-01-05 is closed"):
            store.write_day("transactions", DAY, transactions(amount=2))
        assert store.read_day("transactions", DAY) == transactions(amount=1)

    def test_it_is_with_replace_and_its_verdict_starts_anew(self, store, tmp_path):
        store.write_day("features", DAY, transactions(amount=1))
        store.set_verdict("features", DAY, "failed", ["amounts_in_range"])
        for amount in (2, 3):
            manifest = store.write_day("features", DAY, transactions(amount=amount), replace=True)
            assert manifest.verdict == "unchecked"
            assert store.read_day("features", DAY) == transactions(amount=amount)
        assert len(list(tmp_path.rglob("*.parquet"))) == 1

    def test_a_verdict_stays_with_its_day(self, store):
        store.write_day("transactions", DAY, transactions())
        store.set_verdict("transactions", DAY, "failed", ["amounts_in_range: 3 rows"])
        manifest = DatasetStore(store.root).manifest("transactions", DAY)
        assert (manifest.verdict, manifest.failures) == ("failed", ("amounts_in_range: 3 rows",))

    def test_columns_can_be_chosen(self, store):
        store.write_day("transactions", DAY, transactions())
        table = store.read_day("transactions", DAY, ["amount_minor", "transaction_id"])
        assert table.schema.names == ["amount_minor", "transaction_id"]
        with pytest.raises(DatasetError, match="no column colour"):
            store.read_day("transactions", DAY, ["colour"])

    def test_an_empty_day_is_a_day(self, store):
        store.write_day("labels", DAY, LABEL_SCHEMA.empty_table())
        assert store.read_day("labels", DAY).schema == LABEL_SCHEMA
        assert store.read_range("labels", DAY, DAY + timedelta(days=1)).num_rows == 0


class TestRanges:
    def test_days_follow_one_another(self, store):
        days = [DAY + timedelta(days=i) for i in range(3)]
        for day in reversed(days):
            store.write_day("transactions", day, transactions(2, day))
        table = store.read_range("transactions", DAY, DAY + timedelta(days=3))
        assert table == pa.concat_tables([transactions(2, day) for day in days])
        assert store.days("transactions") == days

    def test_strings_come_dictionary_encoded_on_request(self, store):
        for i in range(2):
            store.write_day("transactions", DAY + timedelta(days=i), transactions(3, DAY + timedelta(days=i)))
        end = DAY + timedelta(days=2)
        table = store.read_range("transactions", DAY, end, ["customer_id", "amount_minor"], dictionary=True)
        assert pa.types.is_dictionary(table.schema.field("customer_id").type)
        chunks = table.column("customer_id").chunks
        assert all(chunk.dictionary == chunks[0].dictionary for chunk in chunks)
        plain = store.read_range("transactions", DAY, end, ["customer_id", "amount_minor"])
        assert table.cast(plain.schema) == plain

    def test_missing_days_are_named(self, store):
        store.write_day("transactions", DAY, transactions())
        with pytest.raises(DatasetError, match=r"lacks 2 of the 3 days.*2026-01-04, 2026-01-06") as caught:
            store.read_range("transactions", DAY - timedelta(days=1), DAY + timedelta(days=2))
        assert "fraud run" in caught.value.remedy

    def test_an_attribute_that_a_day_lacks_is_null_there(self, store):
        store.write_day("transactions", DAY, transactions(2, risk=0.5))
        later = DAY + timedelta(days=1)
        store.write_day("transactions", later, transactions(2, later))
        table = store.read_range("transactions", DAY, DAY + timedelta(days=2))
        assert table.column("attributes.risk").to_pylist() == [0.5, 0.5, None, None]
        chosen = store.read_range("transactions", DAY, DAY + timedelta(days=2), ["attributes.risk"])
        assert chosen.column("attributes.risk").to_pylist() == [0.5, 0.5, None, None]


class TestDamage:
    def test_a_cut_file_is_named_and_a_rerun_repairs_it(self, store, tmp_path):
        store.write_day("transactions", DAY, transactions())
        (part,) = tmp_path.rglob("*.parquet")
        part.write_bytes(part.read_bytes()[:100])
        with pytest.raises(IntegrityError, match=r"day=2026-01-05.part-0.parquet cannot be read"):
            store.read_day("transactions", DAY)
        store.write_day("transactions", DAY, transactions())
        assert store.read_day("transactions", DAY) == transactions()

    def test_other_rows_than_the_manifest_says_are_noticed(self, store, tmp_path):
        store.write_day("transactions", DAY, transactions(3))
        (part,) = tmp_path.rglob("*.parquet")
        pq.write_table(transactions(2), part)
        with pytest.raises(IntegrityError, match="holds 2 rows, its manifest says 3"):
            store.read_day("transactions", DAY)
        pq.write_table(transactions(3, amount=7), part)
        with pytest.raises(IntegrityError, match="not what was written"):
            store.verify("transactions", DAY)

    @pytest.mark.parametrize("content", ["", "[1]", "{}", '{"rows": 1}'])
    def test_a_corrupt_manifest_is_named(self, store, tmp_path, content):
        store.write_day("transactions", DAY, transactions())
        next(tmp_path.rglob("manifest.json")).write_text(content)
        with pytest.raises(IntegrityError, match=r"manifest.json is corrupt"):
            store.manifest("transactions", DAY)

    def test_a_full_disk_is_said_and_changes_nothing(self, store, tmp_path, monkeypatch):
        store.write_day("features", DAY, transactions(amount=1))

        def full(_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        for day in (DAY, DAY + timedelta(days=1)):
            with pytest.raises(DependencyError, match=f"disk is full: .*day={day}.*nothing was changed"):
                store.write_day("features", day, transactions(amount=2), replace=True)
        monkeypatch.undo()
        assert store.days("features") == [DAY]
        assert store.read_day("features", DAY) == transactions(amount=1)
        assert leftovers(tmp_path) == []

    def test_a_folder_that_cannot_be_written_is_said(self, tmp_path):
        (tmp_path / "data").write_text("a file where the folder should be")
        with pytest.raises(DependencyError, match="cannot be written"):
            DatasetStore(tmp_path).write_day("labels", DAY, LABEL_SCHEMA.empty_table())

    def test_a_failure_while_writing_leaves_no_trace(self, tmp_path):
        with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "a" / "b") as file:
            file.write(b"%d" % (1 // 0))
        assert list((tmp_path / "a").iterdir()) == []

    def test_a_file_being_written_is_no_leftover(self, tmp_path):
        with whole_file(tmp_path / "one") as file:
            file.write(b"1")
            with whole_file(tmp_path / "two") as other:
                other.write(b"2")
        assert (tmp_path / "one").read_bytes() == b"1"
        assert (tmp_path / "two").read_bytes() == b"2"


_KILLED = """
import os, signal, sys
from datetime import date
from pathlib import Path
import pyarrow as pa
from fraud_pipeline.adapters.dataset_store import DatasetStore
calls, real = [], os.replace
def replace(*paths):
    calls.append(paths)
    if len(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    real(*paths)
os.replace = replace
DatasetStore(Path(sys.argv[1])).write_day("features", date(2026, 1, 5), pa.table({"x": [2.0]}), replace=True)
"""


@pytest.mark.parametrize("replacements", [1, 2])
@pytest.mark.parametrize("present", [False, True])
def test_a_kill_leaves_the_day_as_it_was_and_a_rerun_repairs(tmp_path, replacements, present):
    store = DatasetStore(tmp_path)
    old, new = pa.table({"x": [1.0]}), pa.table({"x": [2.0]})
    if present:
        store.write_day("features", DAY, old)
    command = [sys.executable, "-c", _KILLED, str(tmp_path), str(replacements)]
    assert subprocess.run(command, check=False, cwd=Path.cwd()).returncode == -signal.SIGKILL
    assert leftovers(tmp_path) != []
    assert store.days("features") == ([DAY] if present else [])
    if present:
        assert store.read_day("features", DAY) == old
    store.write_day("features", DAY, new, replace=True)
    assert store.read_day("features", DAY) == new
    assert leftovers(tmp_path) == []


def world(**changes):
    facts = {
        "kind": "simulation", "name": "demo", "start": DAY, "end": DAY + timedelta(days=2), "rows": 3, "frauds": 0,
        "labels": 0, "created_at": datetime(2026, 1, 8, tzinfo=UTC), "parameters": {"seed": 1},
    }  # fmt: skip
    return WorldManifest(**{**facts, **changes})


def land(root, table, manifest=None):
    with SourceWriter(root) as writer:
        writer.write_day("transactions", DAY, table)
        return writer.complete(manifest or world())


class TestWorld:
    def test_a_landed_world_comes_back(self, tmp_path):
        manifest = land(tmp_path, transactions(3, risk=1.0), world(attributes=("risk",)))
        source = SourceStore(tmp_path)
        assert source.manifest() == manifest
        assert len(manifest.fingerprint) == 32
        assert source.days("transactions") == [DAY]
        assert source.read_day("transactions", DAY) == transactions(3, risk=1.0)
        assert source.read_day("transactions", DAY, ["amount_minor"]).schema.names == ["amount_minor"]
        assert sorted(p.name for p in tmp_path.iterdir()) == [".source.lock", "source"]

    def test_a_day_without_rows_is_empty_and_one_outside_is_an_error(self, tmp_path):
        land(tmp_path, transactions(3, risk=1.0), world(attributes=("risk",)))
        source = SourceStore(tmp_path)
        empty = source.read_day("transactions", DAY + timedelta(days=1))
        assert (empty.num_rows, empty.schema) == (0, transaction_schema(["risk"]))
        assert source.read_day("labels", DAY + timedelta(days=40)).schema == LABEL_SCHEMA
        assert source.read_day("truth", DAY).schema == TRUTH_SCHEMA
        with pytest.raises(DatasetError, match="2026-01-07 is outside the world"):
            source.read_day("transactions", DAY + timedelta(days=2))
        with pytest.raises(DatasetError, match="weather"):
            source.read_day("weather", DAY)

    def test_an_import_has_no_truth(self, tmp_path):
        land(tmp_path, transactions(), world(kind="import"))
        assert not SourceStore(tmp_path).has_dataset("truth")
        with pytest.raises(DatasetError, match="no truth"):
            SourceStore(tmp_path).read_day("truth", DAY)

    def test_a_home_without_a_world_says_how_to_make_one(self, tmp_path):
        with pytest.raises(NotFound, match="holds no world yet") as caught:
            SourceStore(tmp_path).manifest()
        assert "fraud simulate" in caught.value.remedy

    def test_the_same_world_again_changes_nothing(self, tmp_path):
        first = land(tmp_path, transactions())
        assert land(tmp_path, transactions(), world(created_at=datetime(2027, 1, 1, tzinfo=UTC))) == first

    def test_another_world_is_refused(self, tmp_path):
        land(tmp_path, transactions(amount=1))
        with pytest.raises(DatasetError, match="one home holds one world") as caught:
            land(tmp_path, transactions(amount=2))
        assert "FRAUD_HOME" in caught.value.remedy
        assert SourceStore(tmp_path).read_day("transactions", DAY) == transactions(amount=1)
        assert not (tmp_path / "source.staging").exists()

    def test_the_fingerprint_does_not_know_the_order_of_writing(self, tmp_path):
        days = [(DAY, transactions()), (DAY + timedelta(days=1), transactions(day=DAY + timedelta(days=1)))]
        prints = []
        for i, order in enumerate((days, days[::-1])):
            with SourceWriter(tmp_path / str(i)) as writer:
                for day, table in order:
                    writer.write_day("transactions", day, table)
                prints.append(writer.fingerprint())
        assert prints[0] == prints[1]

    def test_a_failed_landing_leaves_nothing(self, tmp_path):
        with pytest.raises(ZeroDivisionError), SourceWriter(tmp_path) as writer:
            writer.write_day("transactions", DAY, transactions(amount=1 // 0))
        assert not SourceStore(tmp_path).exists()
        assert not (tmp_path / "source.staging").exists()

    def test_what_a_killed_landing_left_is_removed(self, tmp_path):
        stale = tmp_path / "source.staging" / "transactions" / "day=2001-01-01" / "part-0.parquet"
        stale.parent.mkdir(parents=True)
        stale.write_bytes(b"half")
        land(tmp_path, transactions())
        assert SourceStore(tmp_path).days("transactions") == [DAY]

    def test_two_landings_at_once_are_one_too_many(self, tmp_path):
        with SourceWriter(tmp_path), pytest.raises(Busy, match="Another process"), SourceWriter(tmp_path):
            pass
        land(tmp_path, transactions())

    def test_a_day_is_written_once(self, tmp_path):
        with SourceWriter(tmp_path) as writer:
            writer.write_day("transactions", DAY, transactions())
            with pytest.raises(DatasetError, match="already written"):
                writer.write_day("transactions", DAY, transactions())

    def test_a_full_disk_imports_nothing(self, tmp_path, monkeypatch):
        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        with SourceWriter(tmp_path) as writer:
            writer.write_day("transactions", DAY, transactions())
            monkeypatch.setattr(os, "fsync", full)
            with pytest.raises(DependencyError, match="disk is full"):
                writer.complete(world())
        assert not SourceStore(tmp_path).exists()

    @pytest.mark.parametrize("change", [{"format": 2}, {"start": "tomorrow"}, {"rows_": 1}])
    def test_a_manifest_of_another_kind_is_refused(self, tmp_path, change):
        land(tmp_path, transactions())
        path = tmp_path / "source" / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
        with pytest.raises((DatasetError, IntegrityError), match=r"manifest.json"):
            SourceStore(tmp_path).manifest()
