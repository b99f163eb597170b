"""The OpenAPI document says what `parse_transaction` does, and its examples are what it says they are."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fraud_pipeline.domain.label import parse_label
from fraud_pipeline.domain.transaction import parse_transaction
from fraud_pipeline.errors import InvalidTransaction
from serving.openapi import PROBLEMS, openapi_document
from serving.routes import ROUTES

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OLD_CHARACTERS = 0x1C80
"""Below, every version of Unicode in use agrees on what is assigned."""
DOCUMENT = openapi_document(now=NOW)
VALID: dict[str, Any] = {
    "transaction_id": "T1",
    "event_time": "2026-03-01T12:00:00Z",
    "customer_id": "C1",
    "merchant_id": "M1",
    "amount": 12.34,
}


def validator(schema: dict[str, Any]) -> Any:
    return jsonschema_rs.validator_for({**schema, "components": DOCUMENT["components"]})


TRANSACTION = validator({"$ref": "#/components/schemas/Transaction"})
LABEL = validator({"$ref": "#/components/schemas/Label"})


def accepted(payload: dict[str, Any]) -> bool:
    try:
        parse_transaction(payload, received_at=NOW)
    except InvalidTransaction:
        return False
    return True


def operations() -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
    }


JUNK: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.just("") | st.just([]) | st.just({}) | st.just(10**30) | st.just("x" * 65)
)
TEXT = st.text(max_size=70) | st.text(st.characters(categories=["L", "Zs", "Cf", "Cc", "P", "S", "M"]), max_size=66)
AMOUNT_TEXT = st.from_regex(r"\A-?[0-9]{1,15}(\.[0-9]{0,13})?\Z") | st.from_regex(
    r"\A-?0{1,14}[0-9]{0,3}(\.[0-9]0{0,12})?\Z"
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "transaction_id": st.text(max_size=70) | st.from_regex(r"\A[A-Za-z0-9._:-]{0,66}\Z"),
    "customer_id": TEXT,
    "merchant_id": TEXT,
    "amount": st.integers(-5, 10_000_005) | st.integers(-1, 1_000_000_001).map(lambda n: n / 100) | AMOUNT_TEXT
    | st.sampled_from([12.345, -0.01, 10_000_000, 10_000_000.01, "10000000.00", "010000000", "1e3", "-0.00", "+1", 1e-7]),
    "currency": st.sampled_from(["USD", "EUR", "usd", "XXX"]),
    "merchant_category": TEXT,
    "channel": st.sampled_from(["pos", "online", "atm", "transfer", "unknown", "POS", "fax"]),
    "country": st.sampled_from(["US", "de", "XX", "USA", "GB"]),
    "device_id": TEXT,
    "latitude": st.floats(-100, 100) | st.sampled_from([90, -90, 91]),
    "longitude": st.floats(-200, 200) | st.sampled_from([180, -180, 181]),
    "attributes": st.dictionaries(
        st.from_regex(r"\A[a-z0-9_]{0,41}\Z") | st.text(max_size=5),
        st.floats(allow_nan=False, allow_infinity=False) | st.integers() | JUNK,
        max_size=4,
    ),
    "unknown": JUNK,
}  # fmt: skip
PAYLOADS = st.fixed_dictionaries(
    {}, optional={name: values | JUNK if name in VALID else values | st.none() for name, values in VALUES.items()}
)


@settings(max_examples=700, deadline=None)
@given(changes=PAYLOADS, missing=st.sets(st.sampled_from(sorted(VALID)), max_size=1), keep=st.booleans())
def test_the_schema_accepts_what_the_parser_accepts(changes: dict[str, Any], missing: set[str], keep: bool) -> None:
    payload = {**VALID, **changes} if keep else {**VALID, **dict(list(changes.items())[:1])}
    payload = {name: value for name, value in payload.items() if name not in missing or keep}
    payload = json.loads(json.dumps(payload))
    assume(all(ord(c) < OLD_CHARACTERS for c in json.dumps(payload, ensure_ascii=False)))
    assert TRANSACTION.is_valid(payload) == accepted(payload), payload


LABEL_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "transaction_id": VALUES["transaction_id"] | JUNK,
    "is_fraud": st.booleans() | JUNK | st.integers(0, 1),
    "source": st.sampled_from(["chargeback", "analyst", "simulation", "import", "Analyst"]) | JUNK,
    "author": TEXT | JUNK,
    "known_at": JUNK,
}


@settings(max_examples=400, deadline=None)
@given(
    changes=st.fixed_dictionaries({}, optional=LABEL_VALUES),
    missing=st.sampled_from(["", "transaction_id", "is_fraud"]),
)
def test_the_schema_of_a_label_accepts_what_its_parser_accepts(changes: dict[str, Any], missing: str) -> None:
    payload = {
        name: value for name, value in ({"transaction_id": "T1", "is_fraud": True} | changes).items() if name != missing
    }
    payload = json.loads(json.dumps(payload))
    assume(all(ord(c) < OLD_CHARACTERS for c in json.dumps(payload, ensure_ascii=False)))
    try:
        parse_label(payload, known_at=NOW, default_author="key")
        accepts = True
    except InvalidTransaction:
        accepts = False
    assert LABEL.is_valid(payload) == accepts, payload


@pytest.mark.parametrize(("count", "fits"), [(64, True), (65, False)])
def test_attributes_have_a_most(count: int, fits: bool) -> None:
    payload = {**VALID, "attributes": {f"a{n}": n for n in range(count)}}
    assert (TRANSACTION.is_valid(payload), accepted(payload)) == (fits, fits)


@pytest.mark.parametrize(
    "where",
    [{"latitude": 1.0}, {"longitude": 1.0}, {"latitude": 1.0, "longitude": None}, {"latitude": None, "longitude": 2}],
)
def test_one_coordinate_is_refused(where: dict[str, Any]) -> None:
    payload = {**VALID, **where}
    assert (TRANSACTION.is_valid(payload), accepted(payload)) == (False, False)


@pytest.mark.parametrize(
    "where", [{}, {"latitude": None}, {"latitude": None, "longitude": None}, {"latitude": 1, "longitude": 2}]
)
def test_both_coordinates_or_neither_are_accepted(where: dict[str, Any]) -> None:
    payload = {**VALID, **where}
    assert (TRANSACTION.is_valid(payload), accepted(payload)) == (True, True)


def test_every_route_is_described_and_nothing_else() -> None:
    assert set(operations()) == {f"{route.method} {route.path}" for route in ROUTES}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_an_operation_names_its_scope_and_its_refusals(route: Any) -> None:
    operation = operations()[f"{route.method} {route.path}"]
    assert operation["operationId"] == route.name
    assert operation["summary"]
    statuses = set(operation["responses"])
    assert {"405", "503"} <= statuses
    assert statuses & {"200", "202"}
    if route.scope:
        assert f"`{route.scope}`" in operation["description"]
        assert {"401", "403", "429"} <= statuses
        assert {"bearer": []} in operation["security"]
    if route.method == "POST" and "requestBody" in operation:
        assert {"413", "415", "422"} <= statuses


def examples() -> list[Any]:
    found = []
    for label, operation in operations().items():
        contents = {"request": operation.get("requestBody", {}).get("content", {})}
        contents |= {status: response.get("content", {}) for status, response in operation["responses"].items()}
        for where, content in contents.items():
            for media, described in content.items():
                shown = {name: example["value"] for name, example in described.get("examples", {}).items()}
                if media == "application/json":
                    found += [
                        pytest.param(described["schema"], value, id=f"{label} {where} {name}")
                        for name, value in shown.items()
                    ]
    return found


@pytest.mark.parametrize(("schema", "example"), examples())
def test_an_example_is_what_its_schema_says(schema: dict[str, Any], example: Any) -> None:
    assert [error.message for error in validator(schema).iter_errors(example)] == []


def test_the_example_payments_are_accepted_when_they_are_sent() -> None:
    shown = operations()["POST /score"]["requestBody"]["content"]["application/json"]["examples"]
    whole = [example["value"] for example in shown.values() if "amount" in example["value"]]
    assert len(whole) == 2
    assert all(accepted(payment) for payment in whole)
    assert all(payment["event_time"] == NOW.isoformat().replace("+00:00", "Z") for payment in whole)


def test_every_problem_is_described_with_its_type_and_wait() -> None:
    for status in PROBLEMS:
        response = DOCUMENT["components"]["responses"][f"Problem{status}"]
        assert list(response["content"]) == ["application/problem+json"]
        assert ("Retry-After" in response.get("headers", {})) == (status in (429, 503))
        for example in response["content"]["application/problem+json"]["examples"].values():
            assert example["value"]["status"] == status


def test_the_document_is_json() -> None:
    assert json.loads(json.dumps(DOCUMENT, allow_nan=False)) == DOCUMENT
