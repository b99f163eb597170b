"""A company's own file becomes the world of a home, or is refused with what is wrong with it."""

from __future__ import annotations

import gzip
import json
import math
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud_pipeline.adapters import import_files, import_spool, importer
from fraud_pipeline.adapters.import_files import FileBatch
from fraud_pipeline.adapters.import_mapping import load_mapping, parse_mapping
from fraud_pipeline.adapters.import_rules import check_batch, haversine_km
from fraud_pipeline.adapters.importer import import_file
from fraud_pipeline.adapters.source_store import SourceStore, SourceWriter
from fraud_pipeline.domain.transaction import parse_transaction
from fraud_pipeline.errors import DatasetError, InputError, InvalidTransaction, MappingError

FIELDS = {
    "transaction_id": "id", "event_time": "at", "customer_id": "who", "merchant_id": "where", "amount": "amount",
}  # fmt: skip
LABEL = {"column": "fraud", "delay": "7d"}
ROW = {"id": "t1", "at": "2026-01-05T10:00:00Z", "who": "c1", "where": "m1", "amount": "24.36", "fraud": "0"}
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def mapping(**changes):
    return parse_mapping({"name": "own", **FIELDS, "label": LABEL, **changes})


def csv_file(tmp_path, rows, name="payments.csv"):
    """Rows as dicts on top of ROW; text as it is."""
    full = [{**ROW, "id": f"t{i}", **row} for i, row in enumerate(rows, 1)]
    columns = list(dict.fromkeys(key for row in full for key in row))
    lines = [",".join(columns), *(",".join(str(row.get(c, "")) for c in columns) for row in full)]
    path = tmp_path / name
    path.write_bytes(("\n".join(lines) + "\n").encode())
    return path


def good_rows(count=300):
    return [{} for _ in range(count)]


def land(tmp_path, rows, *, share=0.01, **changes):
    path = rows if not isinstance(rows, list) else csv_file(tmp_path, rows)
    return import_file(path, mapping(**changes), home=tmp_path / "home", max_reject_share=share, now=NOW)


def landed(tmp_path, dataset="transactions"):
    source = SourceStore(tmp_path / "home")
    return pa.concat_tables([source.read_day(dataset, day) for day in source.days(dataset)]).to_pylist()


def quarantined(summary):
    return [tuple(row.values()) for row in pq.read_table(summary.quarantine).to_pylist()]


class TestGoodFile:
    def test_rows_become_transactions_by_day_and_frauds_become_labels(self, tmp_path):
        rows = [
            {"at": "2026-01-06T00:00:00Z", "fraud": "1"},
            {"at": "2026-01-05T23:59:59.999999Z", "amount": "0"},
            {"at": "2026-01-05T23:59:59.999999Z", "id": "a", "amount": "10000000"},
            {"at": "2026-01-05 12:30+02:00", "fraud": "true", "amount": "7.5"},
        ]
        summary = land(tmp_path, rows)
        assert (summary.rows, summary.accepted, summary.rejected, summary.reasons) == (4, 4, 0, {})
        assert (summary.frauds, summary.labels, summary.unchanged) == (2, 2, False)
        assert (summary.start, summary.end) == (date(2026, 1, 5), date(2026, 1, 7))
        table = landed(tmp_path)
        assert [(row["transaction_id"], row["amount_minor"]) for row in table] == [
            ("t4", 750), ("a", 1_000_000_000), ("t2", 0), ("t1", 2436),
        ]  # fmt: skip
        assert table[0]["event_time"] == datetime(2026, 1, 5, 10, 30, tzinfo=UTC)
        assert (table[0]["currency"], table[0]["channel"], table[0]["merchant_category"]) == (
            "USD",
            "unknown",
            "unknown",
        )
        assert [(r["transaction_id"], r["known_at"], r["change"], r["source"]) for r in landed(tmp_path, "labels")] == [
            ("t4", datetime(2026, 1, 12, 10, 30, tzinfo=UTC), 1, "import"),
            ("t1", datetime(2026, 1, 13, tzinfo=UTC), 1, "import"),
        ]

    def test_the_manifest_says_what_was_landed(self, tmp_path):
        summary = land(tmp_path, [{"fraud": "1"}, {}])
        world = SourceStore(tmp_path / "home").manifest()
        assert (world.kind, world.name, world.rows, world.frauds, world.labels) == ("import", "own", 2, 1, 1)
        assert (world.currency, world.created_at, world.attributes) == ("USD", NOW, ())
        assert world.fingerprint == summary.fingerprint
        assert world.parameters["file"] == "payments.csv"
        assert str(tmp_path) not in json.dumps(world.parameters)

    def test_csv_gzip_and_parquet_of_the_same_rows_are_the_same_world(self, tmp_path):
        rows = [{"fraud": str(i % 2), "amount": f"{i}.5", "at": f"2026-01-0{1 + i % 7}T10:00:00"} for i in range(50)]
        plain = csv_file(tmp_path, rows)
        packed = tmp_path / "payments.csv.gz"
        packed.write_bytes(gzip.compress(plain.read_bytes()))
        parquet = tmp_path / "payments.parquet"
        pq.write_table(pacsv.read_csv(plain), parquet)
        prints = {
            import_file(path, mapping(), home=tmp_path / path.suffix).fingerprint for path in (plain, packed, parquet)
        }
        assert len(prints) == 1

    def test_again_changes_nothing_and_another_file_is_refused(self, tmp_path):
        first = land(tmp_path, [{}, {"fraud": "1"}])
        before = {p: p.stat().st_mtime_ns for p in (tmp_path / "home").rglob("*")}
        again = land(tmp_path, [{}, {"fraud": "1"}])
        assert again.unchanged
        assert again == type(first)(**{**{n: getattr(first, n) for n in first.__slots__}, "unchanged": True})
        assert {p: p.stat().st_mtime_ns for p in (tmp_path / "home").rglob("*")} == before
        for rows, changes in (([{}], {}), ([{}, {"fraud": "1"}], {"label": {**LABEL, "delay": "8d"}})):
            with pytest.raises(DatasetError, match="one home holds one world") as caught:
                land(tmp_path, rows, **changes)
            assert "FRAUD_HOME" in caught.value.remedy
        assert SourceStore(tmp_path / "home").manifest().rows == 2

    def test_many_small_spools_and_batches_give_the_same_world(self, tmp_path, monkeypatch):
        rows = [
            {"at": f"2026-01-{1 + (i * 7) % 28:02}T10:00:{i % 60:02}", "fraud": str(i % 3 == 0)} for i in range(500)
        ]
        whole = land(tmp_path, rows)
        monkeypatch.setattr(import_spool, "BUFFERED_ROWS", 70)
        monkeypatch.setattr(import_files, "BLOCK_BYTES", 2000)
        pieces = import_file(tmp_path / "payments.csv", mapping(), home=tmp_path / "other")
        assert pieces.fingerprint == whole.fingerprint

    def test_progress_goes_to_the_end(self, tmp_path):
        told = []
        path = csv_file(tmp_path, good_rows())
        import_file(path, mapping(), home=tmp_path / "home", progress=lambda done, total: told.append(done / total))
        assert told == sorted(told)
        assert told[-1] == 1.0


class TestFields:
    def test_renames_constants_templates_and_translations(self, tmp_path):
        land(
            tmp_path,
            [{"kind": "misc_net", "where": "Café"}, {"kind": "atm-7"}, {"kind": "shop"}],
            customer_id={"template": "{who}/{row}"},
            merchant_category={"column": "kind"},
            channel={"column": "kind", "values": {"*_net": "online", "atm*": "atm"}, "default": "pos"},
            country={"constant": "DE"},
            currency={"constant": "USD"},
        )
        assert [(r["customer_id"], r["merchant_category"], r["channel"], r["country"]) for r in landed(tmp_path)] == [
            ("c1/1", "misc_net", "online", "DE"),
            ("c1/2", "atm-7", "atm", "DE"),
            ("c1/3", "shop", "pos", "DE"),
        ]
        assert landed(tmp_path)[0]["merchant_id"] == "Café"

    def test_empty_optional_values_are_absent(self, tmp_path):
        rows = [
            {"device": "", "lat": "", "lon": "", "score": ""},
            {"device": "d", "lat": "1.5", "lon": "-2", "score": "NaN"},
        ]
        land(tmp_path, rows, device_id="device", latitude="lat", longitude="lon", attributes={"score": "score"})
        assert [(r["device_id"], r["latitude"], r["longitude"], r["attributes.score"]) for r in landed(tmp_path)] == [
            (None, None, None, None),
            ("d", 1.5, -2.0, None),
        ]

    def test_attributes_from_columns_and_functions(self, tmp_path):
        rows = [{"V1": "-1.5e-3", "born": "1966-01-05", "a": "52.52", "b": "13.405", "c": "48.8566", "d": "2.3522"}]
        land(
            tmp_path,
            rows,
            attribute_columns=["V*"],
            attributes={
                "age": {"function": "years_since", "column": "born"},
                "km": {"function": "haversine_km", "columns": ["a", "b", "c", "d"]},
            },
        )
        (row,) = landed(tmp_path)
        assert row["attributes.v1"] == -0.0015
        assert row["attributes.age"] == pytest.approx(60.0, abs=0.01)
        assert row["attributes.km"] == pytest.approx(877.5, abs=1)  # Berlin to Paris

    def test_haversine_of_the_quarter_of_a_great_circle(self):
        quarter = haversine_km(*(np.array([x]) for x in (0.0, 0.0, 90.0, 0.0)))
        assert quarter[0] == pytest.approx(math.pi / 2 * 6371.0088)

    def test_a_label_time_column_makes_legitimate_labels_too(self, tmp_path):
        rows = [
            {"fraud": "1", "told": "2026-01-20T00:00:00Z"},
            {"fraud": "0", "told": "2026-01-21T00:00:00Z"},
            {"fraud": "1", "told": ""},
            {"fraud": "", "told": "2026-01-21T00:00:00Z"},
        ]
        summary = land(tmp_path, rows, label={"column": "fraud", "known_at": "told"})
        assert (summary.labels, summary.frauds) == (2, 1)
        assert [(r["transaction_id"], r["is_fraud"], r["change"]) for r in landed(tmp_path, "labels")] == [
            ("t1", True, 1), ("t2", False, 0),
        ]  # fmt: skip

    def test_a_file_without_labels_is_a_world_without_labels(self, tmp_path):
        summary = land(tmp_path, [{}], label=None)
        assert (summary.labels, summary.frauds) == (0, 0)

    def test_ids_from_a_pandas_column_with_gaps_keep_their_digits(self, tmp_path):
        path = tmp_path / "gaps.parquet"
        table = pa.table({**{k: [v] * 3 for k, v in ROW.items()}, "id": ["a", "b", "c"], "who": [4684.0, 7.0, None]})
        pq.write_table(table, path)
        land(tmp_path, path, share=0.5)
        assert [r["customer_id"] for r in landed(tmp_path)] == ["4684", "7"]


class TestTimes:
    @pytest.mark.parametrize(
        ("text", "options", "expected"),
        [
            ("2026-07-01 12:00:00", {"zone": "Europe/Berlin"}, "2026-07-01T10:00:00"),
            ("2026-01-01T12:00:00.5Z", {"zone": "Europe/Berlin"}, "2026-01-01T12:00:00.500000"),
            ("2026-01-01", {}, "2026-01-01T00:00:00"),
            ("31.12.2025 23:30", {"format": "%d.%m.%Y %H:%M", "zone": "America/New_York"}, "2026-01-01T04:30:00"),
            ("01/02/26 5 PM +0300", {"format": "%d/%m/%y %I %p %z"}, "2026-02-01T14:00:00"),
            ("1767225600.25", {"format": "epoch_s"}, "2026-01-01T00:00:00.250000"),
            ("1767225600250", {"format": "epoch_ms"}, "2026-01-01T00:00:00.250000"),
            ("1e+05", {"format": "seconds_since", "start": datetime(2013, 9, 1, tzinfo=UTC)}, "2013-09-02T03:46:40"),
        ],
    )
    def test_text_is_read_by_the_mappings_format_and_zone(self, tmp_path, text, options, expected):
        land(tmp_path, [{"at": text}], event_time={"column": "at", **options})
        assert landed(tmp_path)[0]["event_time"] == datetime.fromisoformat(expected).replace(tzinfo=UTC)

    @pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
    @pytest.mark.parametrize(("stored_zone", "hour"), [(None, 10), ("America/New_York", 12)])
    def test_stored_timestamps_are_read_in_any_unit(self, tmp_path, unit, stored_zone, hour):
        moments = pa.array([datetime(2026, 7, 1, 12, tzinfo=UTC), None], pa.timestamp("us")).cast(
            pa.timestamp(unit, stored_zone)
        )
        path = tmp_path / "times.parquet"
        pq.write_table(pa.table({**{k: [v] * 2 for k, v in ROW.items()}, "id": ["a", "b"], "at": moments}), path)
        summary = land(tmp_path, path, share=0.5, event_time={"column": "at", "zone": "Europe/Berlin"})
        assert [r["event_time"] for r in landed(tmp_path)] == [datetime(2026, 7, 1, hour, tzinfo=UTC)]
        assert quarantined(summary) == [(2, "event_time", None, "must not be null")]

    @pytest.mark.parametrize(
        ("text", "options", "reason"),
        [
            ("yesterday", {}, "is not a time of the mapping's format"),
            ("2026-02-30 10:00:00", {}, "is not a time of the mapping's format"),
            ("2026-01-01 10", {}, "is not a time of the mapping's format"),
            ("9999-12-31T23:59:59Z", {}, "must lie between 1970 and 2199"),
            ("9999-12-31T23:59:59", {"zone": "Asia/Tokyo"}, "must lie between 1970 and 2199"),
            ("1969-12-31T23:59:59Z", {}, "must lie between 1970 and 2199"),
            ("2026-03-29 02:30:00", {"zone": "Europe/Berlin"}, "does not exist, or exists twice"),
            ("2026-10-25 02:30:00", {"zone": "Europe/Berlin"}, "does not exist, or exists twice"),
            ("inf", {"format": "epoch_s"}, "must be a finite number"),
            ("1e30", {"format": "epoch_s"}, "must lie between 1970 and 2199"),
            ("noon", {"format": "epoch_s"}, "must be a finite number"),
        ],
    )
    def test_a_time_that_is_none_is_quarantined(self, tmp_path, text, options, reason):
        rows = [{"at": text}, *[{"at": "1767225600" if options.get("format") else "2026-01-01 12:00:00"}] * 2]
        summary = land(tmp_path, rows, share=0.5, event_time={"column": "at", **options})
        ((row, field, value, why),) = quarantined(summary)
        assert (row, field, value) == (1, "event_time", text)
        assert why.startswith(reason)


class TestRejectedRows:
    @pytest.mark.parametrize(
        ("change", "field", "reason"),
        [
            ({"id": ""}, "transaction_id", "must not be null"),
            ({"id": "a b"}, "transaction_id", "must be 1 to 64 of A-Z a-z 0-9 . _ : -"),
            ({"id": "x" * 65}, "transaction_id", "must be 1 to 64 of A-Z a-z 0-9 . _ : -"),
            ({"who": ""}, "customer_id", "must not be null"),
            ({"who": "a\tb"}, "customer_id", "must be text of 1 to 64 printable characters"),
            ({"where": "é" * 65}, "merchant_id", "must be text of 1 to 64 printable characters"),
            ({"amount": ""}, "amount", "must not be null"),
            ({"amount": "-1"}, "amount", "must be from 0 to 10,000,000"),
            ({"amount": "10000000.01"}, "amount", "must be from 0 to 10,000,000"),
            ({"amount": "1.005"}, "amount", "must have at most 2 decimals"),
            ({"amount": "24.360000000000000001"}, "amount", "must have at most 2 decimals"),
            ({"amount": "nan"}, "amount", "must be a finite number or a decimal string"),
            ({"amount": "inf"}, "amount", "must be a finite number or a decimal string"),
            ({"amount": "$5"}, "amount", "must be a finite number or a decimal string"),
            ({"currency": "EUR"}, "currency", "must be USD"),
            ({"category": "x" * 33}, "merchant_category", "must be text of 1 to 32 printable characters"),
            ({"channel": "phone"}, "channel", "must be one of pos, online, atm, transfer, unknown"),
            ({"country": "de"}, "country", "must be an ISO 3166-1 alpha-2 code in capitals"),
            ({"device": "\x07"}, "device_id", "must be text of 1 to 64 printable characters"),
            ({"lat": "91", "lon": "0"}, "latitude", "must be degrees from -90 to 90"),
            ({"lat": "inf", "lon": "0"}, "latitude", "must be degrees from -90 to 90"),
            ({"lat": "1"}, "longitude", "is required where latitude is given"),
            ({"lon": "north"}, "longitude", "must be degrees from -180 to 180"),
            ({"score": "inf"}, "attributes.score", "must be a finite number"),
            ({"score": "low"}, "attributes.score", "must be a finite number"),
            ({"born": "unknown"}, "attributes.age", "is not a time of the mapping's format"),
            ({"fraud": "maybe"}, "label", "must be one of 1, 1.0, true, yes, 0, 0.0, false, no"),
        ],
    )
    def test_a_bad_value_is_quarantined_with_its_row_field_and_rule(self, tmp_path, change, field, reason):
        rows = [
            {"channel": "pos", "country": "DE", "currency": "USD", "category": "", "device": "", "lat": "", "lon": ""}
        ]
        rows = [{**rows[0], "score": "", "born": ""}, {**rows[0], "score": "", "born": "", **change}]
        summary = land(
            tmp_path,
            rows,
            share=0.5,
            currency="currency",
            merchant_category="category",
            channel="channel",
            country="country",
            device_id="device",
            latitude="lat",
            longitude="lon",
            attributes={"score": "score", "age": {"function": "years_since", "column": "born"}},
        )
        assert (summary.accepted, summary.rejected) == (1, 1)
        found = [row for row in quarantined(summary) if row[1] == field]
        assert [(row[0], row[3]) for row in found] == [(2, reason)]
        assert summary.reasons[f"{field}: {reason}"] == 1
        assert [row["transaction_id"] for row in landed(tmp_path)] == ["t1"]

    def test_every_broken_rule_of_a_row_is_listed(self, tmp_path):
        summary = land(tmp_path, [{}, {"id": "", "amount": "-5", "at": "never", "fraud": "1"}], share=0.5)
        assert sorted(quarantined(summary), key=lambda row: row[1]) == [
            (2, "amount", "-5", "must be from 0 to 10,000,000"),
            (2, "event_time", "never", "is not a time of the mapping's format"),
            (2, "transaction_id", "", "must not be null"),
        ]
        assert (summary.rejected, summary.labels, len(summary.reasons)) == (1, 0, 3)

    def test_a_label_before_its_payment_is_quarantined(self, tmp_path):
        rows = [{"told": ""}, {"told": "2026-01-05T09:59:59Z", "fraud": "1"}]
        summary = land(tmp_path, rows, share=0.5, label={"column": "fraud", "known_at": "told"})
        assert [row[1:] for row in quarantined(summary)] == [
            ("label.known_at", "2026-01-05T09:59:59Z", "must not be before event_time")
        ]

    def test_later_rows_with_an_id_again_are_quarantined_with_their_labels(self, tmp_path):
        rows = [{"id": "b", "at": "2026-01-09T00:00:00Z"}, {"id": "a"}, {"id": "b", "fraud": "1"}, {"id": "b"}]
        summary = land(tmp_path, rows, share=0.5)
        assert quarantined(summary) == [
            (3, "transaction_id", "b", "is a duplicate of an earlier row"),
            (4, "transaction_id", "b", "is a duplicate of an earlier row"),
        ]
        assert (summary.rows, summary.accepted, summary.rejected, summary.labels) == (4, 2, 2, 0)
        assert summary.end == date(2026, 1, 10)
        assert [row["transaction_id"] for row in landed(tmp_path)] == ["a", "b"]

    def test_ids_whose_hashes_meet_are_told_apart(self, tmp_path, monkeypatch):
        monkeypatch.setattr(import_spool, "hash_ids", lambda ids: np.zeros(len(ids), np.uint64))
        assert land(tmp_path, [{"id": "a"}, {"id": "b"}, {"id": "c"}]).accepted == 3

    def test_bad_utf8_costs_its_row_and_not_the_block(self, tmp_path):
        path = csv_file(tmp_path, good_rows(3))
        path.write_bytes(path.read_bytes().replace(b"t2,2026-01-05T10:00:00Z,c1", b"t2,2026-01-05T10:00:00Z,c\xff1"))
        summary = land(tmp_path, path, share=0.5)
        assert quarantined(summary) == [(2, "customer_id", "c\\xff1", "is not UTF-8 text")]

    def test_a_file_in_another_encoding_is_read_when_the_mapping_says_so(self, tmp_path):
        path = tmp_path / "latin.csv"
        path.write_bytes("id;at;who;where;amount;fraud\nt1;2026-01-05T10:00:00Z;Zoë;m;1;0\n".encode("latin-1"))
        land(tmp_path, path, csv={"delimiter": ";", "encoding": "latin-1"})
        assert landed(tmp_path)[0]["customer_id"] == "Zoë"

    def test_rows_of_another_width_are_quarantined_and_numbers_stay_right(self, tmp_path):
        path = csv_file(tmp_path, good_rows(6))
        lines = path.read_text().splitlines()
        lines[2] = "t2,too,short"
        lines[4] += ",too long"
        lines[6] = lines[6].replace("24.36", "-1")
        path.write_text("\n".join([lines[0], "", *lines[1:]]) + "\n\n")
        summary = land(tmp_path, path, share=0.5)
        assert [(row[0], row[1], row[3]) for row in quarantined(summary)] == [
            (2, "row", "has 3 columns, not 6"),
            (4, "row", "has 7 columns, not 6"),
            (6, "amount", "must be from 0 to 10,000,000"),
        ]
        assert quarantined(summary)[0][2] == "t2,too,short"
        assert (summary.rows, summary.accepted) == (6, 3)

    def test_small_blocks_keep_the_numbers_right(self, tmp_path, monkeypatch):
        monkeypatch.setattr(import_files, "BLOCK_BYTES", 200)
        path = csv_file(tmp_path, [{"amount": "-1"} if i % 10 == 9 else {} for i in range(100)])
        lines = path.read_text().splitlines()
        for i in range(5, 101, 10):
            lines[i] = "short"
        path.write_text("\n".join(lines) + "\n")
        found = quarantined(land(tmp_path, path, share=0.5))
        assert [row[0] for row in found if row[1] == "row"] == list(range(5, 101, 10))
        assert [row[0] for row in found if row[1] == "amount"] == list(range(10, 101, 10))

    def test_malformed_rows_at_the_end_count_too(self, tmp_path):
        path = csv_file(tmp_path, good_rows(3))
        path.write_text(path.read_text() + "short\n")
        assert quarantined(land(tmp_path, path, share=0.5)) == [(4, "row", "short", "has 1 columns, not 6")]

    def test_the_limit_is_a_share_of_all_rows(self, tmp_path):
        rows = [*good_rows(99), {"amount": "-1"}]
        assert land(tmp_path, rows, share=0.01).rejected == 1
        with pytest.raises(InputError):
            import_file(tmp_path / "payments.csv", mapping(), home=tmp_path / "b", max_reject_share=0.0099)

    def test_above_the_limit_nothing_is_imported_and_the_quarantine_is_named(self, tmp_path):
        rows = [*good_rows(8), {"amount": "-1"}, {"amount": "x", "who": ""}]
        with pytest.raises(
            InputError, match=r"2 of the 10 rows.*rejected .20.0%, allowed 1.0%.; nothing was imported"
        ) as e:
            land(tmp_path, rows)
        kept = tmp_path / "home" / "rejected_import.parquet"
        assert str(kept) in e.value.remedy
        assert pq.read_table(kept).column("row_number").to_pylist() == [9, 10, 10]
        assert not SourceStore(tmp_path / "home").exists()
        assert sorted(p.name for p in (tmp_path / "home").iterdir()) == [".source.lock", "rejected_import.parquet"]
        land(tmp_path, rows, share=0.2)
        assert not kept.exists()

    def test_a_hopeless_file_is_not_read_to_its_end(self, tmp_path, monkeypatch):
        monkeypatch.setattr(importer, "HOPELESS_AFTER_ROWS", 50)
        monkeypatch.setattr(import_files, "BLOCK_BYTES", 2000)
        with pytest.raises(InputError, match=r"rows read from payments\.csv were rejected") as caught:
            land(tmp_path, [{"amount": "x"}] * 1000)
        assert "1,000" not in caught.value.message

    def test_a_row_longer_than_a_block_is_an_error(self, tmp_path, monkeypatch):
        monkeypatch.setattr(import_files, "BLOCK_BYTES", 200)
        with pytest.raises(DatasetError, match="cannot be read"):
            land(tmp_path, [{"note": "x" * 500}, {"note": "x"}])

    def test_a_file_of_which_nothing_is_left_is_refused_at_any_limit(self, tmp_path):
        with pytest.raises(InputError, match=r"100\.0%"):
            land(tmp_path, [{"amount": "x"}], share=1.0)

    @pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
    def test_a_limit_that_is_no_share_is_refused(self, tmp_path, share):
        with pytest.raises(InputError, match="share from 0 to 1"):
            land(tmp_path, [{}], share=share)


class TestFilesThatCannotBeRead:
    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.csv", b"", "is empty"),
            ("a.csv", b"id,at,who,where,amount,fraud\n", "a header and no rows"),
            ("a.csv", b"id,at,who,where,amount,fraud", "cannot be read|a header and no rows"),
            ("a.parquet", b"id,at,who\n1,2,3\n", "neither Parquet nor CSV"),
            ("a.csv", b"PK\x03\x04 a spreadsheet", "neither Parquet nor CSV"),
            ("a.csv", b"\x00\x01\x02\x03", "neither Parquet nor CSV"),
            ("a.parquet", b"PAR1 and nothing more", "cannot be read"),
            ("a.csv.gz", b"\x1f\x8b\x08 and nothing more", "cannot be read"),
            ("a.csv.gz", gzip.compress(b"id,at,who,where,amount,fraud\n" * 9, mtime=0)[:-9], "cannot be read"),
            ("a.csv.gz", gzip.compress(b"", mtime=0), "cannot be read"),
        ],
    )
    def test_they_are_named(self, tmp_path, name, content, message):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=message) as caught:
            land(tmp_path, path)
        assert str(path) in caught.value.message
        assert not SourceStore(tmp_path / "home").exists()

    def test_a_missing_file_and_a_folder_are_named(self, tmp_path):
        with pytest.raises(DatasetError, match="does not exist"):
            land(tmp_path, tmp_path / "nothing.csv")
        with pytest.raises(DatasetError, match="is a folder"):
            land(tmp_path, tmp_path)

    @pytest.mark.parametrize(
        "broken", ['t2,2026-01-05T10:00:00Z,c1,"m1,24.36,0', 't2,2026-01-05T10:00:00Z,c1,m1,24.36,"0']
    )
    def test_a_quote_left_open_swallows_no_rows_unseen(self, tmp_path, broken):
        path = csv_file(tmp_path, good_rows(300))
        lines = path.read_text().splitlines()
        path.write_text("\n".join([*lines[:100], broken, *lines[100:]]) + "\n")
        with pytest.raises(InputError, match="quote"):
            land(tmp_path, path, share=0.02)

    def test_a_quote_closed_some_rows_later_is_noticed(self, tmp_path):
        path = csv_file(tmp_path, [{"note": "x"} for _ in range(6)])
        lines = path.read_text().splitlines()
        lines[2] = lines[2].removesuffix("x") + '"x'
        lines[4] = lines[4].removesuffix("x") + 'x"'
        path.write_text("\n".join(lines) + "\n")
        with pytest.raises(DatasetError, match="6 lines but 4 rows: in some row a quote is opened") as caught:
            land(tmp_path, path)
        assert "multiline" in caught.value.remedy

    def test_line_breaks_in_values_are_fine_where_the_mapping_says_so(self, tmp_path):
        path = tmp_path / "notes.csv"
        path.write_text('note,id,at,who,where,amount,fraud\n"two\nlines",t1,2026-01-05T10:00:00Z,c,m,1,0\n')
        land(tmp_path, path, csv={"multiline": True})
        assert len(landed(tmp_path)) == 1

    def test_a_corrupt_page_in_the_middle_of_a_parquet_file_is_named(self, tmp_path):
        path = tmp_path / "torn.parquet"
        table = pa.table({k: [v] * 5000 for k, v in ROW.items()} | {"id": [f"t{i}" for i in range(5000)]})
        pq.write_table(table, path, compression="zstd")
        content = bytearray(path.read_bytes())
        content[100:2000] = bytes(1900)
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=r"torn\.parquet cannot be read"):
            land(tmp_path, path)
        assert not (tmp_path / "home" / "source.staging").exists()

    @pytest.mark.parametrize(
        ("column", "values", "field"),
        [
            ("amount", pa.array([[1]]), "amount"),
            ("amount", pa.array([True]), "amount"),
            ("who", pa.array([{"a": 1}]), "customer_id"),
            ("at", pa.array([1.5]), "event_time"),
            ("fraud", pa.array([NOW]), "label"),
        ],
    )
    def test_a_column_of_a_type_that_never_fits_is_named(self, tmp_path, column, values, field):
        path = tmp_path / "types.parquet"
        pq.write_table(pa.table({**{k: [v] for k, v in ROW.items()}, column: values}), path)
        with pytest.raises(MappingError, match=f"{field}: its column holds"):
            land(tmp_path, path)

    def test_a_currency_that_is_not_the_homes_is_refused_at_once(self, tmp_path):
        with pytest.raises(MappingError, match="currency is EUR, this home's is USD") as caught:
            land(tmp_path, [{}], currency={"constant": "EUR"})
        assert "FRAUD_CURRENCY=EUR" in caught.value.remedy

    def test_a_failure_in_the_middle_leaves_nothing(self, tmp_path, monkeypatch):
        def fails(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr(SourceWriter, "complete", fails)
        with pytest.raises(KeyboardInterrupt):
            land(tmp_path, [{}])
        monkeypatch.undo()
        assert not SourceStore(tmp_path / "home").exists()
        assert not (tmp_path / "home" / "source.staging").exists()
        assert land(tmp_path, [{}]).accepted == 1


def amounts(column, **options):
    count = len(column)
    rows = {k: pa.array([v] * count) for k, v in ROW.items()} | {
        "id": pa.array([str(i) for i in range(count)]),
        "amount": column,
    }
    own = mapping(amount={"column": "amount", **options}, label=None)
    checked = check_batch(FileBatch(np.arange(1, count + 1), pa.RecordBatch.from_pydict(rows)), own, currency="USD")
    return checked.transactions.column("amount_minor").to_pylist(), checked.quarantine.column("reason").to_pylist()


class TestAmounts:
    @pytest.mark.parametrize(
        "kind", [pa.float64(), pa.float32(), pa.string(), pa.binary(), pa.decimal128(12, 4), pa.large_string()]
    )
    def test_two_decimals_are_exact_in_every_type(self, kind):
        texts = ["24.36", "0.01", "0.29", "1.15", "0", "1000.1", "0.07"]
        column = pa.array([Decimal(t) for t in texts]).cast(kind) if pa.types.is_decimal(kind) else None
        if column is None:
            column = pa.array(texts if not pa.types.is_floating(kind) else [float(t) for t in texts]).cast(kind)
        assert amounts(column) == ([2436, 1, 29, 115, 0, 100010, 7], [])

    def test_whole_numbers_are_whole_units_or_hundredths(self):
        assert amounts(pa.array([5, 0, None], pa.int32())) == ([500, 0], ["must not be null"])
        assert amounts(pa.array([5, 2**62], pa.int64()), unit="minor") == ([5], ["must be from 0 to 10,000,000"])
        assert amounts(pa.array(["5", "5.5", "5.00000000000000000001"]), unit="minor") == (
            [5], ["must have at most 2 decimals"] * 2,
        )  # fmt: skip

    def test_rounding_is_a_choice(self):
        assert amounts(pa.array([1.005, 2.5])) == ([250], ["must have at most 2 decimals"])
        assert amounts(pa.array([1.0049, 2.499]), rounding="cents") == ([100, 250], [])

    @given(st.integers(0, 10**9))
    def test_every_amount_of_the_contract_is_exact_as_a_float(self, minor):
        assert amounts(pa.array([minor / 100])) == ([minor], [])


plain_text = st.text(st.characters(codec="utf-8"), max_size=70) | st.sampled_from(["pos", "USD", "DE", "a", "x" * 65])
numbers = st.floats() | st.integers(-(10**12), 10**12).map(lambda n: n / 100) | st.none()
payloads = st.fixed_dictionaries(
    {
        "transaction_id": plain_text | st.none() | st.from_regex(r"[a-z0-9:._-]{1,64}", fullmatch=True),
        "event_time": st.datetimes().map(lambda t: t.replace(tzinfo=UTC)) | st.none(),
        "customer_id": plain_text | st.none() | st.just("c"),
        "merchant_id": plain_text | st.just("m"),
        "amount": numbers | st.just(24.36),
        "currency": plain_text | st.none() | st.just("USD"),
        "merchant_category": plain_text | st.none(),
        "channel": plain_text | st.none() | st.just("online"),
        "country": plain_text | st.none() | st.just("FR"),
        "device_id": plain_text | st.none(),
        "latitude": st.floats(-100, 100) | st.none(),
        "longitude": st.floats(-200, 200) | st.none(),
    }
)
_CONTRACT = parse_mapping(
    {
        "transaction_id": "transaction_id", "event_time": "event_time", "customer_id": "customer_id",
        "merchant_id": "merchant_id", "amount": "amount", "currency": "currency",
        "merchant_category": "merchant_category", "channel": "channel", "country": "country",
        "device_id": "device_id", "latitude": "latitude", "longitude": "longitude",
    }
)  # fmt: skip
_TYPES = {
    "amount": pa.float64(),
    "latitude": pa.float64(),
    "longitude": pa.float64(),
    "event_time": pa.timestamp("us", "UTC"),
}


@settings(max_examples=100, deadline=None)
@given(st.lists(payloads, min_size=1, max_size=8))
def test_files_are_held_to_the_very_rules_of_parse_transaction(rows):
    """An empty text in a file is an absent value; that is the one difference."""
    columns = {n: pa.array([row[n] for row in rows], _TYPES.get(n, pa.string())) for n in rows[0]}
    batch = FileBatch(np.arange(len(rows), dtype=np.int64), pa.RecordBatch.from_pydict(columns))
    checked = check_batch(batch, _CONTRACT, currency="USD")
    good = {row.pop("row_number"): row for row in checked.transactions.to_pylist()}
    named = {(r["row_number"], r["field"]) for r in checked.quarantine.to_pylist()}
    for i, row in enumerate(rows):
        payload = {n: None if v == "" else v for n, v in row.items()}
        try:
            expected = parse_transaction(payload)
        except InvalidTransaction as err:
            broken = {violation.field for violation in err.violations}
        else:
            broken = set()
        assert {field for number, field in named if number == i} == broken
        assert (i in good) == (not broken)
        if broken:
            continue
        assert {n: v for n, v in good[i].items() if n not in ("writer", "sequence")} == {
            n: getattr(expected, n) for n in good[i] if n not in ("writer", "sequence")
        }


@pytest.mark.parametrize("name", ["handbook", "sparkov"])
def test_the_public_files_are_imported_without_a_rejected_row(tmp_path, shared_data, name):
    table = pq.read_table(shared_data / f"{name}_dev20.parquet").slice(0, 20_000)
    path = tmp_path / f"{name}.parquet"
    pq.write_table(table, path)
    summary = import_file(path, load_mapping(name), home=tmp_path / "home")
    assert (summary.rows, summary.accepted, summary.reasons) == (20_000, 20_000, {})
    label, time = {"handbook": ("TX_FRAUD", "TX_DATETIME"), "sparkov": ("is_fraud", "trans_date_trans_time")}[name]
    assert summary.frauds == summary.labels == pc.sum(table.column(label)).as_py()
    assert summary.start == pc.min(table.column(time)).as_py().date()
    assert summary.end == pc.max(table.column(time)).as_py().date() + timedelta(days=1)


def test_the_ulb_file_is_imported_from_its_csv_as_r_wrote_it(tmp_path):
    path = tmp_path / "creditcard.csv"
    header = ",".join(f'"{c}"' for c in ("Time", *(f"V{i}" for i in range(1, 29)), "Amount", "Class"))
    components = ",".join(["-1.3598071336738", *["0.5"] * 27])
    path.write_text(f'{header}\n0,{components},149.62,"0"\n1e+05,{components},0,"1"\n')
    import_file(path, load_mapping("ulb"), home=tmp_path / "home")
    first, second = landed(tmp_path)
    assert (first["transaction_id"], first["customer_id"], first["amount_minor"]) == ("ulb-1", "row-1", 14962)
    assert (first["attributes.v1"], first["attributes.v28"]) == (-1.3598071336738, 0.5)
    assert second["event_time"] == datetime(2013, 9, 2, 3, 46, 40, tzinfo=UTC)
    assert [row["transaction_id"] for row in landed(tmp_path, "labels")] == ["ulb-2"]


def test_the_worked_example_of_the_documentation_works(tmp_path):
    page = (Path(__file__).resolve().parents[2] / "docs" / "importing.md").read_text()
    (csv,), (toml,) = (re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("csv", "toml"))
    path, own = tmp_path / "payments.csv", tmp_path / "shop.toml"
    path.write_text(csv)
    own.write_text(toml)
    with pytest.raises(InputError, match="2 of the 4 rows"):
        import_file(path, load_mapping(own), home=tmp_path / "home", currency="EUR")
    kept = pq.read_table(tmp_path / "home" / "rejected_import.parquet").to_pylist()
    shown = [f"| {' | '.join(str(value) for value in row.values())} |" for row in kept]
    assert [line for line in shown if line not in page] == []
    summary = import_file(path, load_mapping(own), home=tmp_path / "home", currency="EUR", max_reject_share=0.5)
    assert (summary.accepted, summary.frauds, summary.labels) == (2, 1, 1)
    online, pos = landed(tmp_path)
    assert (online["transaction_id"], online["customer_id"], online["channel"]) == ("shop-1002", "card-4711", "online")
    assert online["event_time"] == datetime(2026, 3, 1, 22, 50, tzinfo=UTC)
    assert (pos["channel"], pos["attributes.ip_risk"], pos["device_id"]) == ("pos", 0.2, None)
    assert landed(tmp_path, "labels")[0]["known_at"] == datetime(2026, 3, 12, 7, tzinfo=UTC)
