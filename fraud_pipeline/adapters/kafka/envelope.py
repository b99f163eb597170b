"""What every message has, whatever it says: key, value and headers, its place, and the dead letter it may become.

Knows no network and no client, and nothing of what stands in a value.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, Self, cast

from fraud_pipeline.domain.strict_json import strict_object
from fraud_pipeline.errors import InputError, MalformedJson

Headers = Sequence[tuple[str, bytes | None]] | None
"""As the client gives them; None where a message has none."""

BadCode = Literal[
    "not_json", "invalid_transaction", "invalid_label", "null_value", "too_large", "unknown_version",
    "unknown_content_type", "unknown_type", "wrong_key", "id_conflict", "invalid_decision",
]  # fmt: skip

TYPE: Final = "type"
CONTENT_TYPE: Final = "content-type"
VERSION: Final = "version"
DEAD: Final = "dlq-"
"""Headers that a dead letter has besides its own: code, error, source, at."""
REQUEUED_FROM: Final = "requeued-from"
"""The dead letter that a message was made from again."""

JSON: Final = b"application/json"
V1: Final = b"1"
MAX_VALUE_BYTES: Final = 262_144
"""A payment with 64 attributes and every text at its longest takes 5 kB; what is far larger is something else."""
MAX_ERROR_CHARACTERS: Final = 1_000
"""Of an error in a header: enough to name a dozen broken fields, and far below what a broker takes in one message."""
_PLACE: Final = re.compile(r"([A-Za-z0-9._-]{1,249})\[(\d{1,10})\]@(\d{1,19})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Message:
    """One message to produce. Of a dead letter, a key, value or header that was null stays null."""

    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message stands; its text is `transactions[3]@123`."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"

    @property
    def writer(self) -> str:
        """The log that it stands in: `transactions[3]`."""
        return f"{self.topic}[{self.partition}]"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The reverse of `str`. Raises InputError."""
        found = _PLACE.fullmatch(text)
        if found is None:
            raise InputError(f"{ascii(text)[:80]} is no place in a topic.", remedy="Write it as transactions[3]@123.")
        return cls(found[1], int(found[2]), int(found[3]))


class BadMessage(InputError):
    """A message that goes to the dead letters; `code` says why in one word."""

    def __init__(self, code: BadCode, message: str, *, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.code: BadCode = code


HEADERS: Final = {
    kind: ((TYPE, kind.encode()), (CONTENT_TYPE, JSON), (VERSION, V1))
    for kind in ("transaction", "label", "decision", "alert", "minutes")
}
"""The headers that a message of each type has."""


def kind_of(headers: Headers, default: bytes) -> bytes | None:
    """The type that the headers name. Raises BadMessage for a version or a content type that is not ours.

    Of two headers of one name the last counts, as in Kafka's own clients.
    """
    kind: bytes | None = default
    content_type: bytes | None = JSON
    version: bytes | None = V1
    for name, content in headers or ():
        if name == TYPE:
            kind = content
        elif name == CONTENT_TYPE:
            content_type = content
        elif name == VERSION:
            version = content
    if version != V1:
        raise BadMessage("unknown_version", f"The header version is {shown(version)}.", remedy="Version 1 is known.")
    if content_type != JSON:
        raise BadMessage(
            "unknown_content_type",
            f"The header content-type is {shown(content_type)}.",
            remedy="Send application/json.",
        )
    return kind


def unknown_type(kind: bytes | None, known: str) -> BadMessage:
    """The error of a message whose type has no business in its topic."""
    return BadMessage("unknown_type", f"The header type is {shown(kind)}.", remedy=f"It must be {known}.")


def last_header(headers: Headers, name: str) -> bytes | None:
    """The last header of that name; None where there is none, or it is null."""
    found = None
    for each, content in headers or ():
        if each == name:
            found = content
    return found


def header_text(headers: Headers, name: str) -> str | None:
    """The same as text; what is not UTF-8 is shown as such."""
    value = last_header(headers, name)
    return None if value is None else value.decode(errors="backslashreplace")


def object_of(value: bytes | None) -> dict[str, Any]:
    """The JSON object in a value. Raises BadMessage where there is none."""
    if value is None:
        raise BadMessage(
            "null_value", "The message has no value.", remedy="Payments and labels are never deleted here."
        )
    if len(value) > MAX_VALUE_BYTES:
        raise BadMessage("too_large", f"The value takes {len(value):,} bytes; {MAX_VALUE_BYTES:,} is the most.")
    try:
        return strict_object(value)
    except MalformedJson as err:
        fields = "; ".join(str(broken) for broken in err.violations if broken.field)
        raise BadMessage("not_json", f"{err.message} {fields}".strip(), remedy=err.remedy) from err


def dead_letter(
    key: bytes | None, value: bytes | None, headers: Headers, *, source: Place, error: BadMessage, at: datetime
) -> Message:
    """The message as it came, byte by byte, with why and from where; `source` is its place, `at` is now."""
    moment = at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    reason = error.message[:MAX_ERROR_CHARACTERS].encode(errors="backslashreplace")
    added = {"code": error.code.encode(), "error": reason, "source": str(source).encode(), "at": moment.encode()}
    whole = (*original_headers(headers), *((DEAD + name, content) for name, content in added.items()))
    return Message(cast("bytes", key), cast("bytes", value), cast("tuple[tuple[str, bytes], ...]", whole))


def original_headers(headers: Headers) -> list[tuple[str, bytes | None]]:
    """The headers without those that a dead letter adds."""
    return [header for header in headers or () if not header[0].startswith(DEAD)]


def shown(content: bytes | None) -> str:
    """A key or a header as a person reads it, at most 80 characters, nothing that a terminal would act on."""
    if content is None:
        return "null"
    text = ascii(content.decode(errors="backslashreplace"))
    return text if len(text) <= 80 else text[:77] + "..."
