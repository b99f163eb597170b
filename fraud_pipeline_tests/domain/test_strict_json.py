"""What counts as one JSON object, and what the error says of what does not."""

from __future__ import annotations

from decimal import Decimal

import pytest

from fraud_pipeline.domain.strict_json import strict_object
from fraud_pipeline.errors import MalformedJson, Violation


def test_an_object_is_read_as_it_stands() -> None:
    assert strict_object(b'{"a": [1, 2.5, null, true], "b": {"c": "\\u00e9"}}') == {
        "a": [1, 2.5, None, True],
        "b": {"c": "é"},
    }


def test_spaces_before_colons_and_colons_in_texts_lose_nothing() -> None:
    assert strict_object(b'{"a" : "x\\":y", "b":1}') == {"a": 'x":y', "b": 1}


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        (b'{"a": {"b": NaN}}', "a.b", "must be a finite number"),
        (b'{"a": [1, -Infinity]}', "a[1]", "must be a finite number"),
        (b'{"a": "\\ud800"}', "a", "must not hold a lone surrogate"),
        (b'{"a": 1, "a": 2}', "a", "is given twice"),
        (b'{"a": 1, "a" : 2}', "a", "is given twice"),
        (b'{"a": 1, "a"\n: 2}', "a", "is given twice"),
        (b'{"a" : 1, "a"\t: 2, "b": "\\":"}', "a", "is given twice"),
        (b'{"a": [{"b": 1, "b": 1}]}', "b", "is given twice"),
        (b'{"a": {"\\u0062": 1, "b": 1}}', "b", "is given twice"),
        (b"[1]", "", "must be a JSON object, in UTF-8"),
        (b"", "", "must be a JSON object, in UTF-8"),
        (b'{"a": "\xff"}', "", "must be a JSON object, in UTF-8"),
        (b'{"a":' * 17 + b"1" + b"}" * 17, "", "must be a JSON object, in UTF-8"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "", "must be a JSON object, in UTF-8"),
    ],
)
def test_what_is_not_one_strict_object_names_what_is_broken(body: bytes, field: str, reason: str) -> None:
    with pytest.raises(MalformedJson) as caught:
        strict_object(body)
    assert [(each.field, each.reason) for each in caught.value.violations] == [(field, reason)]


def test_every_broken_field_is_named() -> None:
    with pytest.raises(MalformedJson, match="The body is not JSON") as caught:
        strict_object(b'{"b": NaN, "a": Infinity}')
    assert caught.value.violations == (
        Violation("a", "inf", "must be a finite number"),
        Violation("b", "nan", "must be a finite number"),
    )


def test_a_long_amount_is_kept_as_it_was_written() -> None:
    assert strict_object(b'{"amount": 10.010000000000000001}')["amount"] == Decimal("10.010000000000000001")
    assert strict_object(b'{"amount": 1e-400}')["amount"] == Decimal("1e-400")


def test_the_name_of_an_amount_may_be_spelled_with_escapes() -> None:
    (amount,) = strict_object(b'{"\\u0061mount": 10.010000000000000001}').values()
    assert amount == Decimal("10.010000000000000001")
