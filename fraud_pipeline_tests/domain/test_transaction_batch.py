"""Many payments at once are read as one by one: the same transactions, the same violations, the same unknown fields."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud_pipeline.domain import transaction_batch
from fraud_pipeline.domain.transaction import Transaction, parse_transaction, unknown_fields
from fraud_pipeline.domain.transaction_batch import PIECE, parse_transactions
from fraud_pipeline.errors import InvalidTransaction, Violation
from fraud_pipeline_tests.domain.test_transaction import FIELDS, JSON, ODD, RECEIVED, VALID

FULL: dict[str, Any] = {
    **VALID,
    "currency": "USD",
    "merchant_category": "travel",
    "channel": "online",
    "country": "DE",
    "device_id": "d 1",
    "latitude": 52.5,
    "longitude": -13.4,
    "attributes": {"ip_risk": 0.5, "avs": 1},
}
MISSING = object()
VALUES = ODD | JSON | st.sampled_from([MISSING, None, 10**400, {"x" * 41: 1}, {"a": True}, {"a": "1"}, {"a": 10**400}])
CHANGES = st.dictionaries(st.sampled_from([*FIELDS, "amount", "customer_id"]), VALUES, max_size=3)


def one_by_one(payloads: list[Any], **options: Any) -> list[Transaction | tuple[Violation, ...]]:
    found: list[Transaction | tuple[Violation, ...]] = []
    for payload in payloads:
        try:
            if not isinstance(payload, Mapping):
                raise InvalidTransaction((Violation("", ascii(payload)[:80], "must be an object"),))
            found.append(parse_transaction(payload, **options))
        except InvalidTransaction as err:
            found.append(err.violations)
    return found


def at_once(payloads: list[Any], **options: Any) -> list[Transaction | tuple[Violation, ...]]:
    items = parse_transactions(payloads, **options).items
    return [item if isinstance(item, Transaction) else item.violations for item in items]


def changed(changes: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**base, **changes}.items() if value is not MISSING}


@settings(max_examples=600, deadline=None)
@given(
    many=st.lists(st.tuples(CHANGES, st.sampled_from([VALID, FULL])), min_size=1, max_size=4),
    live=st.booleans(),
    currency=st.sampled_from(["USD", "EUR"]),
)
def test_many_are_read_as_one_by_one(many: list[tuple[dict, dict]], live: bool, currency: str) -> None:
    payloads: list[Any] = [changed(*each) for each in many]
    options: dict[str, Any] = {"currency": currency, "received_at": RECEIVED if live else None}
    assert repr(at_once(payloads, **options)) == repr(one_by_one(payloads, **options))
    parsed = parse_transactions(payloads, **options)
    assert parsed.unknown_fields == sum(len(unknown_fields(payload)) for payload in payloads)


@settings(max_examples=600, deadline=None)
@given(changes=CHANGES, base=st.sampled_from([VALID, FULL]), live=st.booleans())
def test_what_the_columns_let_through_is_what_a_closer_look_makes_of_it(changes: dict, base: dict, live: bool) -> None:
    payload, received_at = changed(changes, base), RECEIVED if live else None
    found = transaction_batch._plain([payload, FULL], "USD", received_at)
    if found is not None:
        assert repr(found[0]) == repr([parse_transaction(each, received_at=received_at) for each in (payload, FULL)])
        assert found[1] == len(unknown_fields(payload))


@pytest.mark.parametrize("payload", [VALID, FULL, {**VALID, "country": None}, {**FULL, "surplus": 1, "more": None}])
def test_what_a_gateway_sends_needs_no_closer_look(payload: dict[str, Any]) -> None:
    assert transaction_batch._plain([payload, VALID], "USD", RECEIVED) is not None


def test_one_bad_item_spoils_no_other() -> None:
    good = [{**FULL, "transaction_id": f"t-{number}"} for number in range(2 * PIECE + 5)]
    bad: list[Any] = [None, 5, "x", [], {}, {**VALID, "amount": math.nan}, {**VALID, "amount": Decimal("1.001")}]
    mixed = [*good[:10], *bad, *good[10:]]
    parsed = parse_transactions(mixed, received_at=RECEIVED)
    assert at_once(mixed, received_at=RECEIVED) == one_by_one(mixed, received_at=RECEIVED)
    assert [item for item in parsed.items if isinstance(item, Transaction)] == one_by_one(good, received_at=RECEIVED)
    assert sum(isinstance(item, InvalidTransaction) for item in parsed.items) == len(bad)


def test_no_two_payments_share_their_attributes() -> None:
    one, other = parse_transactions([VALID, VALID]).items
    assert isinstance(one, Transaction)
    assert isinstance(other, Transaction)
    assert one.attributes == other.attributes == {}
    assert one.attributes is not other.attributes


def test_none_at_all() -> None:
    assert parse_transactions([]).items == []
