"""One JSON object from bytes, strictly: what is not exactly one meaning is refused. Knows no HTTP, no broker, no field but `amount`.

orjson refuses NaN, Infinity, lone surrogates and broken UTF-8. It takes the last of two equal keys, and the nearest double
of a number with too many digits: where a body might hold either, a slower parser looks at it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from decimal import Decimal
from itertools import chain
from typing import Any, Final

import orjson

from fraud_pipeline.errors import MalformedJson, Violation

MAX_DEPTH: Final = 16
"""Ours have three levels."""
_LONG_AMOUNT: Final = re.compile(rb'"amount"\s*:\s*-?(?:[0-9.]{14,}|[0-9.]*[eE])')
"""More digits than an amount needs, perhaps more than a double holds; or an exponent, which may make it too small for one."""
_ESCAPED_LETTER: Final = re.compile(rb"\\u00[67]")

_NESTING: Final = frozenset((dict, list))
NO_OBJECT: Final = (Violation("", "", "must be a JSON object, in UTF-8"),)
"""What is broken where no field can be named."""


def strict_object(body: bytes) -> dict[str, Any]:
    """The object that a body holds. MalformedJson, with the broken fields, for what is not strict JSON, or no object."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as err:
        raise _not_json(body, err) from err
    if not isinstance(value, dict):
        raise _malformed("The body must be a JSON object.")
    keys, depth = _keys_and_depth(value)
    if depth > MAX_DEPTH:
        raise _malformed(f"The body is nested deeper than {MAX_DEPTH} levels.")
    # Every key that was written ends in `":`, unless there is a space before its colon. Texts may hold either: then the
    # closer look is for nothing, and nothing is lost.
    if body.count(b'":') != keys or _has_spaced_colon(body) or _hides_amount(body):
        return _looked_at_closely(body)
    return value


def plain_objects(bodies: Sequence[bytes]) -> list[dict[str, Any]] | None:
    """`strict_object` of each, at a third of its price; None where any of them wants the closer look, or is none."""
    try:
        values = list(map(orjson.loads, bodies))
    except orjson.JSONDecodeError:
        return None
    if values and set(map(type, values)) != {dict}:
        return None
    keys, depth = _keys_and_depth({"": values})
    whole = b"\n".join(bodies)
    if depth - 2 > MAX_DEPTH or whole.count(b'":') != keys - 1 or _has_spaced_colon(whole) or _hides_amount(whole):
        return None
    return values


def _has_spaced_colon(body: bytes) -> bool:
    return b" :" in body or any(space in body and space + b":" in body for space in (b"\n", b"\t", b"\r"))


def _hides_amount(body: bytes) -> bool:
    """Whether an amount may have been rounded, be it under a name that is spelled with escapes."""
    if b"\\u00" in body and _ESCAPED_LETTER.search(body):
        return True
    return _LONG_AMOUNT.search(body) is not None


def _not_json(body: bytes, err: orjson.JSONDecodeError) -> MalformedJson:
    """What is wrong, field by field where a lenient parser can still tell: NaN, Infinity, lone surrogates."""
    broken: list[Violation] = []
    try:
        lenient = json.loads(body, parse_int=_whole)
    except (ValueError, RecursionError):
        lenient = None
    level: list[tuple[str, Any]] = [("", lenient)]
    while level:
        name, value = level.pop()
        if isinstance(value, dict):
            level += [(f"{name}.{key}" if name else key, member) for key, member in value.items()]
        elif isinstance(value, list):
            level += [(f"{name}[{place}]", member) for place, member in enumerate(value)]
        elif isinstance(value, float) and not math.isfinite(value):
            broken.append(_broken(name, value, "must be a finite number"))
        elif isinstance(value, str) and not _is_unicode(value):
            broken.append(_broken(name, value, "must not hold a lone surrogate"))
    return _malformed(
        f"The body is not JSON: {err.msg} at character {err.pos}.", sorted(broken, key=lambda each: each.field)
    )


def _looked_at_closely(body: bytes) -> dict[str, Any]:
    """The same with numbers as they were written, and two equal keys refused."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            reason = "is given twice"
            raise _malformed(f"The key {ascii(twice)[:80]} {reason}.", [_broken(twice, made[twice], reason)])
        return made

    value: dict[str, Any] = json.loads(body, object_pairs_hook=unique, parse_float=Decimal, parse_int=_whole)
    return value


def _keys_and_depth(value: dict[str, Any]) -> tuple[int, int]:
    """How many keys there are in all objects, and how deep they are nested."""
    keys = depth = 0
    level: list[Any] = [value]
    while level:
        depth += 1
        objects = [each for each in level if type(each) is dict]
        keys += sum(map(len, objects))
        members = list(chain.from_iterable(map(dict.values, objects)))
        members += chain.from_iterable(each for each in level if type(each) is list)
        kinds = set(map(type, members))
        level = [each for each in members if type(each) in _NESTING] if kinds & _NESTING else []
    return keys, depth


def _whole(digits: str) -> int | Decimal:
    """Python refuses to make an int of thousands of digits; a decimal is as far out of range."""
    return int(digits) if len(digits) < 1_000 else Decimal(digits)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _broken(name: str, value: object, reason: str) -> Violation:
    return Violation(ascii(name)[1:-1][:80], ascii(value)[:80], reason)


def _malformed(message: str, broken: list[Violation] | None = None) -> MalformedJson:
    return MalformedJson(message, tuple(broken or NO_OBJECT))
