"""Request bodies: read within their limit, unpacked, and parsed strictly. Knows JSON and HTTP, and no field but `amount`.

orjson refuses NaN, Infinity, lone surrogates and broken UTF-8. It takes the last of two equal keys, and the nearest double
of a number with too many digits: where a body might hold either, a slower parser looks at it.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from decimal import Decimal
from typing import Any, Final

import orjson
from starlette.requests import ClientDisconnect, Request

from serving.problems import URN, Problem

JSON_TYPE: Final = "application/json"
MAX_DEPTH: Final = 16
"""Ours have three levels."""
_LONG_AMOUNT: Final = re.compile(rb'"amount"\s*:\s*-?(?:[0-9.]{14,}|[0-9.]*[eE])')
"""More digits than an amount needs, perhaps more than a double holds; or an exponent, which may make it too small for one."""


async def json_object(request: Request, *, max_bytes: int) -> dict[str, Any]:
    """The body as an object. Problem 413, 415 or 422 where it is not one."""
    _check_type(request)
    body = await _read(request, max_bytes)
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding == "gzip":
        body = _unpacked(body, max_bytes)
    elif encoding != "identity":
        raise Problem(
            415,
            detail=f"Content-Encoding is {encoding[:40]}; it must be gzip or none.",
            headers={"Accept-Encoding": "gzip"},
        )
    return parsed(body)


def parsed(body: bytes) -> dict[str, Any]:
    """The object that a body holds. Problem 422 for what is not strict JSON, or no object."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as err:
        raise _not_json(body, err) from err
    if not isinstance(value, dict):
        raise _malformed("The body must be a JSON object.")
    keys, depth = _keys_and_depth(value)
    if depth > MAX_DEPTH:
        raise _malformed(f"The body is nested deeper than {MAX_DEPTH} levels.")
    # A key ends in `":`; where it is not so, or a text holds the like, the counts differ for no reason, and nothing is lost.
    if body.count(b'":') != keys or _LONG_AMOUNT.search(body):
        return _looked_at_closely(body)
    return value


def _not_json(body: bytes, err: orjson.JSONDecodeError) -> Problem:
    """What is wrong, field by field where a lenient parser can still tell: NaN, Infinity, lone surrogates."""
    broken: list[dict[str, str]] = []
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
        f"The body is not JSON: {err.msg} at character {err.pos}.", sorted(broken, key=lambda b: b["field"])
    )


def _broken(name: str, value: object, reason: str) -> dict[str, str]:
    return {"field": ascii(name)[1:-1][:80], "value": ascii(value)[:80], "reason": reason}


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_type(request: Request) -> None:
    given = request.headers.get("content-type", "")
    kind, _, parameters = given.partition(";")
    charset = parameters.lower().replace(" ", "").replace('"', "")
    if kind.strip().lower() != JSON_TYPE or (charset and charset != "charset=utf-8"):
        raise Problem(
            415, detail=f"Content-Type is {given[:80] or 'missing'}; it must be application/json (in UTF-8).",
            headers={"Accept": JSON_TYPE},
        )  # fmt: skip


async def _read(request: Request, max_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > max_bytes:
                raise _too_large(max_bytes)
            chunks.append(chunk)
    except ClientDisconnect as err:
        raise _malformed("The body ended early.") from err
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _unpacked(body: bytes, max_bytes: int) -> bytes:
    """Unpacked no further than the limit: a small body may hold terabytes."""
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        plain = unpacker.decompress(body, max_bytes + 1)
    except zlib.error as err:
        raise _malformed(f"The body is not gzip: {err}.") from err
    if len(plain) > max_bytes:
        raise _too_large(max_bytes)
    if not unpacker.eof or unpacker.unused_data:
        raise _malformed("The gzip body is cut off, or something follows it.")
    return plain


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


def _whole(digits: str) -> int | Decimal:
    """Python refuses to make an int of thousands of digits; a decimal is as far out of range."""
    return int(digits) if len(digits) < 1_000 else Decimal(digits)


def _keys_and_depth(value: dict[str, Any]) -> tuple[int, int]:
    """How many keys there are in all objects, and how deep they are nested."""
    keys = depth = 0
    level: list[Any] = [value]
    while level:
        depth += 1
        inner: list[Any] = []
        for each in level:
            if type(each) is dict:
                keys += len(each)
                members: Any = each.values()
            else:
                members = each
            inner += [member for member in members if type(member) is dict or type(member) is list]
        level = inner
    return keys, depth


def _malformed(detail: str, broken: list[dict[str, str]] | None = None) -> Problem:
    errors = broken or [{"field": "", "value": "", "reason": "must be a JSON object, in UTF-8"}]
    return Problem(422, detail=detail, type=URN + "malformed-body", extra={"errors": errors})


def _too_large(max_bytes: int) -> Problem:
    return Problem(
        413, detail=f"The body is larger than {max_bytes:,} bytes (FRAUD_MAX_BODY_BYTES).", type=URN + "body-too-large"
    )
