"""What the service must do with a body, told without the service's own parser.

Python's `json` and the published schema decide, and three rules that a schema cannot say: no name twice in an object, no
number beyond all floats, and how far from now an event may be.
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation, localcontext
from typing import Any, Literal

import jsonschema_rs

from serving.openapi import openapi_document

Expected = Literal["accept", "refuse", "either", "reference"]
"""`either`: too close to a limit in time or depth to say; `reference`: an id alone, 200 or 404."""

DOCUMENT = openapi_document()
MAX_DEPTH = 16
"""Levels of lists and objects, as the document says."""
MOST_DIGITS = 27
"""Amounts written with more may be refused whatever they come to."""
CLOSE = timedelta(seconds=60)
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _validator(name: str) -> Any:
    return jsonschema_rs.validator_for({"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]})


_TRANSACTION = _validator("Transaction")
_REFERENCE = _validator("TransactionReference")


def expected_of(body: bytes, now: datetime) -> Expected:
    """What must become of a JSON body that is sent to `POST /score` as it should be."""
    try:
        payload = json.loads(body.decode(), object_pairs_hook=_object, parse_float=_decimal, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return "refuse"
    return expected_of_value(payload, now)


def expected_of_value(payload: Any, now: datetime) -> Expected:
    """The same of a value that JSON held."""
    if depth(payload) > MAX_DEPTH or not isinstance(payload, dict):
        return "refuse"
    amount = payload.get("amount")
    if isinstance(amount, Decimal) and amount and (abs(amount.adjusted()) > MOST_DIGITS or _broken_cents(amount)):
        return "refuse"  # before it is made a float, which may be a nicer number
    readable = _readable(payload)
    if not _TRANSACTION.is_valid(readable):
        return "reference" if _REFERENCE.is_valid(readable) else "refuse"
    judged = _judge_time(payload["event_time"], now)
    if isinstance(amount, float):
        return "either"  # 0 times ten to a power that no decimal holds
    odd = "\ue000" in json.dumps(readable, ensure_ascii=False)  # a surrogate in a field that the contract does not know
    long = isinstance(amount, Decimal) and (
        len(amount.as_tuple().digits) > MOST_DIGITS or abs(amount.adjusted()) > MOST_DIGITS
    )
    return "either" if judged == "accept" and (odd or long) else judged


def depth(value: Any) -> int:
    """How deep lists and objects are nested in each other; a scalar is 0."""
    deepest, level = 0, [value]
    while any(isinstance(item, list | dict) for item in level):
        deepest += 1
        level = [
            member
            for item in level
            if isinstance(item, list | dict)
            for member in (item.values() if isinstance(item, dict) else item)
        ]
    return deepest


def _broken_cents(amount: Decimal) -> bool:
    with localcontext(prec=10_000):
        return amount * 100 != (amount * 100).to_integral_value()


def _judge_time(text: str, now: datetime) -> Expected:
    if not _TIME.fullmatch(text):
        return "refuse"
    try:
        moment = datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        return "refuse"
    ahead = moment - now
    if abs(ahead - timedelta(minutes=5)) < CLOSE or abs(ahead + timedelta(days=90)) < CLOSE:
        return "either"
    return "accept" if timedelta(days=-90) < ahead < timedelta(minutes=5) else "refuse"


class _Twice(ValueError):
    """A name that an object has twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise _Twice("a name stands twice in an object")
    return dict(pairs)


def _decimal(text: str) -> Decimal | float:
    """As it was written, where a decimal can hold it."""
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent of twenty digits: infinity, or nothing
        return float(text)


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _readable(value: Any) -> Any:
    """What a schema validator can take, and as wrong as before: infinity (1e309) and lone surrogates become other things
    that no field allows."""
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return {"infinite": True}
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ue000", value)
    if isinstance(value, dict):
        return {_readable(name): _readable(member) for name, member in value.items()}
    return [_readable(member) for member in value] if isinstance(value, list) else value
