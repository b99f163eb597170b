"""Request bodies: read within their limit, unpacked, and parsed strictly. Knows HTTP, and no field."""

from __future__ import annotations

import zlib
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request

from fraud_pipeline.domain.strict_json import NO_OBJECT, strict_object
from fraud_pipeline.errors import MalformedJson, Violation
from serving.problems import URN, Problem

JSON_TYPE: Final = "application/json"


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
        return strict_object(body)
    except MalformedJson as err:
        raise _malformed(err.message, err.violations) from err


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


def _malformed(detail: str, broken: tuple[Violation, ...] = NO_OBJECT) -> Problem:
    errors = [{"field": each.field, "value": each.value, "reason": each.reason} for each in broken]
    return Problem(422, detail=detail, type=URN + "malformed-body", extra={"errors": errors})


def _too_large(max_bytes: int) -> Problem:
    return Problem(
        413, detail=f"The body is larger than {max_bytes:,} bytes (FRAUD_MAX_BODY_BYTES).", type=URN + "body-too-large"
    )
