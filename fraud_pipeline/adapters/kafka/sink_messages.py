"""From messages of the stream's topics to what the ledger is to keep of them. Knows no network and no database.

A message that cannot be read is left out and counted: those of `transactions` become dead letters by the scorer, those of
the inbox by the sink; `decisions`, `alerts` and `shared-state` are written by the scorer alone, so a bad one is a fault.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, Protocol, cast

import orjson

from fraud_pipeline.adapters.kafka.messages import (
    ROLE,
    BadMessage,
    Headers,
    Place,
    header_text,
    read_alert,
    read_decision,
    read_inbox_label,
    read_log_message,
)
from fraud_pipeline.adapters.ledger_records import DecisionRecord, DecisionRole
from fraud_pipeline.adapters.ledger_sink_rows import ClosedMinute, RawLabel, RawTransaction, SinkBatch
from fraud_pipeline.domain.transaction import LABEL_SOURCES, Label, LabelChange, LabelSource, Transaction

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_ROLES: Final[dict[str | None, DecisionRole]] = {None: "decided", "decided": "decided", "shadow": "shadow"}
_log: Final = logging.getLogger(__name__)

Kind = Literal["transactions", "decisions", "alerts", "labels", "shared_state"]


class Received(Protocol):
    """A message as confluent-kafka gives it."""

    def topic(self) -> str | None: ...
    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...
    def key(self) -> Any: ...
    def value(self) -> Any: ...
    def headers(self) -> Any: ...
    def timestamp(self) -> tuple[int, int]: ...


@dataclass(frozen=True, slots=True)
class BadReceived:
    """A message that could not be read, and why."""

    message: Received
    place: Place
    error: BadMessage


class SinkReader:
    """`topics` says what stands in a topic by its whole name; `now` stamps the labels of the inbox."""

    def __init__(self, topics: dict[str, Kind], *, currency: str, now: Callable[[], datetime]) -> None:
        self._topics = topics
        self._currency = currency
        self._now = now
        self.bad: Counter[tuple[str, str]] = Counter()
        """By (kind of topic, code)."""

    def read(self, messages: Iterable[Received]) -> tuple[SinkBatch, list[BadReceived]]:
        """What the messages bring, without positions, and the labels of the inbox that could not be read."""
        batch, refused = SinkBatch(), []
        for message in messages:
            kind = self._topics[cast("str", message.topic())]
            try:
                self._take(kind, message, batch)
            except BadMessage as err:
                self.bad[kind, err.code] += 1
                place = _place(message)
                _log.warning("%s is left out: %s (%s)", place, err.message, err.code)
                if kind == "labels":
                    refused.append(BadReceived(message, place, err))
        return batch, refused

    def _take(self, kind: Kind, message: Received, batch: SinkBatch) -> None:
        if kind == "transactions":
            self._take_log(message, batch)
        elif kind == "decisions":
            decision, _ = read_decision(message.value())
            batch.decisions.append(DecisionRecord.of(decision, role=_role(message.headers())))
        elif kind == "alerts":
            batch.alerts.append(read_alert(message.value()))
        elif kind == "labels":
            batch.inbox.append(read_inbox_label(message.value(), message.headers(), known_at=self._now()))
        else:
            batch.closings.append(_closed_minute(message.value()))

    def _take_log(self, message: Received, batch: SinkBatch) -> None:
        value, place, received_at = message.value(), _place(message), _appended_at(message)
        event = read_log_message(
            message.key(), value, message.headers(), currency=self._currency, received_at=received_at
        )
        if isinstance(event, Transaction):
            batch.transactions.append(RawTransaction(event, place.writer, place.offset, received_at))
        else:
            batch.labels.append(RawLabel(_label_of(event, value), event.change, place.writer, place.offset))


def _place(message: Received) -> Place:
    return Place(cast("str", message.topic()), cast("int", message.partition()), cast("int", message.offset()))


def _appended_at(message: Received) -> datetime:
    return _EPOCH + message.timestamp()[1] * _MILLISECOND


def _role(headers: Headers) -> DecisionRole:
    found = header_text(headers, ROLE)
    if found not in _ROLES:
        raise BadMessage("invalid_decision", f"The header role is {found!a}.", remedy="It is decided or shadow.")
    return _ROLES[found]


def _label_of(change: LabelChange, value: bytes) -> Label:
    """What the change came from; where another producer left that out, what the change itself says."""
    stored = orjson.loads(value)
    is_fraud, source, author = stored.get("is_fraud"), stored.get("source"), stored.get("author")
    return Label(
        transaction_id=change.transaction_id,
        is_fraud=is_fraud if isinstance(is_fraud, bool) else change.change > 0,
        source=cast("LabelSource", source if source in LABEL_SOURCES else "import"),
        author=author if isinstance(author, str) and author else "unknown",
        known_at=change.known_at,
    )


def _closed_minute(value: bytes | None) -> ClosedMinute:
    try:
        stored = orjson.loads(value or b"")
        writer, minute, offset, by_clock = (stored[name] for name in ("writer", "minute", "offset", "by_clock"))
    except (KeyError, TypeError, ValueError) as err:
        raise BadMessage("not_json", f"This is no closed minute: {str(err)[:200]}.") from err
    if [type(each) for each in (writer, minute, offset, by_clock)] != [str, int, int, bool]:
        raise BadMessage("not_json", "This is no closed minute: a member is of the wrong type.")
    return ClosedMinute(writer, minute, offset, by_clock)
