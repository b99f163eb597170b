"""The gate from outside data to a Transaction: every rule of the contract, every broken one named, nothing repaired."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud_pipeline.domain.transaction import (
    CHANNELS,
    Transaction,
    _looked_at_closely,
    _ordinary,
    parse_transaction,
    unknown_fields,
)
from fraud_pipeline.errors import InvalidTransaction, Violation

VALID = {
    "transaction_id": "tx-1",
    "event_time": "2026-03-01T12:30:00.123456+02:00",
    "customer_id": "c1",
    "merchant_id": "m1",
    "amount": 24.36,
}
RECEIVED = datetime(2026, 3, 1, 10, 30, tzinfo=UTC)
HUGE = pytest.param(10**5000, id="too many digits to print")


def parsed(**fields: object) -> Transaction:
    return parse_transaction({**VALID, **fields})


def broken(payload: object = None, /, **fields: object) -> dict[str, str]:
    """Field -> reason of every violation; fails where the payload is accepted."""
    with pytest.raises(InvalidTransaction) as caught:
        parse_transaction({**VALID, **fields} if payload is None else payload)  # type: ignore[arg-type]
    return {violation.field: violation.reason for violation in caught.value.violations}


def test_a_minimal_event_gets_the_documented_defaults() -> None:
    assert parse_transaction(VALID) == Transaction(
        transaction_id="tx-1",
        event_time=datetime(2026, 3, 1, 10, 30, 0, 123456, tzinfo=UTC),
        customer_id="c1",
        merchant_id="m1",
        amount_minor=2436,
        currency="USD",
        merchant_category="unknown",
        channel="unknown",
        country=None,
        device_id=None,
        latitude=None,
        longitude=None,
        attributes={},
    )


def test_a_full_event_is_read_as_it_stands() -> None:
    transaction = parsed(
        currency="USD",
        merchant_category="grocery",
        channel="pos",
        country="BE",
        device_id="d 1",
        latitude=-90,
        longitude=180.0,
        attributes={"ip_risk": 0.25, "v1": -3},
    )
    assert (transaction.merchant_category, transaction.channel, transaction.country) == ("grocery", "pos", "BE")
    assert (transaction.device_id, transaction.latitude, transaction.longitude) == ("d 1", -90.0, 180.0)
    assert transaction.attributes == {"ip_risk": 0.25, "v1": -3.0}
    assert transaction.event_time.tzinfo is UTC


def test_null_stands_for_an_absent_optional_field() -> None:
    absent = dict.fromkeys(
        ["currency", "merchant_category", "channel", "country", "device_id", "latitude", "longitude", "attributes"]
    )
    assert parsed(**absent) == parsed()


@pytest.mark.parametrize("name", ["transaction_id", "event_time", "customer_id", "merchant_id", "amount"])
def test_a_required_field_may_be_neither_absent_nor_null(name: str) -> None:
    assert broken({k: v for k, v in VALID.items() if k != name}) == {name: "is required"}
    assert broken({**VALID, name: None}) == {name: "must not be null"}


def test_an_empty_event_names_every_required_field() -> None:
    assert set(broken({})) == {"transaction_id", "event_time", "customer_id", "merchant_id", "amount"}


def test_every_broken_rule_is_named_at_once() -> None:
    everything_wrong = {
        "transaction_id": "no spaces please",
        "event_time": "2026-03-01 12:30",
        "customer_id": "",
        "merchant_id": 7,
        "amount": "12,50",
        "currency": "EUR",
        "merchant_category": "x" * 33,
        "channel": "POS",
        "country": "be",
        "device_id": "\x00",
        "latitude": 90.5,
        "longitude": -180.5,
        "attributes": {"Good": 1, "bad": "1"},
    }
    reasons = broken(everything_wrong)
    assert set(reasons) == set(everything_wrong) - {"attributes"} | {"attributes.Good", "attributes.bad"}
    assert reasons["channel"] == f"must be one of {', '.join(CHANNELS)}"


@pytest.mark.parametrize("good", ["a", "A.b_c:d-9", "x" * 64])
def test_transaction_ids_of_the_allowed_alphabet(good: str) -> None:
    assert parsed(transaction_id=good).transaction_id == good


@pytest.mark.parametrize("bad", ["", "x" * 65, "a b", "a/b", "ä", "a\n", "٣", 5, ["a"], b"a"])
def test_other_transaction_ids_are_refused(bad: object) -> None:
    assert set(broken(transaction_id=bad)) == {"transaction_id"}


@pytest.mark.parametrize("field", ["customer_id", "merchant_id", "device_id"])
@pytest.mark.parametrize("bad", ["", "x" * 65, "a\tb", "a\n", "\x7f", "\ud800", 5, 1.5, True, {}])
def test_ids_are_1_to_64_printable_characters(field: str, bad: object) -> None:
    assert set(broken(**{field: bad})) == {field}


@pytest.mark.parametrize("good", ["x" * 64, "Ünïcode 顧客", "O'Neil; DROP TABLE", "🙂"])
def test_ids_may_be_any_printable_text(good: str) -> None:
    assert parsed(customer_id=good).customer_id == good


@pytest.mark.parametrize(
    ("amount", "minor"),
    [
        (0, 0),
        (0.0, 0),
        (0.01, 1),
        (24.36, 2436),
        (1.1, 110),
        (0.29, 29),
        (1234567.89, 123456789),
        (10_000_000, 1_000_000_000),
        ("10000000.00", 1_000_000_000),
        ("0.10", 10),
        ("5.000", 500),
        (Decimal("19.99"), 1999),
        (np.float64(1.25), 125),
    ],
)
def test_amounts_are_held_in_exact_minor_units(amount: object, minor: int) -> None:
    held = parsed(amount=amount).amount_minor
    assert held == minor
    assert type(held) is int


@pytest.mark.parametrize(
    "amount",
    [
        -0.01,
        -1,
        "-5",
        10_000_000.01,
        "10000000.01",
        1e300,
        HUGE,
        0.001,
        "1.005",
        1e-7,
        math.nan,
        math.inf,
        -math.inf,
        "",
        "NaN",
        "1e3",
        "+1",
        " 1",
        "1_000",
        "0x10",
        "١",
        True,
        [],
        {"value": 1},
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("Infinity"),
        Decimal("1e999999"),
        Decimal("1.0000000000000000000000000000001"),
    ],
)
def test_amounts_that_would_need_a_guess_are_refused(amount: object) -> None:
    assert set(broken(amount=amount)) == {"amount"}


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-03-01T12:30:00Z", datetime(2026, 3, 1, 12, 30, tzinfo=UTC)),
        ("2026-03-01t12:30:00z", datetime(2026, 3, 1, 12, 30, tzinfo=UTC)),
        ("2026-03-01 12:30:00+05:30", datetime(2026, 3, 1, 7, 0, tzinfo=UTC)),
        ("2026-03-01T00:00:00.5-00:00", datetime(2026, 3, 1, 0, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-03-01T23:59:59.999999Z", datetime(2026, 3, 1, 23, 59, 59, 999_999, tzinfo=UTC)),
        (datetime(2026, 3, 1, 7, tzinfo=timezone(timedelta(hours=7))), datetime(2026, 3, 1, tzinfo=UTC)),
    ],
)
def test_event_times_are_read_in_any_zone_and_held_in_utc(text: object, moment: datetime) -> None:
    assert parsed(event_time=text).event_time == moment


@pytest.mark.parametrize(
    "bad",
    [
        "2026-03-01T12:30:00",
        "2026-03-01",
        "2026-02-30T00:00:00Z",
        "2026-03-01T12:30:60Z",
        "2026-03-01T12:30:00+25:00",
        "20260301T123000Z",
        "2026-W09-7T12:30:00Z",
        "2026-03-01T12:30:00,5Z",
        "2026-03-01T12:30:00Z ",
        "9999-12-31T23:59:59-10:00",
        "0001-01-01T00:00:00+10:00",
        "1969-12-31T23:59:59Z",
        1_772_000_000,
        datetime(2026, 3, 1),  # noqa: DTZ001 - a naive time is the point
        "",
    ],
)
def test_event_times_without_a_zone_or_out_of_range_are_refused(bad: object) -> None:
    assert set(broken(event_time=bad)) == {"event_time"}


@pytest.mark.parametrize(
    ("ahead", "accepted"),
    [
        (timedelta(minutes=5), True),
        (timedelta(minutes=5, microseconds=1), False),
        (timedelta(days=-90), True),
        (timedelta(days=-90, microseconds=-1), False),
    ],
)
def test_on_live_routes_an_event_lies_within_5_minutes_ahead_and_90_days_back(ahead: timedelta, accepted: bool) -> None:
    payload = {**VALID, "event_time": (RECEIVED + ahead).isoformat()}
    assert parse_transaction(payload).event_time == RECEIVED + ahead  # a history has no receipt
    if accepted:
        assert parse_transaction(payload, received_at=RECEIVED).event_time == RECEIVED + ahead
    else:
        with pytest.raises(InvalidTransaction, match="event_time"):
            parse_transaction(payload, received_at=RECEIVED)


def test_only_the_home_currency_is_accepted_since_sums_never_mix() -> None:
    payload = {**VALID, "currency": "EUR"}
    assert parse_transaction(payload, currency="EUR").currency == "EUR"
    assert parse_transaction(VALID, currency="EUR").currency == "EUR"
    assert broken(currency="EUR") == {"currency": "must be USD"}
    assert set(broken(currency="usd")) == set(broken(currency="XXY")) == set(broken(currency=840)) == {"currency"}


@pytest.mark.parametrize("channel", CHANNELS)
def test_the_five_channels(channel: str) -> None:
    assert parsed(channel=channel).channel == channel


@pytest.mark.parametrize("bad", ["", "web", "Online", 1, ["pos"]])
def test_other_channels_are_refused(bad: object) -> None:
    assert set(broken(channel=bad)) == {"channel"}


@pytest.mark.parametrize("bad", ["", "UK", "usa", "XX", "us", 1, ["US"]])
def test_countries_are_iso_3166_alpha_2(bad: object) -> None:
    assert parsed(country="GB").country == "GB"
    assert set(broken(country=bad)) == {"country"}


def test_categories_are_free_text_of_32_characters() -> None:
    assert parsed(merchant_category="misc. food & drink").merchant_category == "misc. food & drink"
    assert set(broken(merchant_category="x" * 33)) == set(broken(merchant_category="")) == {"merchant_category"}


def test_coordinates_come_in_pairs() -> None:
    assert broken(latitude=1.0) == {"longitude": "is required where latitude is given"}
    assert broken(longitude=1.0, latitude=None) == {"latitude": "is required where longitude is given"}


@pytest.mark.parametrize("bad", [90.000001, -91, math.nan, math.inf, "1", True, [], Decimal("sNaN"), HUGE])
def test_coordinates_are_finite_degrees(bad: object) -> None:
    assert set(broken(latitude=bad, longitude=0)) == {"latitude"}


def test_at_most_64_attributes() -> None:
    full = {f"v{i}": i for i in range(64)}
    assert len(parsed(attributes=full).attributes) == 64
    assert set(broken(attributes={**full, "v64": 1})) == {"attributes"}


@pytest.mark.parametrize("bad", [math.nan, math.inf, "1", None, True, [1], 10**400, HUGE, Decimal("sNaN")])
def test_attributes_are_finite_numbers(bad: object) -> None:
    assert set(broken(attributes={"a": bad})) == {"attributes.a"}


@pytest.mark.parametrize("name", ["", "A", "a-b", "a.b", "x" * 41, "é", 1])
def test_attribute_names_are_lower_case_words(name: object) -> None:
    assert len(broken(attributes={name: 1.0})) == 1


@pytest.mark.parametrize("bad", [[], "a=1", 5, [["a", 1]]])
def test_attributes_are_an_object(bad: object) -> None:
    assert set(broken(attributes=bad)) == {"attributes"}


def test_unknown_fields_are_ignored_and_can_be_counted() -> None:
    payload = {**VALID, "note": "x", "amount_minor": 1, "is_fraud": True}
    assert parse_transaction(payload) == parse_transaction(VALID)
    assert unknown_fields(payload) == ("note", "amount_minor", "is_fraud")


def test_a_long_bad_value_is_shown_shortened_and_escaped() -> None:
    with pytest.raises(InvalidTransaction) as caught:
        parsed(customer_id="\n" * 1_000_000)
    (violation,) = caught.value.violations
    assert len(violation.value) <= 80
    assert "\n" not in str(caught.value)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=70)
    | st.sampled_from(list(VALID.values())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=45), inner, max_size=4),
    max_leaves=8,
)
FIELDS = [*VALID, "currency", "merchant_category", "channel", "country", "device_id"]
FIELDS += ["latitude", "longitude", "attributes", "surplus"]


@pytest.mark.parametrize("field", ["transaction_id", "event_time", "country", "amount", "attributes", "latitude"])
@pytest.mark.parametrize("size", ["an integer of 5,001 digits", "a list nested 5,000 deep"])
def test_a_value_too_large_to_print_is_still_named(field: str, size: str) -> None:
    value: object = 10**5000
    if size.startswith("a list"):
        value = []
        for _ in range(5_000):
            value = [value]
    with pytest.raises(InvalidTransaction) as caught:
        parse_transaction({**VALID, field: value})
    assert field in {v.field for v in caught.value.violations}


@settings(max_examples=300, deadline=None)
@given(changes=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5), live=st.booleans())
def test_whatever_comes_in_is_a_transaction_or_named_violations(changes: dict, live: bool) -> None:
    transaction: Transaction | None = None
    violations: tuple[Violation, ...] = ()
    try:
        transaction = parse_transaction({**VALID, **changes}, received_at=RECEIVED if live else None)
    except InvalidTransaction as error:
        violations = error.violations
    if transaction is None:
        assert violations
        assert {v.field.split(".")[0] for v in violations} <= set(changes) | {"latitude", "longitude"}
        assert all(v.reason and len(v.value) <= 80 for v in violations)
    else:
        assert 0 <= transaction.amount_minor <= 1_000_000_000
        assert (transaction.latitude is None) == (transaction.longitude is None)
        assert all(math.isfinite(v) for v in transaction.attributes.values())


ODD = st.sampled_from(
    ["", " ", "unknown", "pos", "USD", "EUR", "US", "us", "ZZ", "a" * 32, "a" * 33, "x" * 64, "x" * 65, "\n", "\ud800", "ß",
     "2026-01-31T12:00:00Z", "1970-06-01T00:00:00Z", "1969-12-31T23:59:59Z", "2198-12-31T23:59:59Z", "2199-06-01T00:00:00+14:00",
     "2026-01-31t12:00:00+05:30", "2026-01-31T12:00:00", 0, -0.0, 0.0, 24.36, 24.361, 1e7, 10_000_000, 10_000_000.01, 1e-7, True,
     False, math.nan, math.inf, -90.0, 90.0, 180.0, 180.1, [], {}, {"a": 1}, {"a": math.nan}, Decimal("24.36")]
)  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(changes=st.dictionaries(st.sampled_from(FIELDS), ODD | JSON, max_size=4), live=st.booleans())
def test_an_ordinary_payment_is_what_a_closer_look_makes_of_it(changes: dict, live: bool) -> None:
    payload, received_at = {**VALID, **changes}, RECEIVED if live else None
    ordinary = _ordinary(payload, "USD", received_at)
    if ordinary is not None:
        assert ordinary == _looked_at_closely(payload, "USD", received_at)


def test_what_a_gateway_sends_is_ordinary() -> None:
    assert _ordinary(VALID, "USD", None) is not None


@settings(max_examples=200, deadline=None)
@given(minor=st.integers(0, 1_000_000_000), as_text=st.booleans())
def test_every_amount_survives_json(minor: int, as_text: bool) -> None:
    amount = f"{minor // 100}.{minor % 100:02d}" if as_text else minor / 100
    payload = json.loads(json.dumps({**VALID, "amount": amount}))
    assert parse_transaction(payload).amount_minor == minor


@settings(max_examples=200, deadline=None)
@given(
    moment=st.datetimes(datetime(1971, 1, 1), datetime(2199, 1, 1)),  # noqa: DTZ001 - hypothesis wants naive bounds
    offset=st.integers(-23 * 60, 23 * 60),
)
def test_every_rfc_3339_time_keeps_its_instant(moment: datetime, offset: int) -> None:
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=offset)))
    assert parsed(event_time=aware.isoformat(sep="T")).event_time == aware
