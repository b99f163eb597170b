"""One HTTP POST within one deadline: no redirect is followed, no proxy is used, and little of the answer is read.

A receiver that hangs, or sends a byte a second, costs the deadline and no more.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import SplitResult, urlsplit

from fraud_pipeline.adapters.notices.channel import SEND_TIMEOUT_S, NotDelivered, Refused
from fraud_pipeline.adapters.notices.deadline import Deadline

_READ: Final = 600
"""Bytes of an answer that are read: as much as an error says."""
_TOO_MANY: Final = 429
_TRY_LATER: Final = (408, 425, _TOO_MANY)
"""What a receiver says for a time, of the 4xx."""
_AGENT: Final = "fraud-pipeline"


def post(url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float = SEND_TIMEOUT_S) -> None:
    """POST it. NotDelivered where it may work later (no answer, 408, 425, 429, 5xx), Refused for another answer than 2xx."""
    status, retry_after, said = _exchange(url, body, headers, timeout_s)
    if 200 <= status < 300:
        return
    answer = f"HTTP {status}{f': {said}' if said else ''}"
    if status in _TRY_LATER or status >= 500:
        raise NotDelivered(answer, retry_after=_wait(retry_after))
    if 300 <= status < 400:
        raise Refused(f"HTTP {status}: it leads elsewhere, and redirects are not followed; set the address itself")
    raise Refused(answer)


def _exchange(url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> tuple[int, str, str]:
    """The status, Retry-After and the beginning of the answer."""
    parts = urlsplit(url)
    connection = _connection(parts, timeout_s)
    with closing(connection), Deadline(timeout_s, lambda: connection.sock) as deadline:
        try:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            sent = {"Content-Type": "application/json", "User-Agent": _AGENT, "Connection": "close", **headers}
            connection.request("POST", target, body, sent)
            response = connection.getresponse()
            said = response.read(_READ).decode("utf-8", "replace")
        except ssl.SSLCertVerificationError as err:
            raise Refused(f"its certificate is not trusted: {err.verify_message}") from err
        except (OSError, http.client.HTTPException) as err:
            if deadline.over or isinstance(err, TimeoutError):
                raise NotDelivered(f"no answer within {timeout_s:g} s") from err
            raise NotDelivered(f"no answer: {str(err) or type(err).__name__}") from err
        return response.status, response.getheader("Retry-After", ""), said


def _connection(parts: SplitResult, timeout_s: float) -> http.client.HTTPConnection:
    host, port = parts.hostname or "", parts.port
    if parts.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
    return http.client.HTTPConnection(host, port, timeout=timeout_s)


def _wait(retry_after: str) -> timedelta | None:
    """Seconds, or a date; None for neither."""
    if retry_after.isdecimal():
        return timedelta(seconds=min(int(retry_after), 10**8))
    try:
        until = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC), timedelta(0))
