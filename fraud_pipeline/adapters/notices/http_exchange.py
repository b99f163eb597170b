"""One HTTP request within one deadline: no redirect is followed, no proxy is used, and the answer is read up to a limit.

A receiver that hangs, or sends a byte a second, costs the deadline and no more.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import SplitResult, urlsplit

from fraud_pipeline.adapters.notices.channel import SEND_TIMEOUT_S, NotDelivered, Refused
from fraud_pipeline.adapters.notices.deadline import Deadline

_SAID: Final = 600
"""Bytes of an answer to a POST that are read: as much as an error says."""
_TRY_LATER: Final = (408, 425, 429)
"""What a receiver says for a time, of the 4xx."""
_AGENT: Final = "fraud-pipeline"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `body` up to the limit."""

    status: int
    retry_after: str
    body: bytes


def post(url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float = SEND_TIMEOUT_S) -> None:
    """POST JSON. NotDelivered where it may work later (no answer, 408, 425, 429, 5xx), Refused for another answer than 2xx."""
    sent = {"Content-Type": "application/json", **headers}
    answer = exchange("POST", url, body, sent, timeout_s=timeout_s, longest=_SAID)
    if 200 <= answer.status < 300:
        return
    said = answer.body.decode("utf-8", "replace").strip()
    reason = f"HTTP {answer.status}: {said}" if said else f"HTTP {answer.status}"
    if answer.status in _TRY_LATER or answer.status >= 500:
        raise NotDelivered(reason, retry_after=_wait(answer.retry_after))
    if 300 <= answer.status < 400:
        raise Refused(
            f"HTTP {answer.status}: it leads elsewhere, and redirects are not followed; set the address itself"
        )
    raise Refused(reason)


def get(url: str, *, timeout_s: float, longest: int) -> bytes:
    """GET a page. NotDelivered for no answer or another one than 200."""
    answer = exchange("GET", url, None, {}, timeout_s=timeout_s, longest=longest)
    if answer.status != 200:
        raise NotDelivered(f"HTTP {answer.status}")
    return answer.body


def exchange(
    method: str, url: str, body: bytes | None, headers: Mapping[str, str], *, timeout_s: float, longest: int
) -> Answer:
    """Whatever is answered. NotDelivered for no answer within the time, Refused where the certificate is not trusted."""
    parts = urlsplit(url)
    connection = _connection(parts, timeout_s)
    late = f"no answer within {timeout_s:g} s"
    with closing(connection), Deadline(timeout_s, lambda: connection.sock) as deadline:
        try:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request(method, target, body, {"User-Agent": _AGENT, "Connection": "close", **headers})
            response = connection.getresponse()
            answer = Answer(response.status, response.getheader("Retry-After", ""), response.read(longest))
        except ssl.SSLCertVerificationError as err:
            raise Refused(f"its certificate is not trusted: {err.verify_message}") from err
        except (OSError, http.client.HTTPException) as err:
            is_late = deadline.over or isinstance(err, TimeoutError)
            raise NotDelivered(late if is_late else f"no answer: {str(err) or type(err).__name__}") from err
        if deadline.over:  # an answer that is cut among its headers looks whole to the library
            raise NotDelivered(late)
        return answer


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
