"""Responses that are successes."""

from __future__ import annotations

from typing import Any, Final

import orjson
from starlette.responses import Response

JSON: Final = "application/json"


def json_response(value: Any, *, status: int = 200) -> Response:
    """A JSON answer; numpy's numbers and NaN (as null) included."""
    return Response(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), status_code=status, media_type=JSON)


def json_bytes(content: bytes) -> Response:
    """An answer that is JSON already."""
    return Response(content, media_type=JSON)
