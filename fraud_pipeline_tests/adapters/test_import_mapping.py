"""Mappings say what they mean, or what is wrong with them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from fraud_pipeline.adapters.import_mapping import (
    FieldSource,
    TimeSource,
    load_mapping,
    parse_mapping,
    shipped_mappings,
)
from fraud_pipeline.errors import MappingError

HANDBOOK = (
    "TRANSACTION_ID", "TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT", "TX_TIME_SECONDS", "TX_TIME_DAYS",
    "TX_FRAUD", "TX_FRAUD_SCENARIO",
)  # fmt: skip
SPARKOV = (
    "transaction_id", "trans_date_trans_time", "customer_id", "merchant", "category", "amt", "gender", "dob", "state",
    "lat", "long", "city_pop", "merch_lat", "merch_long", "is_fraud",
)  # fmt: skip
ULB = ("Time", *(f"V{i}" for i in range(1, 29)), "Amount", "Class")


def minimal(**changes):
    content = {
        "transaction_id": "id", "event_time": "at", "customer_id": "who", "merchant_id": "where", "amount": "amount",
    }  # fmt: skip
    return {**content, **changes}


class TestShipped:
    def test_there_are_three(self):
        assert shipped_mappings() == ["handbook", "sparkov", "ulb"]

    @pytest.mark.parametrize(("name", "columns"), [("handbook", HANDBOOK), ("sparkov", SPARKOV), ("ulb", ULB)])
    def test_each_fits_its_file_and_says_when_labels_are_known(self, name, columns):
        mapping = load_mapping(name).resolve(columns)
        assert mapping.name == name
        assert mapping.description
        assert mapping.label is not None
        assert mapping.label.delay == timedelta(days=7)

    def test_the_handbooks_label_in_another_form_is_never_read(self):
        assert "TX_FRAUD_SCENARIO" not in [column for _, column in load_mapping("handbook").uses()]

    def test_sparkov_tells_online_shops_by_their_category(self):
        channel = load_mapping("sparkov").channel
        assert channel is not None
        assert [channel.translate(c) for c in ("misc_net", "grocery_pos", "travel")] == ["online", "pos", "pos"]

    def test_ulb_has_28_attributes_and_a_customer_per_row(self):
        mapping = load_mapping("ulb").resolve(ULB)
        assert list(mapping.attributes) == [f"v{i}" for i in range(1, 29)]
        assert mapping.customer_id.template == "row-{row}"
        assert mapping.event_time.start_us == int(datetime(2013, 9, 1, tzinfo=UTC).timestamp() * 1e6)


class TestOwnFile:
    def test_a_file_is_read_by_its_path_and_named_after_it(self, tmp_path):
        path = tmp_path / "shop.toml"
        path.write_text('transaction_id="a"\nevent_time="b"\ncustomer_id="c"\nmerchant_id="d"\namount="e"\n')
        mapping = load_mapping(path)
        assert (mapping.name, mapping.amount.column) == ("shop", "e")

    def test_an_unknown_name_lists_the_known_ones(self):
        with pytest.raises(MappingError, match="no mapping 'handbok'") as caught:
            load_mapping("handbok")
        assert "handbook, sparkov, ulb" in caught.value.remedy

    def test_what_is_not_toml_is_said_with_its_line(self, tmp_path):
        path = tmp_path / "bad.toml"
        path.write_text('amount = "a"\nchannel = {\n')
        with pytest.raises(MappingError, match=r"bad.toml is not TOML: .*line 2"):
            load_mapping(path)

    def test_what_is_not_text_is_said(self, tmp_path):
        path = tmp_path / "bad.toml"
        path.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(MappingError, match="cannot be read"):
            load_mapping(path)


class TestWrongMappings:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"amuont": "x"}, "unknown key 'amuont' .did you mean 'amount'"),
            ({"event_time": {"colum": "at"}}, "unknown key 'event_time.colum' .did you mean 'column'"),
            ({"event_time": {"column": "at", "zone": "Mars/Base"}}, "'Mars/Base' is no time zone"),
            ({"event_time": {"column": "at", "zone": "Europe"}}, "'Europe' is no time zone"),
            ({"event_time": {"column": "at", "format": "dd.mm"}}, "neither iso"),
            ({"event_time": {"column": "at", "format": "seconds_since"}}, "go together"),
            ({"customer_id": {"column": "a", "constant": "b"}}, "exactly one of column, constant, template"),
            ({"customer_id": {}}, "exactly one of column, constant, template"),
            ({"customer_id": 7}, "customer_id"),
            ({"channel": {"column": "a", "values": {"x": "telephone"}}}, "channel telephone: must be one of pos"),
            ({"channel": {"constant": "web"}}, "channel web"),
            ({"latitude": "lat"}, "go together"),
            ({"attributes": {"Big": "x"}}, "'Big': its name must be"),
            ({"attributes": {"km": {"function": "haversine_km", "columns": ["a"]}}}, "haversine_km needs columns"),
            ({"attributes": {"age": {"function": "years_since"}}}, "needs a column"),
            ({"attributes": {"age": {"function": "sqrt", "column": "a"}}}, "attributes.age.function"),
            ({"label": {"column": "y"}}, "exactly one of delay"),
            ({"label": {"column": "y", "delay": "7d", "known_at": "z"}}, "exactly one of delay"),
            ({"label": {"column": "y", "delay": "a week"}}, 'such as "7d"'),
            ({"label": {"column": "y", "delay": 7}}, 'such as "7d"'),
            ({"amount": {"column": "a", "rounding": "euros"}}, "amount.rounding"),
            ({"csv": {"encoding": "utf-16"}}, "utf-16 is not supported"),
            ({"csv": {"encoding": "klingon"}}, "'klingon' is no encoding"),
            ({"csv": {"delimiter": ";;"}}, "csv.delimiter"),
        ],
    )
    def test_what_is_wrong_is_named(self, change, message):
        with pytest.raises(MappingError, match=message) as caught:
            parse_mapping(minimal(**change), shown="my.toml")
        assert "my.toml" in caught.value.message

    def test_every_mistake_is_named_at_once(self):
        with pytest.raises(MappingError, match=r"customer_id is missing.*merchant_id is missing.*amount is missing"):
            parse_mapping({"transaction_id": "a", "event_time": "b"})


class TestAgainstAFile:
    COLUMNS = ("id", "at", "who", "where", "amount", "risk_score")

    @pytest.mark.parametrize(
        ("change", "field", "column", "guess"),
        [
            ({"amount": "amuont"}, "amount", "amuont", "amount"),
            ({"event_time": "At"}, "event_time", "At", "at"),
            ({"attributes": {"risk": "risk_scor"}}, "attributes.risk", "risk_scor", "risk_score"),
            ({"attribute_columns": ["risk_scores"]}, "attribute_columns", "risk_scores", "risk_score"),
            ({"transaction_id": {"template": "{row}-{idd}"}}, "transaction_id", "idd", "id"),
            ({"label": {"column": "amont", "delay": "1d"}}, "label", "amont", "amount"),
            ({"label": {"column": "id", "known_at": "ats"}}, "label.known_at", "ats", "at"),
        ],
    )
    def test_a_column_that_is_not_there_is_named_with_the_closest_one(self, change, field, column, guess):
        with pytest.raises(
            MappingError, match=f"{field}: the file has no column '{column}'.*did you mean '{guess}'"
        ) as e:
            parse_mapping(minimal(**change)).resolve(self.COLUMNS)
        assert "id, at, who, where, amount, risk_score" in e.value.remedy

    def test_a_column_that_is_there_twice_is_named(self):
        with pytest.raises(MappingError, match="more than one column 'at'"):
            parse_mapping(minimal()).resolve([*self.COLUMNS, "at"])

    def test_patterns_make_attributes_named_after_their_columns(self):
        mapping = parse_mapping(minimal(attribute_columns=["V*"], attributes={"v1": "V1"}))
        resolved = mapping.resolve([*self.COLUMNS, "V1", "V2", "V (raw)"])
        assert {name: a.column for name, a in resolved.attributes.items()} == {
            "v1": "V1",
            "v2": "V2",
            "v_raw_": "V (raw)",
        }

    def test_two_columns_for_one_attribute_are_refused(self):
        with pytest.raises(MappingError, match="second attribute 'v_1'"):
            parse_mapping(minimal(attribute_columns=["V*"])).resolve([*self.COLUMNS, "V-1", "V+1"])

    def test_more_than_64_attributes_are_refused(self):
        mapping = parse_mapping(minimal(attribute_columns=["V*"]))
        with pytest.raises(MappingError, match="makes 65 attributes"):
            mapping.resolve([*self.COLUMNS, *(f"V{i}" for i in range(65))])

    def test_a_broken_template_is_named(self):
        with pytest.raises(MappingError, match=r"template 'x-\{'"):
            parse_mapping(minimal(transaction_id={"template": "x-{"})).resolve(self.COLUMNS)


def test_exact_values_win_over_patterns_and_those_over_the_default():
    source = FieldSource(column="c", values={"*": "other", "web": "online", "w*": "pos"}, default="unknown")
    assert [source.translate(v) for v in ("web", "wap", "x")] == ["online", "other", "other"]
    source = FieldSource(column="c", values={"w*": "pos"}, default="unknown")
    assert [source.translate(v) for v in ("wap", "x")] == ["pos", "unknown"]
    assert FieldSource(column="c", values={"w*": "pos"}).translate("atm") == "atm"


def test_a_start_without_a_zone_is_in_the_mappings_zone():
    start = datetime(2024, 1, 1)  # noqa: DTZ001  # as TOML gives it
    source = TimeSource(column="t", format="seconds_since", start=start, zone="Europe/Berlin")
    assert source.start_us == int(datetime(2023, 12, 31, 23, tzinfo=UTC).timestamp() * 1e6)
